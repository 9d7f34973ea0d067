"""Images as ``variants.lock`` has them: which source may give one, and whether it gave that one.

Knows no store and no engine. What the lock says is untrusted: it is checked before it is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nox_variants.errors import ImageError, LayoutError
from nox_variants.images.reference import parse_reference
from nox_variants.model import Digest, SourceKind
from nox_variants.oci import digest as digests
from nox_variants.oci.digest import short

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from nox_variants.baseline import ImageKey, Pin
    from nox_variants.model import Image, ImageSource
    from nox_variants.results import PreparedImage

    Locked = Mapping[ImageKey, Pin]
    """What the lock says of images. A registry's `reference` is what a record has for `pinned`."""

NOT_LOCKED = "not in variants.lock"

_SHOWN = 19
_TAKE_NEW = "nox -s matrix -- --update-baseline takes the new one."
_TAKE_FIRST = "Run nox -s matrix -- --update-baseline without --locked first."


def is_locked(image: Image, source: ImageSource, locked: Locked | None) -> bool:
    """Tell whether a source may give an image: any may when nothing is locked."""
    return (
        locked is None or source.kind is SourceKind.SCRATCH or (image.name, source.kind) in locked
    )


def check_any(image: Image, admitted: Iterable[ImageSource], locked: Locked | None) -> None:
    """Refuse an image that the lock does not have of any source that may be used.

    Raises:
        ImageError: It is not there.
    """
    admitted = tuple(admitted)
    if admitted and not any(is_locked(image, source, locked) for source in admitted):
        kinds = ", ".join(source.kind for source in admitted)
        raise ImageError(f"image {image.name} ({kinds}): {NOT_LOCKED}", hint=_TAKE_FIRST)


def pin_of(image: Image, source: ImageSource, locked: Locked | None) -> Pin | None:
    """Return what the lock says of an image; None when nothing is locked, and for scratch.

    Raises:
        ImageError: It says nothing that could be asked for, or was made for another reference.
    """
    if locked is None or source.kind is SourceKind.SCRATCH:
        return None
    pin = locked[image.name, source.kind]
    where = f"image {image.name} ({source.kind}): variants.lock"
    name, at, digest = pin.reference.partition("@")
    if source.kind is SourceKind.REGISTRY and not at:
        raise ImageError(
            f"{where} has no digest that a registry could be asked for",
            hint="Only a daemon had the image: push it, and --update-baseline.",
        )
    try:
        digests.parse(digest if source.kind is SourceKind.REGISTRY else pin.digest)
    except LayoutError as error:
        raise ImageError(f"{where}: {error.message}", hint=error.hint) from error
    written = _written(source)
    if pin.reference and written not in {name, pin.reference}:
        made_for = short(pin.reference)
        raise ImageError(f"{where} was made for {made_for}, not for {written!r}", hint=_TAKE_NEW)
    return pin


def _written(source: ImageSource) -> str:
    """Return what the file says of a source, as the record has it."""
    return " ".join(source.packages) if source.kind is SourceKind.APT else source.reference


def pinned(reference: str, digest: Digest) -> str:
    """Return the reference that names exactly what a registry gave; it can be pulled again."""
    return reference if "@" in reference else f"{reference}@{digest}"


def by_digest(reference: str) -> str:
    """Return a reference without the tag beside its digest: not every tool takes both."""
    name, at, digest = reference.partition("@")
    path, colon, tag = name.rpartition(":")
    return f"{path if colon and '/' not in tag else name}{at}{digest}"


def known_digests(reference: str, names: Iterable[str]) -> tuple[Digest, ...]:
    """Return the digests by which the registry of a reference knows an image.

    Args:
        reference: The image in the file.
        names: All ``NAME@DIGEST`` of it that a daemon knows, of any registry.
    """
    own = _repository(reference)
    return tuple(
        Digest(name.partition("@")[2])
        for name in names
        if own and "@" in name and own == _repository(name)
    )


def _repository(reference: str) -> tuple[str, str] | None:
    """Return where a reference leads; None for what is none, as daemons have it: ``<none>``."""
    try:
        named = parse_reference(reference)
    except ImageError:
        return None
    return named.registry, named.repository


def is_same(image: PreparedImage, pin: Pin) -> bool:
    """Tell whether an image is the one that was pinned.

    A registry's is told by what was asked for: its digest was compared on its way, and the digest
    of its index names it as well as that of its manifest.
    """
    if image.kind is SourceKind.REGISTRY:
        return image.pinned == pin.reference
    return image.digest == pin.digest


def check_same(image: PreparedImage, source: ImageSource, pin: Pin) -> None:
    """Refuse an image that is not the one that was pinned.

    Raises:
        ImageError: It is not.
    """
    if is_same(image, pin):
        return
    what, verb = ("apt packages", "give") if source.kind is SourceKind.APT else ("archive", "gives")
    if source.setup:
        what, verb = f"{what} and setup", "give"
    raise ImageError(
        f"image {image.name}: variants.lock has {pin.digest[:_SHOWN]}..., its {what} {verb}"
        f" {image.digest[:_SHOWN]}... now",
        hint=_TAKE_NEW,
    )
