"""What a registry or an archive says an image consists of: indexes, manifests, configurations.

All of it is untrusted: sizes are bounded, types checked, digests compared (OCI image-spec,
manifest.md, image-index.md and config.md; Docker's image manifest, version 2, schema 2).
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, Protocol

from nox_variants import jsontext
from nox_variants.errors import LayoutError
from nox_variants.oci.digest import parse, sha256_bytes, short

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from nox_variants.model import Digest, Pairs

MANIFESTS = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
INDEXES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)

LARGEST_MANIFEST = 4 << 20
"""Bytes of a manifest, an index or a configuration (distribution-spec, "Pushing Manifests")."""

LARGEST_BLOB = 64 << 30
"""Bytes of a layer as it travels."""

MOST_LAYERS = 500
MOST_ENTRIES = 1000

_LAYER = re.compile(
    r"application/vnd\.(oci\.image\.layer\.(nondistributable\.)?v1\.tar([+](gzip|zstd))?"
    r"|docker\.image\.rootfs\.(foreign\.)?diff\.tar([.](gzip|zstd))?)"
)
_PLATFORM = re.compile(r"[\w./-]{1,60}", re.ASCII)
_SHOWN = 20
_LONGEST_USER = 100
_VARIABLE = re.compile(r"[^=\0]+(=[^\0]*)?", re.DOTALL)
_VARIANTS = {"arm64": "v8", "arm": "v7"}
"""The variant that an architecture without one means (OCI image-spec, image-index.md)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Descriptor:
    """Content by its digest (OCI image-spec, descriptor.md).

    Attributes:
        media_type: What it is.
        digest: Its digest.
        size: Its bytes.
    """

    media_type: str
    digest: Digest
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageContent:
    """An image of one platform.

    Attributes:
        digest: Digest of its manifest; of its configuration where an archive has no manifest.
        layers: Its layers as they travel, base first.
        diff_ids: Digests of its layers' uncompressed tars, base first.
        env: Environment of its configuration.
        user: Who runs what it starts; empty for root.
    """

    digest: Digest
    layers: tuple[Descriptor, ...]
    diff_ids: tuple[Digest, ...]
    env: Pairs
    user: str = ""


class Blobs(Protocol):
    """Where layers come from."""

    def fetch(self, layer: Descriptor, file: Path) -> None:
        """Write a layer into a new file, verified.

        Raises:
            ImageError: It cannot be had, or is not what its digest says.
            OSError: The file cannot be written.
        """


@contextmanager
def new_file(file: Path) -> Iterator[IO[bytes]]:
    """Open a file that was not there, and is not there when the block fails."""
    with file.open("xb") as out:
        try:
            yield out
            out.flush()
        except BaseException:
            file.unlink(missing_ok=True)
            raise


def is_index(values: Mapping[str, Any], media_type: str = "") -> bool:
    """Tell an index from a manifest, by its own word, else by the transport's, else by its keys."""
    named = values.get("mediaType") or media_type
    if named in INDEXES + MANIFESTS:
        return named in INDEXES
    return "manifests" in values and "layers" not in values


def choose(index: Mapping[str, Any], platform: str) -> Descriptor:
    """Return the manifest of a platform.

    Args:
        index: The index.
        platform: ``linux/amd64``; a variant may follow.

    Raises:
        LayoutError: It has none; the message names those that it has.
    """
    entries = _list(index, "manifests", MOST_ENTRIES)
    described = [(_platform(each), each) for each in entries]
    wanted = _normal(platform)
    for found, entry in described:
        if found == wanted:
            return descriptor(entry)
    if len(described) == 1 and not described[0][0]:
        return descriptor(described[0][1])
    known = sorted({found for found, _ in described if found and "unknown" not in found})
    raise LayoutError(f"is not made for {platform}: only for {_shown(known)}")


def descriptor(value: object) -> Descriptor:
    """Return a descriptor that came from outside.

    Raises:
        LayoutError: It is none.
    """
    if not isinstance(value, dict):
        raise LayoutError(f"descriptor: not an object: {short(value)}")
    size = value.get("size")
    if isinstance(size, bool) or not isinstance(size, int) or not 0 <= size <= LARGEST_BLOB:
        raise LayoutError(f"descriptor: size: not a size: {short(size)}")
    media_type = value.get("mediaType")
    return Descriptor(
        media_type=media_type if isinstance(media_type, str) else "",
        digest=parse(value.get("digest")),
        size=size,
    )


