"""Layers on their way to a registry: compressed where they are not, each once in a store's life.

What came compressed travels as it came, so that a registry that has it already is told so. Knows
no registry and no engine.
"""

from __future__ import annotations

import hashlib
import zlib
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, cast

from nox_variants.errors import ImageError, LayoutError, StoreError
from nox_variants.images.content import Descriptor
from nox_variants.images.transfer import GZIP_WINDOW, LEVEL, LONG
from nox_variants.oci.digest import canonical_json, parse
from nox_variants.oci.image import LAYER
from nox_variants.oci.layout import LayerBlob, write_layer

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from nox_variants.model import Digest
    from nox_variants.store import Store

FORMAT = 1
"""Part of every key: a change of what is kept makes old answers unused."""

GZIP = f"{LAYER}+gzip"

_FILE = "packed.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """A layer of an image on its way out.

    Attributes:
        diff_id: Digest of its uncompressed tar.
        size: Bytes of what is written.
        write: Writes it: its tar, or what it is as it travels.
        packed: What it is as it travels, where that is what is written.
    """

    diff_id: Digest
    size: int
    write: Callable[[IO[bytes]], object]
    packed: Descriptor | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outgoing:
    """An image on its way out: its configuration, as it was recorded, and its layers."""

    config: bytes
    layers: tuple[Layer, ...]


class Packer:
    """Makes layers fit for travelling.

    Args:
        store: Where it is kept what became of each, and room for drafts.
        progress: Told what takes long.
        cancelled: Ends everything.
    """

    def __init__(
        self, store: Store, *, progress: Callable[[str], None], cancelled: threading.Event
    ) -> None:
        self._store = store
        self._progress = progress
        self._cancelled = cancelled

    def known(self, layer: Layer) -> Descriptor | None:
        """Return what a layer is as it travels; None where it was never packed."""
        return layer.packed or self._found(_key(layer))

    @contextmanager
    def packed(self, where: str, layer: Layer) -> Iterator[Packed]:
        """Yield a layer as it travels; its file is gone afterwards.

        Args:
            where: The image, for what is told.
            layer: The layer.
        """
        with self._store.staging() as staging:
            file = staging / "layer"

            def pack() -> Descriptor:
                return self._pack(where, layer, file)

            yield Packed(self.known(layer), file, pack)

    def _pack(self, where: str, layer: Layer, file: Path) -> Descriptor:
        if layer.packed is None and layer.size >= LONG:
            self._progress(f"{where}: compressing {layer.size / 1e6:.0f} MB")
        with file.open("wb") as out:
            sink = _Sink(out, self._cancelled, compressing=layer.packed is None)
            if layer.packed is None:
                tar = LayerBlob(diff_id=layer.diff_id, size=layer.size, write=layer.write)
                write_layer(cast("IO[bytes]", sink), tar)
            else:
                layer.write(cast("IO[bytes]", sink))
            media_type = layer.packed.media_type if layer.packed else GZIP
            made = sink.end(media_type)
        if layer.packed is None:
            self._keep(_key(layer), made)
        elif made != layer.packed:
            raise LayoutError(
                f"layer {layer.packed.digest} came out as {made.digest} with {made.size} bytes",
                hint="nox-variants doctor --verify removes what was changed since.",
            )
        return made

    def _found(self, key: str) -> Descriptor | None:
        folder = self._store.find("facts", key)
        if folder is not None:
            with suppress(StoreError, LayoutError, LookupError, TypeError, ValueError):
                values = self._store.read_json(folder / _FILE)
                return Descriptor(
                    media_type=GZIP, digest=parse(values["digest"]), size=int(values["size"])
                )
        return None

    def _keep(self, key: str, made: Descriptor) -> None:
        with self._store.publish("facts", key, replace=True) as staging:
            self._store.write_json(staging / _FILE, {"digest": made.digest, "size": made.size})


class Packed:
    """A layer as it travels, packed when somebody has to know or to send it."""

    def __init__(
        self, known: Descriptor | None, file: Path, pack: Callable[[], Descriptor]
    ) -> None:
        self._known = known
        self._file = file
        self._pack = pack

    @property
    def descriptor(self) -> Descriptor:
        """What it is."""
        if self._known is None:
            self._known = self._pack()
        return self._known

    def open(self) -> IO[bytes]:
        """Open its bytes.

        Raises:
            LayoutError: They are others than what was kept about them.
        """
        described = self.descriptor
        if not self._file.exists() and self._pack() != described:
            raise LayoutError(
                f"layer {described.digest} is compressed to something else than before",
                hint="Try again: the new one is known now.",
            )
        return self._file.open("rb")


def _key(layer: Layer) -> str:
    """Return the name of all that decides what becomes of a layer: its bytes, and this zlib."""
    value = ["packed", FORMAT, LEVEL, zlib.ZLIB_RUNTIME_VERSION, layer.diff_id]
    return hashlib.sha256(canonical_json(value)).hexdigest()


class _Sink:
    """Writes bytes, as gzip makes them or as they are, and knows what they are then."""

    def __init__(self, out: IO[bytes], cancelled: threading.Event, *, compressing: bool) -> None:
        self._out = out
        self._cancelled = cancelled
        self._compressor = (
            zlib.compressobj(LEVEL, zlib.DEFLATED, GZIP_WINDOW) if compressing else None
        )
        self._hash = hashlib.sha256()
        self._size = 0

    def write(self, data: bytes | memoryview, /) -> int:
        """Take bytes.

        Raises:
            ImageError: The run was cancelled.
        """
        if self._cancelled.is_set():
            raise ImageError("cancelled")
        self._put(self._compressor.compress(data) if self._compressor else data)
        return len(data)

    def end(self, media_type: str) -> Descriptor:
        """Return what was written."""
        if self._compressor:
            self._put(self._compressor.flush())
        return Descriptor(
            media_type=media_type, digest=parse(f"sha256:{self._hash.hexdigest()}"), size=self._size
        )

    def _put(self, data: bytes | memoryview) -> None:
        self._hash.update(data)
        self._size += len(data)
        self._out.write(data)
