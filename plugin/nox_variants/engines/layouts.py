"""A variant's image on its way out of its layout and the store: that takes no sandbox."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from functools import partial
from typing import IO, TYPE_CHECKING, Any

from nox_variants import jsontext
from nox_variants.errors import ImageUnavailable, LayoutError, StoreError
from nox_variants.images.content import LARGEST_MANIFEST, Descriptor
from nox_variants.images.packing import Layer, Outgoing
from nox_variants.images.tarfiles import compression
from nox_variants.model import SourceKind
from nox_variants.oci.digest import hex_of, parse
from nox_variants.oci.image import LAYER
from nox_variants.oci.layer import write_tree
from nox_variants.oci.layout import BLOBS
from nox_variants.oci.validation import validate

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from nox_variants.model import Digest
    from nox_variants.store import Store

_AGAIN = "Run the matrix again: nox -s matrix"
_BLOB = "blob"


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """The run image that a layout leaves out: its source, and the digest of its content."""

    kind: SourceKind
    digest: Digest


def outgoing(store: Store, folder: Path, expected: Digest, base: Base) -> Outgoing:
    """Return the image of a layout, checked, with the layers of its base.

    Args:
        store: Where its base is.
        folder: The layout.
        expected: The digest of its configuration.
        base: Its base.

    Raises:
        ImageUnavailable: It is not here any more, or another one is.
        LayoutError: What is here is damaged.
    """
    config, layers = _read(folder, expected)
    below = dict(_below(store, base, dict(layers)))
    validate(folder, external=frozenset(below))
    return Outgoing(
        config=config,
        layers=tuple(below.get(each) or _own(folder, each, size) for each, size in layers),
    )


def _read(folder: Path, expected: Digest) -> tuple[bytes, list[tuple[Digest, int]]]:
    """Return the configuration of a layout's one image, and diff ids and sizes of its layers."""
    try:
        (entry,) = _values(folder / "index.json")["manifests"]
        manifest = _values(folder / BLOBS / hex_of(entry["digest"]))
        layers = [(parse(each["digest"]), int(each["size"])) for each in manifest["layers"]]
        found = parse(manifest["config"]["digest"])
        config = _document(folder / BLOBS / hex_of(found))
    except FileNotFoundError:
        raise ImageUnavailable("its image is gone", hint=_AGAIN) from None
    except (OSError, LayoutError, ValueError, LookupError, TypeError) as error:
        raise LayoutError(f"{folder}: is no layout of one image", hint=_AGAIN) from error
    if found != expected:
        raise ImageUnavailable(
            f"its image is another one now: {found[:19]}..., not {expected[:19]}...", hint=_AGAIN
        )
    return config, layers


def _values(file: Path) -> dict[str, Any]:
    values: dict[str, Any] = jsontext.parsed(_document(file))
    return values


def _document(file: Path) -> bytes:
    with file.open("rb") as opened:
        return opened.read(LARGEST_MANIFEST)


def _below(store: Store, base: Base, sizes: dict[Digest, int]) -> Iterator[tuple[Digest, Layer]]:
    """Yield the layers of a base, by diff id."""
    if base.kind is SourceKind.SCRATCH:
        return
    folder = store.find("images", hex_of(base.digest))
    if folder is None:
        raise _gone(base)
    if base.kind is SourceKind.APT:
        write = partial(write_tree, folder / "root", mtime=0)
        size = sizes.get(base.digest, 0)
        yield base.digest, Layer(diff_id=base.digest, size=size, write=write)
        return
    try:
        values = store.read_json(folder / "layers.json")
        layers = zip(values["layers"], values["sizes"], values["blobs"], strict=True)
        found = [(parse(diff_id), int(size), parse(blob)) for diff_id, size, blob in layers]
    except (StoreError, LayoutError, LookupError, TypeError, ValueError):
        raise _gone(base) from None
    for diff_id, size, blob in found:
        if store.find("blobs", hex_of(blob)) is None:
            raise _gone(base)
        file = store.entry("blobs", hex_of(blob)) / _BLOB
        yield diff_id, _layer(file, diff_id, size, blob)


def _gone(base: Base) -> ImageUnavailable:
    return ImageUnavailable(f"its run image {base.digest[:19]}... is gone", hint=_AGAIN)


def _layer(file: Path, diff_id: Digest, size: int, blob: Digest) -> Layer:
    """Return a layer that came from elsewhere: what came compressed travels as it came."""
    if blob == diff_id:
        return Layer(diff_id=diff_id, size=size, write=partial(_copy, file))
    try:
        with file.open("rb") as opened:
            form = compression(opened.read(8))
        length = file.stat().st_size
    except OSError as error:
        raise LayoutError(f"{file}: cannot be read: {error.strerror}", hint=_AGAIN) from error
    packed = Descriptor(media_type=f"{LAYER}+{form}", digest=blob, size=length)
    return Layer(diff_id=diff_id, size=length, write=partial(_copy, file), packed=packed)


def _own(folder: Path, diff_id: Digest, size: int) -> Layer:
    file = folder / BLOBS / hex_of(diff_id)
    return Layer(diff_id=diff_id, size=size, write=partial(_copy, file))


def _copy(file: Path, out: IO[bytes]) -> None:
    try:
        with file.open("rb") as opened:
            shutil.copyfileobj(opened, out)
    except OSError as error:
        raise LayoutError(f"{file}: cannot be read: {error.strerror}", hint=_AGAIN) from error
