"""Layers as they travel: how large each is compressed, found out once and kept in the store.

What a registry has, it has compressed already. Everything else is taken as gzip makes it, which is
what tools that push images do.
"""

from __future__ import annotations

import hashlib
import threading
import zlib
from contextlib import suppress
from typing import IO, TYPE_CHECKING, cast

from nox_variants.errors import ImageError, ImageUnavailable, StoreError
from nox_variants.oci.digest import canonical_json
from nox_variants.oci.layout import write_layer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from nox_variants.oci.layout import LayerBlob
    from nox_variants.store import Store

FORMAT = 1
"""Part of every key: a change of what is kept makes old answers unused."""

LEVEL = 6
"""What gzip(1), Docker and Podman compress with when nobody says otherwise."""

LONG = 20_000_000
"""Bytes of a layer whose compression is told: about a second's work."""

GZIP_WINDOW = 31  # zlib.h, deflateInit2: the largest window, with a gzip header that has no name
_FILE = "transfer.json"


class Gzip:
    """Counts what becomes of bytes under gzip, and keeps none of them.

    Args:
        cancelled: Ends it.
    """

    def __init__(self, cancelled: threading.Event) -> None:
        self._cancelled = cancelled
        self._compressor = zlib.compressobj(LEVEL, zlib.DEFLATED, GZIP_WINDOW)
        self._size = 0

    def write(self, data: bytes | memoryview, /) -> int:
        """Take bytes.

        Raises:
            ImageError: The run was cancelled.
        """
        if self._cancelled.is_set():
            raise ImageError("cancelled")
        self._size += len(self._compressor.compress(data))
        return len(data)

    def end(self) -> int:
        """Return the size of the whole."""
        return self._size + len(self._compressor.flush())


class Transfers:
    """Sizes of layers as they travel.

    Args:
        store: Where they are kept.
        progress: Told what takes long.
        cancelled: Ends everything.
    """

    def __init__(
        self, store: Store, *, progress: Callable[[str], None], cancelled: threading.Event
    ) -> None:
        self._store = store
        self._progress = progress
        self._cancelled = cancelled
        self._lock = threading.Lock()
        self._untold: set[str] = set()

    def compressed(self, name: str, layer: LayerBlob) -> int:
        """Return the bytes of a layer under gzip.

        Args:
            name: Whose layer it is, for what is told.
            layer: The layer; found again by its diff id.

        Raises:
            LayoutError: Its tar is not what its identity says.
        """

        def compress() -> tuple[int]:
            if layer.size >= LONG:
                size = f"{layer.size / 1e6:.0f} MB"
                self._progress(f"{name}: compressing {size} for its transfer size")
            sink = Gzip(self._cancelled)
            write_layer(cast("IO[bytes]", sink), layer)
            return (sink.end(),)

        (size,) = kept(self._store, ("gzip", layer.diff_id), compress, cancelled=self._cancelled)
        return size

    def told(
        self, name: str, pinned: str, platform: str, ask: Callable[[], Iterable[int]]
    ) -> tuple[int, ...] | None:
        """Return the sizes of layers that only a registry knows; None where it does not say.

        Args:
            name: Whose layers they are, for what is told.
            pinned: The image, by its digest.
            platform: ``linux/amd64``.
            ask: Asks the registry.
        """
        with self._lock:
            if pinned in self._untold:
                return None
        try:
            return kept(
                self._store,
                ("registry", pinned, platform),
                lambda: tuple(ask()),
                cancelled=self._cancelled,
            )
        except (ImageError, ImageUnavailable) as error:
            if self._cancelled.is_set():
                raise
            with self._lock:
                new = pinned not in self._untold
                self._untold.add(pinned)
            if new:
                self._progress(f"{name}: its transfer size is not known: {error.message}")
            return None


def kept(
    store: Store,
    identity: tuple[str, ...],
    work: Callable[[], tuple[int, ...]],
    *,
    cancelled: threading.Event,
) -> tuple[int, ...]:
    """Return sizes that are found out once, also across processes.

    Args:
        store: Where they are kept.
        identity: What decides them, beside this machine's zlib.
        work: Finds them out.
        cancelled: Ends the wait for another process.
    """
    value = ["transfer", FORMAT, LEVEL, zlib.ZLIB_RUNTIME_VERSION, *identity]
    key = hashlib.sha256(canonical_json(value)).hexdigest()
    found = _find(store, key)
    if found is not None:
        return found
    with store.lock(f"transfer-{key}", cancelled=cancelled):
        found = _find(store, key)
        if found is None:
            found = work()
            with store.publish("facts", key, replace=True) as staging:
                store.write_json(staging / _FILE, {"sizes": found})
    return found


def _find(store: Store, key: str) -> tuple[int, ...] | None:
    folder = store.find("facts", key)
    if folder is not None:
        with suppress(StoreError, LookupError, TypeError, ValueError):
            return tuple(map(int, store.read_json(folder / _FILE)["sizes"]))
    return None
