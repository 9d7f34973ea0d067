"""A whole image into a registry: its layers, its configuration, and its manifest at the end."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from nox_variants.images.content import Descriptor
from nox_variants.oci import image as oci
from nox_variants.oci.digest import sha256_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nox_variants.images.packing import Outgoing, Packer
    from nox_variants.images.pushing import Pusher
    from nox_variants.images.reference import Reference
    from nox_variants.model import Digest, Pairs


def shown(target: Reference) -> str:
    """Return a reference in full: as it is printed, and recorded."""
    digest = f"@{target.digest}" if target.digest else ""
    return f"{target.registry}/{target.repository}:{target.tag}{digest}"


def ship(
    pusher: Pusher, packer: Packer, image: Outgoing, target: Reference, annotations: Pairs
) -> Digest:
    """Push an image, unless its tag leads to this very one.

    Args:
        pusher: Asks the registry.
        packer: Compresses layers.
        image: The image.
        target: Its name there.
        annotations: What its manifest says about it.

    Returns:
        The digest of its manifest.

    Raises:
        VariantsError: It cannot be read, or the registry did not take it.
    """
    where, repository = shown(target), target.repository
    known = [each for layer in image.layers if (each := packer.known(layer))]
    if len(known) == len(image.layers):
        digest = sha256_bytes(_manifest(image.config, known, annotations))
        if pusher.tells(where, repository, target.tag, digest):
            return digest
    pushed = []
    for layer in image.layers:
        with packer.packed(where, layer) as packed:
            pusher.blob(where, repository, packed.descriptor, packed.open)
            pushed.append(packed.descriptor)
    config = Descriptor(
        media_type=oci.CONFIG, digest=sha256_bytes(image.config), size=len(image.config)
    )
    pusher.blob(where, repository, config, lambda: io.BytesIO(image.config))
    manifest = _manifest(image.config, pushed, annotations)
    return pusher.manifest(where, repository, target.tag, manifest)


def _manifest(config: bytes, layers: Sequence[Descriptor], annotations: Pairs) -> bytes:
    described = [(each.media_type, each.digest, each.size) for each in layers]
    return oci.annotated(config, described, annotations)
