"""Images that come as layers, from a registry or an archive: fetched, unpacked, set up, kept.

Layers are kept as they came, so that an export ships the very same ones; the root is their merger.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from typing import IO, TYPE_CHECKING

from nox_variants.errors import ImageError, LayoutError, StoreError
from nox_variants.images.installed import installed
from nox_variants.images.layers import AppliedLayer, Unpacker
from nox_variants.images.layerstream import uncompressed
from nox_variants.images.setup import set_up
from nox_variants.model import Digest, SourceKind
from nox_variants.oci.digest import canonical_json, hex_of, sha256_file
from nox_variants.oci.layer import digest_tree, write_tree
from nox_variants.oci.layout import LayerBlob
from nox_variants.results import PreparedImage
from nox_variants.sandbox.command import Root

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable
    from pathlib import Path

    from nox_variants.images.content import Blobs, Descriptor, ImageContent
    from nox_variants.images.transfer import Transfers
    from nox_variants.model import Image, ImageSource, Pairs
    from nox_variants.store import Store

EPOCH = 0
"""The time that every file of a setup's layer has, in seconds since 1970."""

AT_ONCE = 3
"""Layers of one image that are fetched at the same time, as Docker does by default."""

_BLOB = "blob"
_DAMAGED = "The image is damaged, or somebody changed it: push it again."


