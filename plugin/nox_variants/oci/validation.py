"""A layout held against itself: every descriptor against the bytes it describes. Trusts nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nox_variants import jsontext
from nox_variants.errors import LayoutError
from nox_variants.oci.digest import hex_of, parse, sha256_file, short
from nox_variants.oci.image import CONFIG, INDEX, LAYER, MANIFEST
from nox_variants.oci.layout import BLOBS

if TYPE_CHECKING:
    from pathlib import Path

    from nox_variants.model import Digest

_LARGEST_JSON = 4 << 20
_MOST = 1000


def validate(folder: Path, *, external: frozenset[Digest] = frozenset()) -> None:
    """Check a layout of images with uncompressed layers, down to the last blob.

    Args:
        folder: The layout, untrusted.
        external: Layers that may be missing; those that are there are checked all the same.

    Raises:
        LayoutError: The first thing that is wrong, with its name.
    """
    try:
        _layout(folder, external)
    except OSError as error:
        raise LayoutError(
            f"{error.filename or folder}: cannot be read: {error.strerror}"
        ) from error


def _layout(folder: Path, external: frozenset[Digest]) -> None:
    path = folder / "oci-layout"
    _require(path, _json(path), "imageLayoutVersion", "1.0.0")
    path = folder / "index.json"
    index = _json(path)
    _require(path, index, "schemaVersion", 2)
    _require(path, index, "mediaType", INDEX)
    for entry in _list(path, index, "manifests"):
        _image(folder, entry, external)


def _image(folder: Path, entry: object, external: frozenset[Digest]) -> None:
    path = _blob(folder, entry, MANIFEST)
    manifest = _json(path)
    _require(path, manifest, "schemaVersion", 2)
    _require(path, manifest, "mediaType", MANIFEST)
    config = _json(_blob(folder, manifest.get("config"), CONFIG))
    layers = _list(path, manifest, "layers")
    for layer in layers:
        if _digest(folder, layer) not in external or _path(folder, layer).exists():
            _blob(folder, layer, LAYER)
    rootfs = config.get("rootfs")
    diff_ids = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
    if diff_ids != [layer["digest"] for layer in layers]:
        raise LayoutError(
            f"{path}: the configuration's diff_ids are not the digests of the manifest's layers"
        )


def _blob(folder: Path, entry: object, media_type: str) -> Path:
    """Return a blob's path after checking its descriptor, its size and its digest."""
    digest, path = _digest(folder, entry), _path(folder, entry)
    if not isinstance(entry, dict) or entry.get("mediaType") != media_type:
        raise LayoutError(f"{folder}: blob {digest} should be of media type {media_type!r}")
    if path.is_symlink() or not path.is_file():
        raise LayoutError(f"{folder}: blob {digest} is missing, or no regular file")
    size = path.stat().st_size
    if type(entry.get("size")) is not int or entry["size"] != size:
        raise LayoutError(
            f"{folder}: blob {digest} has {size} bytes, not {short(entry.get('size'))}"
        )
    if sha256_file(path) != digest:
        raise LayoutError(f"{folder}: the content of blob {digest} is not what its name says")
    return path


def _digest(folder: Path, entry: object) -> Digest:
    if not isinstance(entry, dict):
        raise LayoutError(f"{folder}: not a descriptor: {short(entry)}")
    return parse(entry.get("digest"))


def _path(folder: Path, entry: object) -> Path:
    return folder / BLOBS / hex_of(_digest(folder, entry))


def _require(path: Path, values: dict[str, Any], name: str, value: object) -> None:
    if values.get(name) != value:
        raise LayoutError(f"{path}: {name} is {short(values.get(name))}, not {value!r}")


def _list(path: Path, values: dict[str, Any], name: str) -> list[Any]:
    entries = values.get(name)
    if not isinstance(entries, list) or len(entries) > _MOST:
        raise LayoutError(f"{path}: {name} is no list, or a list of more than {_MOST}")
    return entries


def _json(path: Path) -> dict[str, Any]:
    if path.is_symlink() or not path.is_file():
        raise LayoutError(f"{path}: is missing, or no regular file")
    try:
        with path.open("rb") as file:
            data = file.read(_LARGEST_JSON + 1)
        values = jsontext.parsed(data) if len(data) <= _LARGEST_JSON else None
    except ValueError as error:
        raise LayoutError(f"{path}: is not JSON: {error}") from error
    if not isinstance(values, dict):
        raise LayoutError(f"{path}: is no JSON object, or larger than {_LARGEST_JSON} bytes")
    return values
