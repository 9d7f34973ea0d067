"""Images on disk: OCI image layouts (image-layout.md) and archives that `docker load` takes.

A layout may leave out base layers: "the blobs directory may be missing referenced blobs, in which
case the missing blobs should be fulfilled by an external blob store". What is exported is complete.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, cast

from nox_variants.errors import LayoutError
from nox_variants.oci.digest import canonical_json, hex_of, sha256_bytes
from nox_variants.oci.image import INDEX, MANIFEST, descriptor
from nox_variants.oci.layer import BLOCK, header, plain_file
from nox_variants.wholefile import whole_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from nox_variants.model import Digest

MARKER = b'{"imageLayoutVersion":"1.0.0"}'
"""The content of ``oci-layout``."""

BLOBS = "blobs/sha256"

REF_NAME = "org.opencontainers.image.ref.name"
CONTAINERD_NAME = "io.containerd.image.name"

_PROCESSES = Path("/proc")
"""Where there is a folder for every process; on Linux."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerBlob:
    """A layer on its way out: its identity, and who writes its tar."""

    diff_id: Digest
    size: int
    write: Callable[[IO[bytes]], object]


def index(manifest: bytes, tag: str) -> bytes:
    """Return the index of a layout that holds one image.

    Args:
        manifest: The image's manifest.
        tag: ``NAME:TAG``; a name without a slash is one of ``library`` (distribution/reference).
    """
    entry = descriptor(MANIFEST, sha256_bytes(manifest), len(manifest))
    name = tag if "/" in tag else f"library/{tag}"
    names = {REF_NAME: tag.partition(":")[2], CONTAINERD_NAME: f"docker.io/{name}"}
    return canonical_json(
        {"schemaVersion": 2, "mediaType": INDEX, "manifests": [{**entry, "annotations": names}]}
    )


def write_layout(
    folder: Path, *, tag: str, config: bytes, manifest: bytes, layers: Sequence[Path]
) -> None:
    """Write a layout of one image, whole files only; nothing is written where nothing changed.

    Args:
        folder: The layout.
        tag: ``PROGRAM:TAG``.
        config: The image configuration.
        manifest: The manifest.
        layers: Files that hold layers' tars, named by their hex digests; others stay external.

    Raises:
        LayoutError: The disk did not take it.
    """
    blobs = folder / BLOBS
    shared = {blobs / path.name: path for path in layers}
    files = {
        **{blobs / hex_of(sha256_bytes(data)): data for data in (config, manifest)},
        folder / "oci-layout": MARKER,
        folder / "index.json": index(manifest, tag),
    }
    if all(map(Path.is_file, shared)) and all(_holds(*each) for each in files.items()):
        return
    with _explained(folder):
        if blobs.is_dir():
            # Without an index there is no image: no moment shows the old one with new blobs.
            (folder / "index.json").unlink(missing_ok=True)
            for stale in set(_finished(blobs)).difference(files, shared):
                stale.unlink(missing_ok=True)
            for draft in (*_abandoned(folder), *_abandoned(blobs)):
                draft.unlink(missing_ok=True)
        else:
            blobs.mkdir(parents=True, exist_ok=True)
        for target, source in shared.items():
            _share(source, target)
        for file, data in files.items():
            if not _holds(file, data):
                _replace(file, data)


