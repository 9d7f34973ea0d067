"""What the user has agreed to: verdicts, sizes and digests that runs are held against. Pure.

The values of ``variants.lock``; :mod:`nox_variants.lockfile` reads and writes it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from nox_variants.compare import ImageSeen, Side
from nox_variants.model import SourceKind
from nox_variants.trend import point

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from nox_variants.limits import Measure
    from nox_variants.model import Cause, Digest, Variant, Verdict
    from nox_variants.record import Record
    from nox_variants.results import Sizes

NAME = "variants.lock"
"""The file, beside ``variants.yaml``; the user commits it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pin:
    """An image as it was measured with.

    Attributes:
        digest: Of its content.
        reference: ``alpine:3.22@sha256:...`` of a registry image, an archive's path, or the apt
            packages asked for.
    """

    digest: Digest
    reference: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What was measured of a variant.

    Attributes:
        verdict: Whether it works.
        cause: Why it fails.
        sizes: In bytes; None when there was no image.
        ratchet: The least that was ever measured, for measures with a ratchet.
    """

    verdict: Verdict
    cause: Cause | None = None
    sizes: Sizes | None = None
    ratchet: tuple[tuple[Measure, float], ...] = ()


ImageKey = tuple[str, SourceKind]
"""An image's name in the file, and where it came from."""

RowKey = tuple[str, str]
"""Where a variant's images came from (:attr:`Record.source`), and its id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """What is agreed on for one platform."""

    images: Mapping[ImageKey, Pin] = field(default_factory=dict)
    rows: Mapping[RowKey, Row] = field(default_factory=dict)

    def row(self, record: Record) -> Row | None:
        """Return the row that a record is held against."""
        return self.rows.get((record.source, record.variant))

    def side(self, record: Record) -> Side | None:
        """Return what the baseline says of a record's variant."""
        row = self.row(record)
        if row is None:
            return None
        pins = (
            (image.name, self.images.get((image.name, image.source))) for image in record.images
        )
        return Side(
            variant=record.variant,
            platform=record.platform,
            source=record.source,
            verdict=row.verdict,
            cause=row.cause,
            sizes=row.sizes,
            images=tuple(ImageSeen(name=name, digest=pin.digest) for name, pin in pins if pin),
        )

    def updated(self, records: Iterable[Record], variants: Iterable[Variant]) -> Baseline:
        """Return the baseline with what a run measured, without rows of variants that are gone.

        What has no verdict, a skipped variant or an infrastructure problem, leaves its row as it
        was. An image that several records share is kept once: as the last of them had it.

        Args:
            records: The run's.
            variants: All of the file's, also those that did not run.
        """
        limits = {str(variant.id): variant.limits for variant in variants}
        images = dict(self.images)
        rows = {key: row for key, row in self.rows.items() if key[1] in limits}
        for record in records:
            if record.verdict is None:
                continue
            for image in record.images:
                if image.source is not SourceKind.SCRATCH:
                    images[image.name, image.source] = Pin(
                        digest=image.digest, reference=image.pinned or image.reference
                    )
            ratchets = [each.measure for each in limits.get(record.variant, ()) if each.ratchet]
            rows[record.source, record.variant] = _row(
                record, record.verdict, self.row(record), ratchets
            )
        return Baseline(images=images, rows=rows)

    def missing(self, records: Iterable[Record]) -> tuple[str, ...]:
        """Return the variants of a run that have a verdict and no row."""
        return tuple(each.variant for each in records if each.verdict and self.row(each) is None)

    def stale(self, variants: Iterable[Variant]) -> tuple[str, ...]:
        """Return the rows of variants that the file has no more."""
        known = {variant.id for variant in variants}
        return tuple(sorted({name for _, name in self.rows if name not in known}))


def _row(record: Record, verdict: Verdict, before: Row | None, ratchets: Iterable[Measure]) -> Row:
    kept, now = dict(before.ratchet) if before else {}, point(record)
    seen = {each: (kept.get(each), now.measured(each)) for each in ratchets}
    values = {each: [value for value in both if value is not None] for each, both in seen.items()}
    least = {each: min(both) for each, both in values.items() if both}
    return Row(
        verdict=verdict,
        cause=record.cause,
        sizes=record.sizes,
        ratchet=tuple(least.items()),
    )
