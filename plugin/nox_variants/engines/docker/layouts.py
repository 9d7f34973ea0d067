"""Images as OCI layouts: how those that only the store or the daemon has get to other builders."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nox_variants.engines.docker.connection import DaemonError, explained
from nox_variants.engines.docker.labels import LABEL
from nox_variants.errors import ImageError
from nox_variants.oci import image as oci
from nox_variants.oci import layout
from nox_variants.oci.digest import canonical_json, hex_of, sha256_bytes

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from docker.models.images import Image as DockerImage

    from nox_variants.model import Digest
    from nox_variants.oci.layout import LayerBlob
    from nox_variants.results import PreparedImage
    from nox_variants.store import Store

_SEPARATORS = ":@"
"""What parts the path of a layout from what is meant in it (docker buildx build)."""


def configuration(image: PreparedImage, host: str) -> bytes:
    """Return the configuration of an image of the store."""
    return oci.config(
        image.layers,
        cmd=(),
        env=image.env,
        workdir="/",
        created=0,
        platform=host,
        user=image.user,
        labels=(
            (f"{LABEL}{'stand-in' if image.stand_in else 'image'}", image.name),
            (f"{LABEL}digest", image.digest),
        ),
    )


def sizes(image: PreparedImage) -> tuple[tuple[Digest, int], ...]:
    """Return digest and size of each layer of an image of the store, base first."""
    return tuple(zip(image.layers, image.layer_sizes, strict=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class Layouts:
    """The layouts of the store, each written once.

    Attributes:
        store: Where they are.
        cancelled: Ends everything.
    """

    store: Store
    cancelled: threading.Event

    def of_store(
        self, image: PreparedImage, host: str, layers: Callable[[], Sequence[LayerBlob]]
    ) -> str:
        """Return where an image of the store is, as ``--build-context`` has it.

        Args:
            image: The image.
            host: ``linux/amd64``.
            layers: Gives its layers.
        """
        config = configuration(image, host)
        manifest = oci.manifest(config, sizes(image))

        def write(folder: Path) -> None:
            files = {}
            for layer in layers():
                files[layer.diff_id] = file = _blob(folder, layer.diff_id)
                with file.open("wb") as out:
                    layout.write_layer(out, layer)
            _finish(folder, config, manifest, files.values())

        return self._once(hex_of(sha256_bytes(manifest)), write)

    def of_daemon(self, image: DockerImage) -> str:
        """Return where an image of the daemon is, as ``--build-context`` has it."""
        key = hashlib.sha256(canonical_json(["daemon", str(image.id)])).hexdigest()
        return self._once(key, lambda folder: self._saved(image, folder))

    def _once(self, key: str, write: Callable[[Path], None]) -> str:
        folder = self.store.entry("layouts", key)
        if set(_SEPARATORS).intersection(str(folder)):
            raise DaemonError(
                f"{folder}: a path with ':' or '@' in it cannot be given to buildx",
                hint="Point NOX_VARIANTS_HOME elsewhere.",
            )
        with self.store.lock(f"layout-{key}", cancelled=self.cancelled):
            if self.store.find("layouts", key) is None:
                with self.store.publish("layouts", key) as staging:
                    (staging / layout.BLOBS).mkdir(parents=True)
                    write(staging)
        with self.store.explained():
            index = json.loads((folder / "index.json").read_bytes())
        return f"oci-layout://{folder}@{index['manifests'][0]['digest']}"

    def _saved(self, image: DockerImage, folder: Path) -> None:
        """Write a layout of what `docker save` gives: layers as they are, and the configuration."""
        from nox_variants.images.archive import open_archive  # noqa: PLC0415  # few builders need it

        with self.store.staging() as staging:
            file = staging / "image.tar"
            with explained(f"reading {image.id}", ImageError), file.open("wb") as out:
                out.writelines(image.save(chunk_size=1 << 20))
            with open_archive(file, _platform(image.attrs), cancelled=self.cancelled) as archive:
                content = archive.content
                files = {each.digest: _blob(folder, each.digest) for each in content.layers}
                for layer in {each.digest: each for each in content.layers}.values():
                    archive.fetch(layer, files[layer.digest])
        config = _configuration(image.attrs, content.diff_ids)
        layers = [(each.media_type, each.digest, each.size) for each in content.layers]
        _finish(folder, config, oci.annotated(config, layers), files.values())


def _blob(folder: Path, digest: Digest) -> Path:
    return folder / layout.BLOBS / hex_of(digest)


def _finish(folder: Path, config: bytes, manifest: bytes, layers: Iterable[Path]) -> None:
    layout.write_layout(
        folder,
        tag="nox-variants/layout:latest",
        config=config,
        manifest=manifest,
        layers=tuple(layers),
    )


def _platform(attrs: dict[str, Any]) -> str:
    return "/".join(filter(None, (attrs["Os"], attrs["Architecture"], attrs.get("Variant"))))


def _configuration(attrs: dict[str, Any], diff_ids: Iterable[Digest]) -> bytes:
    """Return the configuration of a daemon's image, out of what `docker inspect` tells."""
    names = {"Architecture": "architecture", "Os": "os", "Variant": "variant", "Created": "created"}
    return canonical_json(
        {
            **{name: attrs[key] for key, name in names.items() if attrs.get(key)},
            "config": attrs.get("Config") or {},
            "rootfs": {"type": "layers", "diff_ids": list(diff_ids)},
        }
    )