def write_archive(
    file: Path,
    *,
    tag: str,
    config: bytes,
    manifest: bytes,
    layers: Sequence[LayerBlob],
    docker: bool,
) -> None:
    """Write a complete image as one tar: the whole file or nothing.

    Args:
        file: The archive.
        tag: ``PROGRAM:TAG``.
        config: The image configuration.
        manifest: The manifest.
        layers: Base first.
        docker: Whether a ``manifest.json`` is added: what `docker save` writes, and old and new
            `docker load`, podman and skopeo take.

    Raises:
        LayoutError: A layer's tar is not what its identity says, or the disk did not take it.
    """
    with _explained(file), whole_file(file) as out:
        for name in ("blobs/", f"{BLOBS}/"):
            out.write(header(name, 0))
        for data in (config, manifest):
            out.write(plain_file(f"{BLOBS}/{hex_of(sha256_bytes(data))}", data))
        for layer in _distinct(layers):
            out.write(header(f"{BLOBS}/{hex_of(layer.diff_id)}", layer.size))
            write_layer(out, layer)
            out.write(bytes(-layer.size % BLOCK))
        out.write(plain_file("index.json", index(manifest, tag)))
        if docker:
            out.write(plain_file("manifest.json", _docker_manifest(tag, config, layers)))
        out.write(plain_file("oci-layout", MARKER))
        out.write(bytes(2 * BLOCK))


def _docker_manifest(tag: str, config: bytes, layers: Sequence[LayerBlob]) -> bytes:
    """Return what `docker load` looks for first (Docker image-spec v1.2, "Combined Image JSON")."""
    return canonical_json(
        [
            {
                "Config": f"{BLOBS}/{hex_of(sha256_bytes(config))}",
                "RepoTags": [tag],
                "Layers": [f"{BLOBS}/{hex_of(layer.diff_id)}" for layer in layers],
            }
        ]
    )


def _distinct(layers: Sequence[LayerBlob]) -> list[LayerBlob]:
    return list({layer.diff_id: layer for layer in layers}.values())


def write_layer(out: IO[bytes], layer: LayerBlob) -> None:
    """Stream a layer's tar and check that it is the one it should be.

    Raises:
        LayoutError: It is not.
    """
    sink = _Checked(out)
    layer.write(cast("IO[bytes]", sink))
    if (sink.size, sink.digest()) != (layer.size, layer.diff_id):
        raise LayoutError(
            f"layer {layer.diff_id} came out as {sink.digest()} with {sink.size} bytes",
            hint="What it is made of was changed since: remove it, and it will be made anew.",
        )


class _Checked:
    """A stream that counts and hashes what is written through it."""

    def __init__(self, out: IO[bytes]) -> None:
        self._out = out
        self._hash = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes | memoryview, /) -> int:
        """Pass bytes on."""
        self._hash.update(data)
        self.size += len(data)
        return self._out.write(data)

    def digest(self) -> str:
        """Return the digest of what passed."""
        return f"sha256:{self._hash.hexdigest()}"


def _holds(file: Path, data: bytes) -> bool:
    try:
        return file.read_bytes() == data
    except OSError:
        return False


def _finished(folder: Path) -> list[Path]:
    """Return a folder's files without drafts, which another process may be writing right now."""
    return [path for path in folder.iterdir() if not path.name.startswith(".")]


def _abandoned(folder: Path) -> list[Path]:
    """Return a folder's drafts whose processes were killed, as far as this machine tells."""
    if not _PROCESSES.joinpath("self").exists():
        return []
    drafts = [path for path in folder.glob(".*") if path.suffix[1:].isdecimal()]
    return [path for path in drafts if not _PROCESSES.joinpath(path.suffix[1:]).exists()]


def _replace(file: Path, data: bytes) -> None:
    with _draft(file) as draft:
        draft.write_bytes(data)


def _share(source: Path, target: Path) -> None:
    """Share a blob's bytes where the file system can, copy them where it cannot."""
    try:
        target.hardlink_to(source)
    except FileExistsError:
        return
    except OSError:  # another file system, or one without links
        with _draft(target) as draft:
            shutil.copyfile(source, draft)


@contextmanager
def _draft(file: Path) -> Iterator[Path]:
    """Yield a path beside a file, which replaces it in the end, or is gone when that fails."""
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        yield draft
        draft.replace(file)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise LayoutError(
            f"{path}: cannot be written: {error.strerror or error}",
            hint="Does the folder above it exist, is it writable for you, is there room?",
        ) from error
