"""An image of the file becomes a root filesystem in the store: which source, and what it gave."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import platform
import re
from typing import TYPE_CHECKING, Any

from nox_variants import rootfs
from nox_variants.errors import ImageError, ImageUnavailable, LayoutError, StoreError
from nox_variants.images.apt import LISTS_AGE, Apt
from nox_variants.images.packages import unpack
from nox_variants.model import Digest, Image, SourceKind
from nox_variants.oci.digest import canonical_json, hex_of, sha256_bytes
from nox_variants.oci.layer import digest_tree
from nox_variants.results import PreparedImage
from nox_variants.sandbox.command import Root, run_command

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable
    from pathlib import Path

    from nox_variants.model import ImageSource
    from nox_variants.store import Store

FORMAT = 1

EPOCH = 0
"""The time that every file of a stand-in has, in seconds since 1970: same packages, same digest."""

_NOT_YET = {
    SourceKind.REGISTRY: "this engine does not fetch registry images in this version",
    SourceKind.ARCHIVE: "archives are not read by this version",
}
_CHOWN = re.compile(
    r"(chown|chgrp|lchown|fchown).*(Operation not permitted|Invalid argument)", re.IGNORECASE
)
_LOG_KEPT = 16 * 1024
_MOUNT_POINTS = ("etc/hosts", "etc/resolv.conf")
"""Files that the sandbox makes to mount this machine's own on: no part of the image."""