def parts(manifest: Mapping[str, Any]) -> tuple[Descriptor, tuple[Descriptor, ...]]:
    """Return configuration and layers of a manifest.

    Raises:
        LayoutError: It is no manifest of an image, or not of a kind that is read here.
    """
    if manifest.get("schemaVersion") != 2:  # noqa: PLR2004  # of both specifications
        raise LayoutError(
            f"manifest: schemaVersion: {short(manifest.get('schemaVersion'))}, not 2",
            hint="Schema 1 is not read since 2024: push the image again with a newer tool.",
        )
    if "manifests" in manifest:  # a document that means two things (CVE-2021-41190)
        raise LayoutError("manifest: has manifests beside its layers")
    layers = tuple(descriptor(each) for each in _list(manifest, "layers", MOST_LAYERS))
    for layer in layers:
        if not _LAYER.fullmatch(layer.media_type):
            raise LayoutError(f"layer {layer.digest}: media type {short(layer.media_type)}")
    return descriptor(manifest.get("config")), layers


def image(
    digest: Digest, layers: Iterable[Descriptor], config: Mapping[str, Any], platform: str
) -> ImageContent:
    """Return an image whose configuration fits its layers and the platform.

    Raises:
        LayoutError: It does not.
    """
    layers = tuple(layers)
    rootfs = config.get("rootfs")
    diff_ids = tuple(
        parse(each)
        for each in _list(rootfs if isinstance(rootfs, dict) else {}, "diff_ids", MOST_LAYERS)
    )
    if len(diff_ids) != len(layers):
        raise LayoutError(
            f"configuration: {len(diff_ids)} diff_ids for {len(layers)} layers of the manifest"
        )
    made_for = _platform({"platform": config})
    if made_for and made_for != _normal(platform):
        raise LayoutError(f"is not made for {platform}: only for {_shown([made_for])}")
    settings = config.get("config")
    settings = settings if isinstance(settings, dict) else {}
    return ImageContent(
        digest=digest,
        layers=layers,
        diff_ids=diff_ids,
        env=_env(settings.get("Env")),
        user=_user(settings.get("User")),
    )


def _user(value: object) -> str:
    return value if isinstance(value, str) and len(value) <= _LONGEST_USER else ""


def document(data: bytes, digest: Digest | None = None, size: int | None = None) -> dict[str, Any]:
    """Return a JSON document, which has to be what its descriptor says.

    Raises:
        LayoutError: It is not, or no object at all.
    """
    if digest is not None and sha256_bytes(data) != digest:
        raise LayoutError(f"{digest}: its content has the digest {sha256_bytes(data)}")
    if size is not None and len(data) != size:
        raise LayoutError(f"{digest}: has {len(data)} bytes, not {size}")
    try:
        values = jsontext.parsed(data)
    except ValueError as error:
        raise LayoutError(f"{digest or 'document'}: is no JSON: {error}") from error
    if not isinstance(values, dict):
        raise LayoutError(f"{digest or 'document'}: is no JSON object")
    return values


def _platform(entry: Mapping[str, Any]) -> str:
    """Return an entry's platform; empty when it has none."""
    value = entry.get("platform")
    if not isinstance(value, dict):
        return ""
    words = [value.get(key) for key in ("os", "architecture", "variant")]
    return _normal("/".join(word for word in words if isinstance(word, str) and word))


def _shown(platforms: Iterable[str]) -> str:
    """Return platforms for a message: they come from outside."""
    names = [name if _PLATFORM.fullmatch(name) else short(name) for name in platforms]
    more = f", and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{', '.join(names[:_SHOWN])}{more}" if names else "nothing"


def _normal(platform: str) -> str:
    """Return a platform with the variant that it means."""
    words = platform.split("/")
    if len(words) == 2 and words[1] in _VARIANTS:  # noqa: PLR2004  # system and architecture
        words.append(_VARIANTS[words[1]])
    return "/".join(words)


def _list(values: Mapping[str, Any], name: str, most: int) -> list[Any]:
    value = values.get(name)
    if not isinstance(value, list):
        raise LayoutError(f"{name}: not a list: {short(value)}")
    if len(value) > most:
        raise LayoutError(f"{name}: {len(value)} entries, more than {most}")
    if name == "manifests" and not all(isinstance(each, dict) for each in value):
        raise LayoutError(f"{name}: not a list of objects")
    return value


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _env(value: object) -> Pairs:
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise LayoutError(f"configuration: Env: not a list of texts: {short(value)}")
    for each in value:
        if not _VARIABLE.fullmatch(each) or not _is_utf8(each):
            raise LayoutError(f"configuration: Env: no NAME=VALUE: {short(each)}")
    pairs = (each.partition("=") for each in value)
    return tuple((name, text) for name, _, text in pairs)
