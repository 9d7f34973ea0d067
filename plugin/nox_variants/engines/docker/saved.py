"""What `docker save` writes, read as a stream: how much each layer holds, and how it travels."""

from __future__ import annotations

import json
import re
import tarfile
from contextlib import suppress
from typing import IO, TYPE_CHECKING, cast

from nox_variants.engines.docker.connection import explained
from nox_variants.errors import StoreError
from nox_variants.images import transfer
from nox_variants.images.layerstream import uncompressed
from nox_variants.oci.digest import hex_of

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from docker.models.images import Image as DockerImage

    from nox_variants.model import Digest
    from nox_variants.store import Store

_LARGEST_MANIFEST = 4 << 20
_WORD = re.compile(r"\w+", re.ASCII)


def contents(store: Store, image: DockerImage) -> tuple[int, ...]:
    """Return the content of each layer of a daemon's image; all of it is read for that, once.

    Args:
        store: Where the answer is kept.
        image: The image.

    Raises:
        DaemonError: It cannot be read.
    """
    key = hex_of(str(image.id))
    folder = store.find("facts", key)
    if folder is not None:
        with suppress(StoreError, LookupError):
            return tuple(store.read_json(folder / "layers.json")["contents"])
    with explained(f"reading {image.id}"):
        found = layer_contents(image.save(chunk_size=1 << 20))
    with store.publish("facts", key, replace=True) as staging:
        store.write_json(staging / "layers.json", {"contents": found})
    return found


def layer_contents(chunks: Iterable[bytes]) -> tuple[int, ...]:
    """Return the bytes of regular files in each layer, base first; hard links count once.

    Args:
        chunks: The archive, as it comes.

    Raises:
        ValueError: It is no archive of one image.
        tarfile.TarError: It is no archive at all.
    """
    return _measured(chunks, lambda _, file: _content(file))


def compressed(
    store: Store, image: DockerImage, below: Sequence[Digest], *, cancelled: threading.Event
) -> tuple[int, ...]:
    """Return the bytes under gzip of a daemon's layers above some; all is read for that, once.

    Args:
        store: Where the answer is kept.
        image: The image.
        below: Diff ids of the lowest layers, which are not wanted.
        cancelled: Ends it.

    Raises:
        DaemonError: It cannot be read.
        ImageError: The run was cancelled.
    """

    def read() -> tuple[int, ...]:
        with explained(f"reading {image.id}"):
            return layers_compressed(image.save(chunk_size=1 << 20), below, cancelled=cancelled)

    return transfer.kept(store, ("daemon", str(image.id), *below), read, cancelled=cancelled)


def layers_compressed(
    chunks: Iterable[bytes], below: Sequence[Digest], *, cancelled: threading.Event
) -> tuple[int, ...]:
    """Return the bytes under gzip of the layers above some, base first.

    Args:
        chunks: The archive, as it comes.
        below: Diff ids of the lowest layers. Most daemons name a layer's file so: those are passed
            over, not compressed for nothing.
        cancelled: Ends it.

    Raises:
        ValueError: It is no archive of one image.
        tarfile.TarError: It is no archive at all.
    """
    unwanted = {hex_of(each) for each in below}

    def measure(name: str, file: IO[bytes]) -> int:
        if not unwanted.isdisjoint(_WORD.findall(name)):
            return 0
        sink = transfer.Gzip(cancelled)
        for data in uncompressed(file, cancelled):
            sink.write(data)
        return sink.end()

    return _measured(chunks, measure)[len(below) :]


def _measured(chunks: Iterable[bytes], measure: Callable[[str, IO[bytes]], int]) -> tuple[int, ...]:
    """Return what is measured of each layer's file, base first."""
    found: dict[str, int] = {}
    links: dict[str, str] = {}
    layers: list[str] | None = None
    stream = cast("IO[bytes]", Stream(iter(chunks)))
    with tarfile.open(fileobj=stream, mode="r|") as outer:
        for member in outer:
            if member.issym() or member.islnk():
                links[member.name] = member.linkname
                continue
            file = outer.extractfile(member) if member.isreg() else None
            if file is None:
                continue
            if member.name == "manifest.json":
                (image,) = json.loads(file.read(_LARGEST_MANIFEST))
                layers = image["Layers"]
            elif not member.name.endswith(".json"):
                found[member.name] = measure(member.name, file)
    if layers is None:
        raise ValueError("the archive has no manifest.json")
    return tuple(found[_target(name, links)] for name in layers)


def _target(name: str, links: dict[str, str]) -> str:
    """Return where a layer's tar is: Docker 20.10 links to a layer that is there twice."""
    if name not in links:
        return name
    return links[name].removeprefix("../")


def _content(file: IO[bytes]) -> int:
    """Return the bytes of regular files of a layer's tar; 0 for what is no tar."""
    try:
        with tarfile.open(fileobj=file, mode="r|*") as layer:
            return sum(member.size for member in layer if member.isreg())
    except tarfile.TarError:
        return 0


class Stream:
    """An iterator of chunks as a file that is read from its beginning to its end."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = b""

    def read(self, size: int) -> bytes:
        """Return so many bytes, fewer at the end."""
        parts, have = [self._rest], len(self._rest)
        while have < size and (chunk := next(self._chunks, b"")):
            parts.append(chunk)
            have += len(chunk)
        data = b"".join(parts)
        self._rest = data[size:]
        return data[:size]