class Images:
    """The images of a run.

    Args:
        store: Where roots are kept.
        policy: ``auto``, or the one source that images may come from.
        refresh: Whether images of earlier runs are made anew.
        progress: Told what takes long.
        cancelled: Ends every child.
        pull: Gets an image from its registry; None where nothing here can.
    """

    def __init__(
        self,
        store: Store,
        *,
        policy: str,
        refresh: bool,
        progress: Callable[[str], None],
        cancelled: threading.Event,
        pull: Callable[[Image, ImageSource], PreparedImage] | None = None,
    ) -> None:
        self._store = store
        self._policy = policy
        self._refresh = refresh
        self._progress = progress
        self._cancelled = cancelled
        self._pull = pull
        self._made: set[str] = set()
        self._apt = Apt(
            store, progress=progress, cancelled=cancelled, lists_age=0 if refresh else LISTS_AGE
        )

    def prepare(self, image: Image) -> PreparedImage:
        """Return an image whose root is in the store.

        Raises:
            ImageUnavailable: No source can be used here; the message says why, for each.
            ImageError: The source that should have given it failed.
        """
        reasons, hints = [], []
        for source in image.sources:
            reason = self._passed_over(source)
            if not reason:
                try:
                    return self._prepare(image, source)
                except ImageUnavailable as error:
                    reason = error.message.removeprefix(f"{image.name}: ")
                    hints.append(error.hint)
            reasons.append(f"{source.kind}: {reason}")
        raise ImageUnavailable(
            f"image {image.name} cannot be had here: {'; '.join(reasons)}", hint=" ".join(hints)
        )

    def root(self, image: PreparedImage) -> Path:
        """Return the folder that holds a prepared image's files."""
        return self._store.entry("images", hex_of(image.digest)) / "root"

    def _passed_over(self, source: ImageSource) -> str:
        if source.kind is SourceKind.SCRATCH:
            return ""
        if source.unavailable:
            return source.unavailable
        if self._policy not in {"auto", source.kind}:
            return f"not asked for (--images {self._policy})"
        if source.kind is SourceKind.REGISTRY and self._pull is not None:
            return ""
        return _NOT_YET.get(source.kind, "")

    def _prepare(self, image: Image, source: ImageSource) -> PreparedImage:
        if source.kind is SourceKind.REGISTRY and self._pull is not None:
            return self._pull(image, source)
        key = hashlib.sha256(canonical_json(_identity(image, source))).hexdigest()
        found = self._find(key)
        if not found:
            with self._store.lock(f"image-{key}", cancelled=self._cancelled):
                found = self._find(key) or self._make(key, image, source)
        return dataclasses.replace(found, name=image.name)

    def _find(self, key: str) -> PreparedImage | None:
        """Return what was prepared, if it is good and all of it is still there."""
        folder = self._store.find("refs", key)
        if folder is None or (self._refresh and key not in self._made):
            return None
        try:
            found = _from_json(self._store.read_json(folder / "image.json"))
            if self.root(found).is_dir():
                return found
        except (StoreError, LayoutError, LookupError, TypeError, ValueError):
            pass
        self._store.discard("refs", key)
        return None

    def _make(self, key: str, image: Image, source: ImageSource) -> PreparedImage:
        if source.kind is SourceKind.SCRATCH:
            made = PreparedImage(
                name=image.name,
                kind=source.kind,
                reference="",
                digest=sha256_bytes(b""),
                env=image.env,
            )
            self._publish(made, lambda root: root.mkdir())
        else:
            made = self._from_apt(image, source)
        with self._store.publish("refs", key, replace=True) as staging:
            self._store.write_json(staging / "image.json", dataclasses.asdict(made))
        self._made.add(key)
        return made

    def _from_apt(self, image: Image, source: ImageSource) -> PreparedImage:
        packages = self._apt.fetch(image.name, source.packages)
        self._progress(f"{image.name}: unpacking {len(packages)} packages")
        with self._store.staging() as staging:
            root = staging / "root"
            root.mkdir()
            unpack(packages, root, cancelled=self._cancelled)
            self._set_up(image, source.setup, root)
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

    def _set_up(self, image: Image, commands: tuple[str, ...], root: Path) -> None:
        mount_points = [
            file for file in (root / name for name in _MOUNT_POINTS) if not os.path.lexists(file)
        ]
        for command in commands:
            self._run(image, command, root)
        for file in mount_points:
            if file.is_file() and not file.is_symlink() and not file.stat().st_size:
                file.unlink()
        root.chmod(0o755)

    def _run(self, image: Image, command: str, root: Path) -> None:
        output = bytearray()

        def keep(data: bytes) -> None:
            output.extend(data)
            del output[:-_LOG_KEPT]

        code = run_command(
            Root(upper=root),
            (*_shell(image, root), "-c", command),
            workdir="/",
            env=image.env,
            network=True,
            log=keep,
            cancelled=self._cancelled,
        )
        if not code:
            return
        text = output.decode(errors="replace").strip()
        said = f": {text.splitlines()[-1]}" if text else ""
        hint = "The command runs with /bin/sh in the image's own root, as uid 0."
        if _CHOWN.search(text):
            hint = "Only one uid is mapped here: a file cannot be given to another. Leave it out."
        raise ImageError(
            f"image {image.name}: setup {command!r} ended with exit code {code}{said}", hint=hint
        )


def _shell(image: Image, root: Path) -> tuple[str, ...]:
    """Return what runs `setup`: busybox brings a shell before its links are made."""
    for argv in (("/bin/sh",), ("/bin/busybox", "sh")):
        if rootfs.resolve((root,), argv[0]) is not None:
            return argv
    raise ImageError(
        f"image {image.name}: has no /bin/sh to run its setup", hint="Add dash to its packages."
    )


def _identity(image: Image, source: ImageSource) -> dict[str, Any]:
    """Return all that decides what a source gives on this host."""
    try:
        release = platform.freedesktop_os_release()
    except OSError:
        release = {}
    return {
        "format": FORMAT,
        "kind": source.kind,
        "packages": source.packages,
        "reference": source.reference,
        "setup": source.setup,
        "env": image.env,
        "host": [release.get("ID", ""), release.get("VERSION_ID", ""), platform.machine()],
    }


def _from_json(values: dict[str, Any]) -> PreparedImage:
    return PreparedImage(
        **{
            **values,
            "kind": SourceKind(values["kind"]),
            "digest": Digest(values["digest"]),
            "packages": tuple(values["packages"]),
            "layers": tuple(map(Digest, values["layers"])),
            "layer_sizes": tuple(values["layer_sizes"]),
            "env": tuple((name, value) for name, value in values["env"]),
        }
    )
