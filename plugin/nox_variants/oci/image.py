"""Image configurations and manifests as bytes (OCI image-spec, config.md and manifest.md)."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

from nox_variants.oci.digest import canonical_json, sha256_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from nox_variants.model import Digest, Pairs

CONFIG = "application/vnd.oci.image.config.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"


def config(
    layers: Sequence[Digest],
    *,
    cmd: Sequence[str],
    env: Pairs,
    workdir: str,
    created: int,
    platform: str,
    labels: Pairs = (),
    entrypoint: Sequence[str] = (),
    user: str = "",
) -> bytes:
    """Return an image configuration: equal arguments, equal bytes.

    Args:
        layers: Diff ids, base first.
        cmd: The command, exec form.
        env: The environment.
        workdir: The working directory.
        created: Seconds since 1970.
        platform: ``linux/amd64``, or with a variant, ``linux/arm64/v8``.
        labels: Labels; none leave no trace.
        entrypoint: What gets the command for arguments; none leaves no trace.
        user: Who runs it; empty leaves no trace, which is root.
    """
    system, architecture, *variant = platform.split("/")
    moment = dt.datetime.fromtimestamp(created, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    settings: dict[str, object] = {
        **({"User": user} if user else {}),
        **({"Entrypoint": list(entrypoint)} if entrypoint else {}),
        "Cmd": list(cmd),
        "Env": [f"{name}={value}" for name, value in env],
        "WorkingDir": workdir,
    }
    if labels:
        settings["Labels"] = dict(labels)
    values: dict[str, object] = {
        "architecture": architecture,
        "os": system,
        "created": moment,
        "config": settings,
        "rootfs": {"type": "layers", "diff_ids": list(layers)},
        "history": [{"created": moment, "created_by": "nox-variants"} for _ in layers],
    }
    if variant:
        values["variant"] = variant[0]
    return canonical_json(values)


def manifest(config_bytes: bytes, layers: Sequence[tuple[Digest, int]]) -> bytes:
    """Return a manifest over uncompressed layers.

    Args:
        config_bytes: The image configuration.
        layers: Digest and size of each layer's tar, base first.
    """
    return annotated(config_bytes, [(LAYER, digest, size) for digest, size in layers])


def annotated(
    config_bytes: bytes, layers: Iterable[tuple[str, Digest, int]], annotations: Pairs = ()
) -> bytes:
    """Return a manifest over layers as they travel, with what is said about the image.

    Args:
        config_bytes: The image configuration.
        layers: Media type, digest and size of each layer, base first.
        annotations: Annotations (OCI image-spec, annotations.md); none leave no trace.
    """
    values: dict[str, object] = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": descriptor(CONFIG, sha256_bytes(config_bytes), len(config_bytes)),
        "layers": [descriptor(*layer) for layer in layers],
    }
    if annotations:
        values["annotations"] = dict(annotations)
    return canonical_json(values)


def descriptor(media_type: str, digest: Digest, size: int) -> dict[str, object]:
    """Return a descriptor (OCI image-spec, descriptor.md)."""
    return {"mediaType": media_type, "digest": digest, "size": size}