class Layered:
    """Makes roots in the store out of layers.

    Args:
        store: The store.
        progress: Told what takes long.
        cancelled: Ends everything.
    """

    def __init__(
        self, store: Store, *, progress: Callable[[str], None], cancelled: threading.Event
    ) -> None:
        self._store = store
        self._progress = progress
        self._cancelled = cancelled

    def prepare(
        self, image: Image, source: ImageSource, content: ImageContent, blobs: Blobs
    ) -> PreparedImage:
        """Return an image whose layers and root are in the store.

        Args:
            image: The image of the file.
            source: What names it there.
            content: What it consists of.
            blobs: Gives its layers.

        Raises:
            ImageError: A layer cannot be had, is not what it should be, or is hostile; or a
                setup command failed.
            StoreError: The disk did not take it.
        """
        base = PreparedImage(
            name=image.name,
            kind=source.kind,
            reference=source.reference,
            digest=content.digest,
            env=_completed(content.env, image.env),
            user=content.user or image.user,
        )
        with self._store.lock(f"layers-{content.digest}", cancelled=self._cancelled):
            base = self._known(base) or self._unpack(base, content, blobs)
        if not source.setup:
            return base
        key = canonical_json([content.digest, source.setup, base.env])
        digest = Digest(f"sha256:{hashlib.sha256(key).hexdigest()}")
        made = dataclasses.replace(base, digest=digest)
        with self._store.lock(f"layers-{digest}", cancelled=self._cancelled):
            return self._known(made) or self._set_up(made, base, source.setup)

    def layers(self, image: PreparedImage) -> list[LayerBlob]:
        """Return an image's layers on their way out."""
        return [
            LayerBlob(diff_id=diff_id, size=size, write=self._writer(blob))
            for diff_id, size, blob in zip(
                image.layers, image.layer_sizes, image.blobs, strict=True
            )
        ]

    def transfers(self, image: PreparedImage, sizes: Transfers, *, own: int = 0) -> tuple[int, ...]:
        """Return the bytes of each of an image's layers as it travels, base first.

        Args:
            image: The image.
            sizes: Compresses what is not compressed.
            own: How many of the last layers are this machine's own, and in no registry.
        """
        found = []
        for number, layer in enumerate(self.layers(image)):
            blob = image.blobs[number]
            came = number < len(image.blobs) - own
            if came and (image.kind is SourceKind.REGISTRY or blob != layer.diff_id):
                with self._store.explained():
                    found.append((self._store.entry("blobs", hex_of(blob)) / _BLOB).stat().st_size)
            else:
                found.append(sizes.compressed(image.name, layer))
        return tuple(found)

    def is_there(self, image: PreparedImage) -> bool:
        """Tell whether an image's root and all of its layers are in the store."""
        return self._store.find("images", hex_of(image.digest)) is not None and all(
            self._store.find("blobs", hex_of(blob)) is not None for blob in image.blobs
        )

    def _known(self, image: PreparedImage) -> PreparedImage | None:
        """Return an image with its layers when all of it is in the store."""
        folder = self._store.find("images", hex_of(image.digest))
        if folder is None:
            return None
        try:
            values = self._store.read_json(folder / "layers.json")
            found = dataclasses.replace(
                image,
                packages=tuple(map(str, values.get("packages", ()))),
                layers=tuple(map(Digest, values["layers"])),
                layer_sizes=tuple(values["sizes"]),
                blobs=tuple(map(Digest, values["blobs"])),
                content=values["content"],
            )
        except (StoreError, LookupError, TypeError):
            return None
        return found if self.is_there(found) else None

    def _unpack(self, image: PreparedImage, content: ImageContent, blobs: Blobs) -> PreparedImage:
        applied: list[AppliedLayer] = []
        with self._store.staging() as staging, ThreadPoolExecutor(AT_ONCE) as pool:
            root = staging / "root"
            root.mkdir()
            unpacker = Unpacker(root, cancelled=self._cancelled)
            fetched = [pool.submit(self._fetch, layer, blobs) for layer in content.layers]
            try:
                for layer, diff_id, future in zip(
                    content.layers, content.diff_ids, fetched, strict=True
                ):
                    future.result()
                    applied.append(self._apply(image.name, unpacker, layer, diff_id))
            finally:
                pool.shutdown(cancel_futures=True)
            unpacker.finish()
            made = dataclasses.replace(
                image,
                packages=installed(root),
                layers=content.diff_ids,
                layer_sizes=tuple(layer.size for layer in applied),
                blobs=tuple(layer.digest for layer in content.layers),
                content=sum(layer.content for layer in applied),
            )
            self._publish(made, root, unpacker.owners)
        return made

    def _fetch(self, layer: Descriptor, blobs: Blobs) -> None:
        """Have a layer in the store, once, also across images and processes."""
        key = hex_of(layer.digest)
        with self._store.lock(f"blob-{key}", cancelled=self._cancelled):
            if self._store.find("blobs", key) is None:
                with self._store.publish("blobs", key) as staging:
                    blobs.fetch(layer, staging / _BLOB)

    def _apply(
        self, name: str, unpacker: Unpacker, layer: Descriptor, diff_id: Digest
    ) -> AppliedLayer:
        key = hex_of(layer.digest)
        self._progress(f"{name}: unpacking layer {layer.digest[:19]}")
        try:
            with (self._store.entry("blobs", key) / _BLOB).open("rb") as blob:
                applied = unpacker.apply(blob)
        except LayoutError as error:
            what = f"image {name}: layer {layer.digest}: {error.message}"
            raise ImageError(what, hint=error.hint or _DAMAGED) from error
        if applied.diff_id != diff_id:
            self._store.discard("blobs", key)
            raise ImageError(
                f"image {name}: layer {layer.digest} holds {applied.diff_id}, its configuration"
                f" says {diff_id}",
                hint=_DAMAGED,
            )
        return applied

    def _set_up(
        self, image: PreparedImage, base: PreparedImage, commands: tuple[str, ...]
    ) -> PreparedImage:
        """Run commands on top of a base: what they change is a layer more."""
        self._progress(f"{image.name}: running its setup")
        below = self._store.entry("images", hex_of(base.digest)) / "root"
        with self._store.staging() as staging:
            upper, work, root = (staging / name for name in ("upper", "work", "root"))
            for folder in (upper, work):
                folder.mkdir()
            set_up(
                image.name,
                commands,
                Root(lower=(below,), upper=upper, work=work),
                env=image.env,
                cancelled=self._cancelled,
            )
            tar = staging / _BLOB
            with tar.open("wb") as out:
                facts = write_tree(upper, out, mtime=EPOCH)
            shutil.copytree(below, root, symlinks=True, copy_function=os.link)
            unpacker = Unpacker(root, cancelled=self._cancelled)
            with tar.open("rb") as blob:
                unpacker.apply(blob)
            unpacker.finish()
            made = dataclasses.replace(
                image,
                packages=installed(root),
                layers=(*base.layers, facts.diff_id),
                layer_sizes=(*base.layer_sizes, facts.size),
                blobs=(*base.blobs, facts.diff_id),
                content=base.content + facts.content,
            )
            with self._store.publish("blobs", hex_of(facts.diff_id)) as blobs:
                tar.rename(blobs / _BLOB)
            self._publish(made, root, unpacker.owners)
        return made

    def _publish(
        self, image: PreparedImage, root: Path, owners: dict[str, tuple[int, int, int]]
    ) -> None:
        with self._store.publish("images", hex_of(image.digest), replace=True) as staging:
            root.rename(staging / "root")
            values = {
                "packages": image.packages,
                "layers": image.layers,
                "sizes": image.layer_sizes,
                "blobs": image.blobs,
                "content": image.content,
                "tree": digest_tree(staging / "root", mtime=EPOCH).diff_id,
                "owners": owners,
            }
            self._store.write_json(staging / "layers.json", values)

    def _writer(self, blob: Digest) -> Callable[[IO[bytes]], object]:
        file = self._store.entry("blobs", hex_of(blob)) / _BLOB

        def write(out: IO[bytes]) -> None:
            if sha256_file(file) != blob:
                raise StoreError(
                    f"{file}: is not what it was", hint="nox-variants doctor --verify removes it."
                )
            with file.open("rb") as opened:
                for chunk in uncompressed(opened, self._cancelled):
                    out.write(chunk)

        return write


def _completed(env: Pairs, lacking: Pairs) -> Pairs:
    """Return an image's own environment, and what the file says of variables that it lacks."""
    return tuple({**dict(env), **{k: v for k, v in lacking if k not in dict(env)}}.items())
