"""Two runs held against each other: what broke, grew, appeared, and what moved meanwhile. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from nox_variants.model import Verdict

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from nox_variants.model import Cause, Digest
    from nox_variants.record import Record
    from nox_variants.results import Outcome, Sizes


class Change(StrEnum):
    """What became of a variant, worst first."""

    BROKE = "broke"
    CAUSE = "other cause"
    VANISHED = "vanished"
    BIGGER = "bigger"
    FIXED = "fixed"
    SMALLER = "smaller"
    APPEARED = "appeared"


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSeen:
    """An image that a variant was built in or run on; packages as far as they are known."""

    name: str
    digest: Digest
    packages: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """What is known of a variant on one side: of a record, or of a row of the baseline.

    Attributes:
        variant: The variant's id.
        platform: ``linux/amd64``.
        source: Where its images come from (:attr:`Record.source`).
        verdict: None when it was not found out.
        cause: Why it fails.
        outcome: None for a baseline's row.
        sizes: In bytes.
        images: That it was made with.
        commit: Of the source; empty when it is not known.
        compiler: What compiled it, in its own words; empty likewise.
        tool: Version of nox-variants; empty likewise.
    """

    variant: str
    platform: str
    source: str
    verdict: Verdict | None
    cause: Cause | None = None
    outcome: Outcome | None = None
    sizes: Sizes | None = None
    images: tuple[ImageSeen, ...] = ()
    commit: str = ""
    compiler: str = ""
    tool: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """Something that is not what it was: an image, a package, the compiler, the source, this tool.

    Attributes:
        what: ``image gcc``, ``package libc6``, ``compiler``, ``source commit``, ``nox-variants``.
        before: What it was; empty for a package that is new.
        after: What it is; empty for a package that is gone.
    """

    what: str
    before: str
    after: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A variant of which the two sides do not say the same.

    Attributes:
        variant: The variant's id.
        change: What became of it.
        before: What it was; None where it appeared.
        after: What it is; None where it vanished.
        moved: What else is not what it was: where the reason may be.
    """

    variant: str
    change: Change
    before: Side | None
    after: Side | None
    moved: tuple[Moved, ...] = ()

    @property
    def grown(self) -> tuple[int, int]:
        """How many bytes of content the base image and the own layer grew by."""
        if not (self.before and self.after and self.before.sizes and self.after.sizes):
            return 0, 0
        return growth(self.before.sizes, self.after.sizes)


def side(record: Record) -> Side:
    """Return what a record says."""
    return Side(
        variant=record.variant,
        platform=record.platform,
        source=record.source,
        verdict=record.verdict,
        cause=record.cause,
        outcome=record.outcome,
        sizes=record.sizes,
        images=tuple(
            dict.fromkeys(
                ImageSeen(name=each.name, digest=each.digest, packages=each.packages)
                for each in record.images
            )
        ),
        commit=record.git_commit or "",
        compiler=record.linkage.compiler if record.linkage else "",
        tool=record.tools.get("nox_variants", ""),
    )


def growth(before: Sizes, after: Sizes) -> tuple[int, int]:
    """Return by how many bytes the content of the base image and of the own layer grew."""
    base = (after.content - after.above_base) - (before.content - before.above_base)
    return base, after.above_base - before.above_base


def differences(before: Iterable[Side], after: Iterable[Side]) -> tuple[Difference, ...]:
    """Return the variants that are not what they were: the worst first, then in their order.

    What has no verdict on one side, an infrastructure problem, is no change. Sizes are compared
    where both sides work, and with images of the same sources only.
    """
    olds = {each.variant: each for each in before}
    news = {each.variant: each for each in after}
    found = [
        Difference(
            variant=name,
            change=change,
            before=old,
            after=new,
            moved=moved(old, new) if old and new else (),
        )
        for name in {**news, **olds}
        for old, new in [(olds.get(name), news.get(name))]
        if (change := _change(old, new))
    ]
    order = list(Change)
    return tuple(sorted(found, key=lambda each: order.index(each.change)))


def _change(old: Side | None, new: Side | None) -> Change | None:
    if old is None or new is None:
        return Change.VANISHED if new is None else Change.APPEARED
    match old.verdict, new.verdict:
        case Verdict.FAILS, Verdict.WORKS:
            return Change.FIXED
        case Verdict.WORKS, Verdict.FAILS:
            return Change.BROKE
        case Verdict.FAILS, Verdict.FAILS:
            return Change.CAUSE if old.cause is not new.cause else None
        case Verdict.WORKS, Verdict.WORKS:
            return _resized(old, new)
        case _:
            return None


def _resized(old: Side, new: Side) -> Change | None:
    if old.sizes is None or new.sizes is None or old.source != new.source:
        return None
    if old.sizes.content == new.sizes.content:
        return None
    return Change.BIGGER if new.sizes.content > old.sizes.content else Change.SMALLER


def moved(before: Side, after: Side) -> tuple[Moved, ...]:
    """Return what is not what it was, as far as both sides know it: images and packages first."""
    return tuple(dict.fromkeys(_moved(before, after)))


def _moved(before: Side, after: Side) -> Iterator[Moved]:
    olds = {image.name: image for image in before.images}
    for image in after.images:
        old = olds.get(image.name)
        if old is None or old.digest == image.digest:
            continue
        yield Moved(what=f"image {image.name}", before=old.digest, after=image.digest)
        if old.packages and image.packages:
            yield from _packages(_versions(old.packages), _versions(image.packages))
    for what in ("compiler", "commit", "tool"):
        was, now = getattr(before, what), getattr(after, what)
        if was and now and was != now:
            yield Moved(what=_SAID.get(what, what), before=was, after=now)


_SAID = {"commit": "source commit", "tool": "nox-variants"}


def _versions(packages: Iterable[str]) -> dict[str, str]:
    return dict(each.partition("=")[::2] for each in packages)


def _packages(before: Mapping[str, str], after: Mapping[str, str]) -> Iterator[Moved]:
    for name in sorted({*before, *after}):
        if before.get(name) != after.get(name):
            yield Moved(
                what=f"package {name}", before=before.get(name, ""), after=after.get(name, "")
            )
