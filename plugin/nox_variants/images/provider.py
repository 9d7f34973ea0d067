"""An image of the file becomes a root filesystem in the store: which source, and what it gave."""

from __future__ import annotations

import dataclasses
import hashlib
import platform
import threading
from typing import TYPE_CHECKING, Any

from nox_variants.baseline import Pin
from nox_variants.errors import ImageUnavailable, LayoutError, StoreError
from nox_variants.images import locking
from nox_variants.images.remote import Remote
from nox_variants.images.transfer import Transfers
from nox_variants.model import Digest, Image, ImageSource, SourceKind
from nox_variants.oci.digest import canonical_json, hex_of, sha256_bytes
from nox_variants.oci.layer import digest_tree, write_tree
from nox_variants.oci.layout import LayerBlob
from nox_variants.results import PreparedImage
from nox_variants.sandbox.command import Root

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from nox_variants.images.apt import Apt
    from nox_variants.images.layered import Layered
    from nox_variants.images.locking import Locked
    from nox_variants.model import Mirrors
    from nox_variants.store import Store

FORMATS = {
    SourceKind.SCRATCH: 1,
    SourceKind.REGISTRY: 2,
    SourceKind.APT: 1,
    SourceKind.ARCHIVE: 1,
}
"""Versions of what is kept of an image of each kind: what has another one is made anew."""

EPOCH = 0
"""The time that every file of a stand-in has, in seconds since 1970: same packages, same digest."""


