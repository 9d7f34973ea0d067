"""The images of a run, where they are now: in layouts and the store, or in a daemon."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING

from nox_variants import names
from nox_variants.engines import layouts
from nox_variants.errors import VariantsError
from nox_variants.results import EngineName, Role

if TYPE_CHECKING:
    import threading
    from collections.abc import Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path

    from nox_variants.engines.docker.connection import Daemon
    from nox_variants.images.packing import Outgoing
    from nox_variants.model import Variant
    from nox_variants.record import ImageMade, Record
    from nox_variants.store import Store


class RunImages:
    """Finds images by their records; what is not exactly what was recorded is refused.

    Args:
        store: Where the bases of layouts are.
        folder: Where layouts are, by ``PROGRAM/TAG``.
        environ: The environment, to find daemons.
        cancelled: Ends everything.
    """

    def __init__(
        self,
        *,
        store: Store,
        folder: Path,
        environ: Mapping[str, str],
        cancelled: threading.Event,
    ) -> None:
        self._store = store
        self._folder = folder
        self._environ = environ
        self._cancelled = cancelled
        self._daemons: dict[EngineName, Daemon | VariantsError] = {}

    def check(self, record: Record, variant: Variant) -> None:
        """Look whether a variant's image is here, which for one in a daemon is quickly done.

        Args:
            record: The variant's record, which has an image.
            variant: The variant, from which its layout has its name.

        Raises:
            VariantsError: It is gone, or another one.
        """
        if (daemon := self._daemon(record)) is None:
            self._layout(record, variant)
            return
        from nox_variants.engines.docker import outgoing  # noqa: PLC0415  # what a daemon needs

        outgoing.found(daemon, _image(record).config_digest)

    def taken(self, record: Record, variant: Variant) -> AbstractContextManager[Outgoing]:
        """Return an image for as long as a block lasts; see :meth:`check`."""
        if (daemon := self._daemon(record)) is None:
            return nullcontext(self._layout(record, variant))
        from nox_variants.engines.docker import outgoing  # noqa: PLC0415  # what a daemon needs

        return outgoing.outgoing(
            self._store,
            daemon,
            _image(record).config_digest,
            record.platform,
            cancelled=self._cancelled,
        )

    def close(self) -> None:
        """Close connections to daemons."""
        for daemon in self._daemons.values():
            if not isinstance(daemon, VariantsError):
                daemon.client.close()

    def _layout(self, record: Record, variant: Variant) -> Outgoing:
        base = next(each for each in record.images if each.role is Role.RUN)
        return layouts.outgoing(
            self._store,
            self._folder / variant.program / names.image_tag(variant),
            _image(record).config_digest,
            layouts.Base(kind=base.source, digest=base.digest),
        )

    def _daemon(self, record: Record) -> Daemon | None:
        """Return the daemon that built an image, asked for once; None for the embedded engine."""
        name = record.engine.name if record.engine else EngineName.EMBEDDED
        if name is EngineName.EMBEDDED:
            return None
        if name not in self._daemons:
            from nox_variants.engines.docker import outgoing  # noqa: PLC0415  # as above

            try:
                self._daemons[name] = outgoing.connected(name, self._environ)
            except VariantsError as error:
                self._daemons[name] = error
        found = self._daemons[name]
        if isinstance(found, VariantsError):
            raise found
        return found


def _image(record: Record) -> ImageMade:
    if record.image is None:
        raise TypeError(record)
    return record.image
