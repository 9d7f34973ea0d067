"""Images on disk: OCI image layouts (image-layout.md) and archives that `docker load` takes.

A layout may leave out base layers: "the blobs directory may be missing referenced blobs, in which
case the missing blobs should be fulfilled by an external blob store". Archives are complete.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
import tempfile
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from nox_variants.errors import LayoutError
from nox_variants.oci.digest import canonical_json, hex_of, parse, sha256_bytes, sha256_file
from nox_variants.oci.image import INDEX, MANIFEST, descriptor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from nox_variants.model import Digest

MARKER = b'{"imageLayoutVersion":"1.0.0"}'
REF_NAME = "org.opencontainers.image.ref.name"
CONTAINERD_NAME = "io.containerd.image.name"

_LARGEST_JSON = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerBlob:
    """A layer of an archive: its identity, and who writes its tar."""

    diff_id: Digest
    size: int
    write: Callable[[IO[bytes]], object]


def index(manifest: bytes, tag: str) -> bytes:
    """Return the index of a layout that holds one image.

    Args:
        manifest: The image's manifest.
        tag: ``PROGRAM:TAG``.
    """
    entry = descriptor(MANIFEST, sha256_bytes(manifest), len(manifest))
    names = {REF_NAME: tag.partition(":")[2], CONTAINERD_NAME: f"docker.io/library/{tag}"}
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
    """
    new_index = index(manifest, tag)
    if _holds(folder / "index.json", new_index):
        return
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True, exist_ok=True)
    (folder / "index.json").unlink(missing_ok=True)
    wanted = {hex_of(sha256_bytes(data)): data for data in (config, manifest)}
    for stale in set(os.listdir(blobs)) - {*wanted, *(path.name for path in layers)}:  # noqa: PTH208
        (blobs / stale).unlink()
    for name, data in wanted.items():
        _replace(blobs / name, data)
    for path in layers:
        _link(path, blobs / path.name)
    _replace(folder / "oci-layout", MARKER)
    _replace(folder / "index.json", new_index)


def _holds(file: Path, data: bytes) -> bool:
    try:
        return file.read_bytes() == data
    except OSError:
        return False


def _replace(file: Path, data: bytes) -> None:
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    draft.write_bytes(data)
    draft.replace(file)


def _link(source: Path, target: Path) -> None:
    """Share a blob's bytes where the file system can, copy them where it cannot."""
    with suppress(FileExistsError):
        try:
            os.link(source, target)
        except FileExistsError:
            raise
        except OSError:
            _replace(target, source.read_bytes())


def validate(folder: Path, *, external: frozenset[Digest] = frozenset()) -> None:
    """Check every descriptor of a layout against the bytes it describes.

    Args:
        folder: The layout, untrusted.
        external: Blobs that may be missing.

    Raises:
        LayoutError: The first thing that is wrong, with its name.
    """
    marker = _json(folder / "oci-layout")
    if marker != json.loads(MARKER):
        raise LayoutError(f"{folder / 'oci-layout'}: unknown layout version in {marker!r}")
    for entry in _list(_json(folder / "index.json"), "manifests"):
        manifest = _json(_blob(folder, entry))
        _blob(folder, manifest.get("config"))
        for layer in _list(manifest, "layers"):
            if layer.get("digest") not in external or _exists(folder, layer):
                _blob(folder, layer)


def _exists(folder: Path, entry: dict[str, Any]) -> bool:
    return (folder / "blobs" / "sha256" / hex_of(parse(str(entry["digest"])))).exists()


def _list(values: dict[str, Any], name: str) -> list[dict[str, Any]]:
    entries = values.get(name)
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise LayoutError(f"{name}: not a list of descriptors")
    return entries