class Images:
    """The images of a run.

    Args:
        store: Where roots are kept.
        policy: ``auto``, or the one source that images may come from.
        refresh: Whether images of earlier runs are made anew.
        progress: Told what takes long.
        cancelled: Ends every child.
        pull: Gets an image from its registry in another way, with a daemon.
        locked: What is used of each image, and nothing else; None to use what sources give.
        mirrors: What is asked for images before their own registries.
        root: The folder that archives are relative to.
        host: ``linux/amd64``: the platform of images.
        environ: The environment, for proxies and docker's configuration.
    """

    def __init__(
        self,
        store: Store,
        *,
        policy: str,
        refresh: bool,
        progress: Callable[[str], None],
        cancelled: threading.Event,
        root: Path,
        host: str,
        environ: Mapping[str, str],
        pull: Callable[[Image, ImageSource, Pin | None], PreparedImage] | None = None,
        locked: Locked | None = None,
        mirrors: Mirrors = (),
    ) -> None:
        self._store = store
        self._policy = policy
        self._refresh = refresh
        self._progress = progress
        self._cancelled = cancelled
        self._root = root
        self._host = host
        self._pull = pull
        self._locked = locked
        self._made: set[str] = set()
        self._packages: Apt | None = None
        self._lock = threading.Lock()
        self._remote = Remote(
            environ=environ,
            progress=progress,
            cancelled=cancelled,
            host=host,
            mirrors=mirrors,
        )
        self._transfers = Transfers(store, progress=progress, cancelled=cancelled)

    def prepare(self, image: Image) -> PreparedImage:
        """Return an image whose root is in the store.

        Raises:
            ImageUnavailable: No source can be used here; the message says why, for each.
            ImageError: The source that should have given it failed, or gave another one than what
                is locked.
        """
        reasons, hints = [], []
        admitted = [source for source in image.sources if not self._passed_over(source)]
        locking.check_any(image, admitted, self._locked)
        for source in image.sources:
            reason = self._passed_over(source)
            if not reason and not locking.is_locked(image, source, self._locked):
                reason = locking.NOT_LOCKED
            if not reason:
                pin = locking.pin_of(image, source, self._locked)
                try:
                    return self._prepare(image, source, pin)
                except ImageUnavailable as error:
                    reason = error.message.removeprefix(f"{image.name}: ")
                    asked = pin.reference if pin else source.reference
                    reason = reason.removeprefix(f"{asked}: ")
                    hints.append(error.hint)
            reasons.append(f"{source.kind}: {reason}")
        raise ImageUnavailable(
            f"image {image.name} cannot be had here: {'; '.join(reasons)}",
            hint=" ".join(filter(None, hints)),
        )

    def unpacked(self, archive: Path, name: str) -> PreparedImage:
        """Return the image of an archive, its root in the store.

        Args:
            archive: An OCI archive, or what `docker save` writes.
            name: The image's name.

        Raises:
            ImageError: It is none, or hostile.
        """
        source = ImageSource(kind=SourceKind.ARCHIVE, reference=str(archive))
        return self._from_archive(Image(name=name, sources=(source,)), source)

    def root(self, image: PreparedImage) -> Path:
        """Return the folder that holds a prepared image's files."""
        return self._store.entry("images", hex_of(image.digest)) / "root"

    def layers(self, image: PreparedImage) -> list[LayerBlob]:
        """Return a prepared image's layers on their way out."""
        if image.kind in {SourceKind.REGISTRY, SourceKind.ARCHIVE}:
            return self._layered.layers(image)
        root = self.root(image)
        return [
            LayerBlob(
                diff_id=diff_id, size=size, write=lambda out: write_tree(root, out, mtime=EPOCH)
            )
            for diff_id, size in zip(image.layers, image.layer_sizes, strict=True)
        ]

    def transfers(self, image: Image, prepared: PreparedImage) -> tuple[int, ...] | None:
        """Return the bytes of each of a prepared image's layers as it travels, base first.

        Of an image that only a daemon has here, its registry is asked; of layers that only the
        daemon has at all, there is none.

        Args:
            image: The image of the file.
            prepared: What was prepared of it.

        Returns:
            The sizes; None where the registry does not tell them.
        """
        source = next(each for each in image.sources if each.kind is prepared.kind)
        if prepared.blobs:
            own = int(bool(source.setup))
            return self._layered.transfers(prepared, self._transfers, own=own)
        if prepared.kind is not SourceKind.REGISTRY:
            return tuple(self.compressed(image.name, layer) for layer in self.layers(prepared))
        if not prepared.pinned:
            return ()

        def ask() -> list[int]:
            content, _ = self._remote.image(prepared.pinned, insecure=source.insecure)
            return [layer.size for layer in content.layers]

        return self._transfers.told(image.name, prepared.pinned, self._host, ask)

    def compressed(self, name: str, layer: LayerBlob) -> int:
        """Return the bytes of a layer under gzip, found out once.

        Args:
            name: Whose layer it is, for what is told.
            layer: The layer.
        """
        return self._transfers.compressed(name, layer)

    def _passed_over(self, source: ImageSource) -> str:
        if source.kind is SourceKind.SCRATCH:
            return ""
        if source.unavailable:
            return source.unavailable
        if self._policy not in {"auto", source.kind}:
            return f"not asked for (--images {self._policy})"
        return ""

    def _prepare(self, image: Image, source: ImageSource, pin: Pin | None) -> PreparedImage:
        if source.kind is SourceKind.REGISTRY and self._pull is not None:
            return self._pull(image, source, pin)
        found = self._kept(image, source, pin)
        if not found:
            key = self._key(image, source)
            with self._store.lock(f"image-{key}", cancelled=self._cancelled):
                found = self._kept(image, source, pin) or self._make(image, source, pin)
        found = dataclasses.replace(found, name=image.name)
        if pin:
            locking.check_same(found, source, pin)
        return found

    def _key(self, image: Image, source: ImageSource, pin: Pin | None = None) -> str:
        return hashlib.sha256(canonical_json(self._identity(image, source, pin))).hexdigest()

    def _kept(self, image: Image, source: ImageSource, pin: Pin | None) -> PreparedImage | None:
        """Return what was prepared before.

        What an earlier run got of a source is not what the source gives now: where it is another
        one than what is locked, only what this run got is.
        """
        found = self._find(self._key(image, source, pin))
        if found or pin is None:
            return found
        key = self._key(image, source)
        last = self._find(key)
        return last if last and (key in self._made or locking.is_same(last, pin)) else None

    def _find(self, key: str) -> PreparedImage | None:
        """Return what was prepared, if it is good and all of it is still there."""
        folder = self._store.find("refs", key)
        if folder is None or (self._refresh and key not in self._made):
            return None
        try:
            found = _from_json(self._store.read_json(folder / "image.json"))
            if self._is_whole(found):
                return found
        except (StoreError, LayoutError, LookupError, TypeError, ValueError):
            pass
        self._store.discard("refs", key)
        return None

    def _identity(
        self, image: Image, source: ImageSource, pin: Pin | None = None
    ) -> dict[str, Any]:
        """Return all that decides what a source gives on this host, or what is pinned of it."""
        value: dict[str, Any] = {
            "format": FORMATS[source.kind],
            "kind": source.kind,
            "reference": source.reference,
            "setup": source.setup,
            "env": image.env,
            **({"user": image.user} if image.user else {}),
        }
        if pin and source.kind is SourceKind.REGISTRY:
            value["reference"] = pin.reference
        elif pin:
            return {**value, "packages": source.packages, "pinned": pin.digest}
        if source.kind is SourceKind.APT:
            return {**value, "packages": source.packages, "host": _release()}
        if source.kind is SourceKind.ARCHIVE:
            return {**value, "file": _version(self._root / source.reference), "host": self._host}
        return {**value, "insecure": source.insecure, "host": self._host}

    def _make(self, image: Image, source: ImageSource, pin: Pin | None) -> PreparedImage:
        if source.kind is SourceKind.SCRATCH:
            made = PreparedImage(
                name=image.name,
                kind=source.kind,
                reference="",
                digest=sha256_bytes(b""),
                env=image.env,
                user=image.user,
            )
            self._publish(made, lambda root: root.mkdir())
        elif source.kind is SourceKind.APT:
            made = self._from_apt(image, source)
        elif source.kind is SourceKind.ARCHIVE:
            made = self._from_archive(image, source)
        else:
            made = self._from_registry(image, source, pin)
        for key in self._names(image, source, made, pin):
            with self._store.publish("refs", key, replace=True) as staging:
                self._store.write_json(staging / "image.json", dataclasses.asdict(made))
            self._made.add(key)
        return made

    def _names(
        self, image: Image, source: ImageSource, made: PreparedImage, pin: Pin | None
    ) -> set[str]:
        """Return the keys by which an image is found: for what it is, and for what gave it.

        What was asked for by its digest says nothing of what the tag gives.
        """
        own = Pin(digest=made.digest, reference=made.pinned)
        keys = set()
        if source.kind is not SourceKind.SCRATCH:
            keys.add(self._key(image, source, own))
        if pin is None or source.kind is not SourceKind.REGISTRY:
            keys.add(self._key(image, source))
        return keys

    def _is_whole(self, image: PreparedImage) -> bool:
        return self._layered.is_there(image) if image.blobs else self.root(image).is_dir()

    def _from_registry(self, image: Image, source: ImageSource, pin: Pin | None) -> PreparedImage:
        reference = pin.reference if pin else source.reference
        content, blobs = self._remote.image(reference, insecure=source.insecure)
        made = self._layered.prepare(image, source, content, blobs)
        return dataclasses.replace(made, pinned=locking.pinned(reference, content.digest))

    def _from_archive(self, image: Image, source: ImageSource) -> PreparedImage:
        from nox_variants.images.archive import open_archive  # noqa: PLC0415  # few runs do

        file = self._root / source.reference
        with open_archive(file, self._host, cancelled=self._cancelled) as archive:
            return self._layered.prepare(image, source, archive.content, archive)

    @property
    def _apt(self) -> Apt:
        from nox_variants.images.apt import LISTS_AGE, Apt  # noqa: PLC0415  # few runs unpack

        with self._lock:
            self._packages = self._packages or Apt(
                self._store,
                progress=self._progress,
                cancelled=self._cancelled,
                # Whether packages still give what is locked is told by new lists only.
                lists_age=LISTS_AGE if not self._refresh and self._locked is None else 0,
            )
            return self._packages

    @property
    def _layered(self) -> Layered:
        from nox_variants.images.layered import Layered  # noqa: PLC0415  # not for packages

        return Layered(self._store, progress=self._progress, cancelled=self._cancelled)

    def _from_apt(self, image: Image, source: ImageSource) -> PreparedImage:
        from nox_variants.images.packages import unpack  # noqa: PLC0415  # as above
        from nox_variants.images.setup import set_up  # noqa: PLC0415

        packages = self._apt.fetch(image.name, source.packages)
        self._progress(f"{image.name}: unpacking {len(packages)} packages")
        with self._store.staging() as staging:
            root = staging / "root"
            root.mkdir()
            unpack(packages, root, cancelled=self._cancelled)
            set_up(
                image.name,
                source.setup,
                Root(upper=root),
                env=image.env,
                cancelled=self._cancelled,
            )
            facts = digest_tree(root, mtime=EPOCH)
            made = PreparedImage(
                name=image.name,
                kind=source.kind,
                reference=" ".join(source.packages),
                digest=facts.diff_id,
                stand_in=True,
                packages=tuple(sorted(map(str, packages))),
                layers=(facts.diff_id,),
                layer_sizes=(facts.size,),
                content=facts.content,
                env=image.env,
                user=image.user,
            )
            self._publish(made, root.rename)
        return made

    def _publish(self, image: PreparedImage, place: Callable[[Path], object]) -> None:
        """Make the entry that holds an image's root, unless its content is there already."""
        key = hex_of(image.digest)
        if not self._is_there(image):
            damaged = self._store.find("images", key) is not None
            with self._store.publish("images", key, replace=damaged) as staging:
                place(staging / "root")

    def _is_there(self, image: PreparedImage) -> bool:
        """Tell whether an image's root is in the store; look into it when that is asked for."""
        root = self.root(image)
        if not self._refresh or not root.is_dir():
            return root.is_dir()
        facts = digest_tree(root, mtime=EPOCH)
        return facts.diff_id in image.layers or not (image.layers or facts.entries)


def _release() -> tuple[str, str, str]:
    """Return what decides which packages apt finds."""
    try:
        release = platform.freedesktop_os_release()
    except OSError:
        release = {}
    return release.get("ID", ""), release.get("VERSION_ID", ""), platform.machine()


def _version(file: Path) -> tuple[int, int, int] | None:
    """Return what changes when a file does."""
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size


def _from_json(values: dict[str, Any]) -> PreparedImage:
    return PreparedImage(
        **{
            **values,
            "kind": SourceKind(values["kind"]),
            "digest": Digest(values["digest"]),
            "packages": tuple(values["packages"]),
            "layers": tuple(map(Digest, values["layers"])),
            "layer_sizes": tuple(values["layer_sizes"]),
            "blobs": tuple(map(Digest, values["blobs"])),
            "env": tuple((name, value) for name, value in values["env"]),
        }
    )
