"""A variant's image on its way out of a daemon: what `docker save` writes, read again."""

from __future__ import annotations

import json
import shutil
from contextlib import closing, contextmanager
from functools import partial
from typing import IO, TYPE_CHECKING, Any

from nox_variants.engines.docker.connection import connect, explained
from nox_variants.engines.docker.pulling import find_image
from nox_variants.errors import EngineUnavailable, ImageError, ImageUnavailable, LayoutError
from nox_variants.images.archive import Archive, open_archive
from nox_variants.images.content import LARGEST_MANIFEST, Descriptor, document
from nox_variants.images.packing import Layer, Outgoing
from nox_variants.images.tarfiles import Tar, go_on, plain
from nox_variants.oci.digest import hex_of, parse, sha256_bytes
from nox_variants.oci.image import LAYER
from nox_variants.oci.layout import BLOBS
from nox_variants.results import EngineName

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from docker.models.images import Image as DockerImage

    from nox_variants.engines.docker.connection import Daemon
    from nox_variants.model import Digest
    from nox_variants.store import Store

_WRONG = (LayoutError, ValueError, LookupError, TypeError, AttributeError, RecursionError)
"""What reading documents raises that have another form."""


def connected(name: EngineName, environ: Mapping[str, str]) -> Daemon:
    """Return the daemon of an engine that a record names.

    Raises:
        EngineUnavailable: None answers.
    """
    try:
        return connect(name, environ)
    except EngineUnavailable:
        # A run takes what answers at DOCKER_HOST for what it is, which may be Podman.
        if name is not EngineName.PODMAN or "DOCKER_HOST" not in environ:
            raise
        return connect(EngineName.DOCKER, environ)


def found(daemon: Daemon, expected: Digest) -> DockerImage:
    """Return an image of a daemon by its id.

    Raises:
        ImageUnavailable: It is not there any more.
    """
    image = find_image(daemon, expected)
    if image is None or str(image.id) != expected:
        raise ImageUnavailable(
            f"{daemon.info.name} does not have its image {expected[:19]}... any more",
            hint="Run the matrix again: nox -s matrix",
        )
    return image


@contextmanager
def outgoing(
    store: Store, daemon: Daemon, expected: Digest, platform: str, *, cancelled: threading.Event
) -> Iterator[Outgoing]:
    """Take an image out of a daemon, for as long as the block lasts.

    Args:
        store: Where there is room for it.
        daemon: The daemon.
        expected: The image's id.
        platform: ``linux/amd64``: what it is made for.
        cancelled: Ends it.

    Raises:
        ImageUnavailable: It is not there any more.
        VariantsError: It cannot be read.
    """
    image = found(daemon, expected)
    with store.staging() as staging:
        file = staging / "image.tar"
        with file.open("wb") as out:
            out.writelines(_saved(image, cancelled))
        with archived(file, expected, platform, cancelled=cancelled) as taken:
            yield taken


def _saved(image: DockerImage, cancelled: threading.Event) -> Iterator[bytes]:
    with explained(f"reading {image.id}"):
        for chunk in image.save(chunk_size=1 << 20):
            go_on(cancelled)
            yield chunk


@contextmanager
def archived(
    file: Path, expected: Digest, platform: str, *, cancelled: threading.Event
) -> Iterator[Outgoing]:
    """Open what a daemon saved of an image.

    Args:
        file: What it saved; drafts of layers go beside it.
        expected: The image's id.
        platform: ``linux/amd64``: what it is made for.
        cancelled: Ends everything.

    Raises:
        ImageError: It is damaged, or another image.
    """
    with open_archive(file, platform, cancelled=cancelled) as archive:
        content = archive.content
        try:
            config = _config(file, expected, content.diff_ids, cancelled)
        except _WRONG as error:
            raise ImageError(f"{expected}: what the daemon saved is not it: {error}") from error
        pairs = zip(content.layers, content.diff_ids, strict=True)
        layers = tuple(_layer(archive, layer, diff_id, file) for layer, diff_id in pairs)
        yield Outgoing(config=config, layers=layers)


def _config(
    file: Path, expected: Digest, diff_ids: Sequence[Digest], cancelled: threading.Event
) -> bytes:
    """Return the configuration of the only image.

    An image's id is the digest of its configuration, or that of its manifest or index where
    containerd keeps images; then that is there, too.
    """
    with file.open("rb", buffering=0) as opened:
        tar = Tar(plain(opened, cancelled), cancelled)
    with closing(tar):
        (entry,) = json.loads(_whole(tar, "manifest.json"))
        config = _whole(tar, entry["Config"])
        if not _leads(tar, expected, sha256_bytes(config)):
            raise LayoutError("it is another image")
        if document(config)["rootfs"]["diff_ids"] != list(diff_ids):
            raise LayoutError("its configuration has other layers")
        return config


def _leads(tar: Tar, identity: Digest, config: Digest) -> bool:
    """Tell whether an image's id leads to a configuration, over an index and a manifest at most."""
    if identity == config:
        return True
    for entry in _described(tar, identity).get("manifests", ({"digest": identity},)):
        if (_described(tar, entry["digest"]).get("config") or {}).get("digest") == config:
            return True
    return False


def _described(tar: Tar, digest: Any) -> dict[str, Any]:
    """Return a document, checked; empty where it is not there, as those of other platforms."""
    name = f"{BLOBS}/{hex_of(digest)}"
    return document(_whole(tar, name), parse(digest)) if tar.has(name) else {}


def _whole(tar: Tar, name: Any) -> bytes:
    if tar.size(name) > LARGEST_MANIFEST:
        raise LayoutError(f"{name}: more than {LARGEST_MANIFEST} bytes")
    return b"".join(tar.pieces(name))


def _layer(archive: Archive, layer: Descriptor, diff_id: Digest, file: Path) -> Layer:
    write = partial(_write, archive, layer, file.with_name(hex_of(layer.digest)))
    form = next((form for form in ("gzip", "zstd") if layer.media_type.endswith(form)), "")
    if not form:
        return Layer(diff_id=diff_id, size=layer.size, write=write)
    packed = Descriptor(media_type=f"{LAYER}+{form}", digest=layer.digest, size=layer.size)
    return Layer(diff_id=diff_id, size=layer.size, write=write, packed=packed)


def _write(archive: Archive, layer: Descriptor, draft: Path, out: IO[bytes]) -> None:
    try:
        archive.fetch(layer, draft)
        with draft.open("rb") as opened:
            shutil.copyfileobj(opened, out)
    finally:
        draft.unlink(missing_ok=True)