def _blob(folder: Path, entry: object) -> Path:
    """Return a blob's path after checking its size and digest."""
    if not isinstance(entry, dict) or not isinstance(entry.get("digest"), str):
        raise LayoutError(f"{folder}: {entry!r} is no descriptor")
    digest = parse(entry["digest"])
    path = folder / "blobs" / "sha256" / hex_of(digest)
    if path.is_symlink() or not path.is_file():
        raise LayoutError(f"{folder}: blob {digest} is missing or no regular file")
    if path.stat().st_size != entry.get("size"):
        raise LayoutError(
            f"{folder}: blob {digest} has {path.stat().st_size} bytes, not {entry.get('size')!r}"
        )
    if sha256_file(path) != digest:
        raise LayoutError(f"{folder}: the content of blob {digest} is not what its name says")
    return path


def _json(path: Path) -> dict[str, Any]:
    try:
        if path.is_symlink() or path.stat().st_size > _LARGEST_JSON:
            raise LayoutError(f"{path}: a link, or larger than {_LARGEST_JSON} bytes")
        values = json.loads(path.read_bytes())
    except OSError as error:
        raise LayoutError(f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise LayoutError(f"{path}: is not JSON: {error}") from error
    if not isinstance(values, dict):
        raise LayoutError(f"{path}: is not a JSON object")
    return values


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
        docker: Whether a ``manifest.json`` is added: what `docker save` writes and old and new
            `docker load`, podman and skopeo take.

    Raises:
        LayoutError: A layer's tar is not what its identity says, or the disk did not take it.
    """
    with (
        _whole_file(file) as out,
        tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        _add(tar, "oci-layout", MARKER)
        for data in (config, manifest):
            _add(tar, f"blobs/sha256/{hex_of(sha256_bytes(data))}", data)
        written = set()
        for layer in layers:
            if layer.diff_id not in written:
                written.add(layer.diff_id)
                _add_layer(tar, out, layer)
        _add(tar, "index.json", index(manifest, tag))
        if docker:
            _add(tar, "manifest.json", _docker_manifest(tag, config, layers))


def _docker_manifest(tag: str, config: bytes, layers: Sequence[LayerBlob]) -> bytes:
    return canonical_json(
        [
            {
                "Config": f"blobs/sha256/{hex_of(sha256_bytes(config))}",
                "RepoTags": [tag],
                "Layers": [f"blobs/sha256/{hex_of(layer.diff_id)}" for layer in layers],
            }
        ]
    )


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


def _add_layer(tar: tarfile.TarFile, out: IO[bytes], layer: LayerBlob) -> None:
    """Stream a layer's tar into the archive and check that it is the one it should be."""
    info = tarfile.TarInfo(f"blobs/sha256/{hex_of(layer.diff_id)}")
    info.size = layer.size
    header = info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
    out.write(header)
    sink = _Checked(out)
    layer.write(sink)
    out.write(bytes(-sink.size % tarfile.BLOCKSIZE))
    tar.offset += len(header) + sink.size + (-sink.size % tarfile.BLOCKSIZE)
    if (sink.size, sink.digest()) != (layer.size, layer.diff_id):
        raise LayoutError(
            f"layer {layer.diff_id} came out as {sink.digest()}",
            hint="The image in the store was changed: nox-variants clean, or remove it.",
        )


class _Checked(io.RawIOBase):
    """A stream that counts and hashes what passes."""

    def __init__(self, out: IO[bytes]) -> None:
        super().__init__()
        self._out = out
        self._hash = hashlib.sha256()
        self.size = 0

    def write(self, data: Any) -> int:
        """Pass bytes on."""
        self._hash.update(data)
        self.size += len(data)
        return self._out.write(data)

    def digest(self) -> str:
        """Return the digest of what passed."""
        return f"sha256:{self._hash.hexdigest()}"


@contextmanager
def _whole_file(file: Path) -> Iterator[IO[bytes]]:
    """Open a file that appears when it is complete, and not at all otherwise."""
    try:
        with tempfile.NamedTemporaryFile(
            dir=file.parent, prefix=f".{file.name}.", delete=False
        ) as draft:
            try:
                yield draft
                draft.flush()
                os.fchmod(draft.fileno(), 0o644)
                Path(draft.name).replace(file)
            except BaseException:
                Path(draft.name).unlink(missing_ok=True)
                raise
    except OSError as error:
        raise LayoutError(
            f"{file}: {error.strerror}", hint="Does the folder exist, is there room?"
        ) from error
