"""Variant images out of a base and what a build made: layers in the store, layouts on disk."""

from __future__ import annotations

import hashlib
import shutil
import threading
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import IO, TYPE_CHECKING

from nox_variants import names, rootfs
from nox_variants.engines import trees
from nox_variants.engines.builds import Log, failure
from nox_variants.engines.compiling import CHANGES, remove_work, run_commands
from nox_variants.errors import BuildFailed, LayoutError, StoreError
from nox_variants.model import Digest
from nox_variants.oci import image as oci
from nox_variants.oci import layout
from nox_variants.oci.digest import canonical_json, hex_of, sha256_bytes
from nox_variants.oci.layer import digest_tree, write_tree
from nox_variants.results import Sizes, VariantImage
from nox_variants.sandbox.command import Root

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from nox_variants.engines.bundling import Bundled
    from nox_variants.plan import Plan
    from nox_variants.results import Build, PreparedImage
    from nox_variants.sources import Snapshot
    from nox_variants.store import Store

FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """A layer of a variant, as the store holds it.

    Attributes:
        diff_id: Digest of its tar.
        size: Bytes of its tar.
        content: Bytes of its regular files.
        root: Its files, unpacked.
        tar: Its tar, in a file that is named by the hex digest.
    """

    diff_id: Digest
    size: int
    content: int
    root: Path
    tar: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Assembled:
    """A variant's image with all that a run or an export needs."""

    image: VariantImage
    layers: tuple[Layer, ...]
    config: bytes
    manifest: bytes


@dataclass(frozen=True, slots=True)
class Copy:
    """A file or folder of a layer: its path in the image, where it is now, and its digest."""

    target: str
    file: Path
    digest: Digest


def copies(plan: Plan, build: Build, bundle: Iterable[Bundled] = ()) -> list[Copy]:
    """Return the files that a plan copies, in its order."""
    known = {each.path: (each.file, each.digest) for each in build.artifacts}
    known |= {each.source: (each.file, each.digest) for each in bundle}
    return [Copy(each.target, *known[each.source]) for each in plan.run.files]


def artifacts(build: Build) -> list[Copy]:
    """Return what a build put out, each file where it was."""
    return [Copy(each.path, each.file, each.digest) for each in build.artifacts]


class Assembler:
    """Makes variant images.

    Args:
        store: Where layers are kept.
        output: The folder that layouts are written below.
        epoch: ``SOURCE_DATE_EPOCH``, in seconds since 1970.
        platform: ``linux/amd64``.
        cancelled: Ends what runs in an image that is made.
    """

    def __init__(
        self,
        store: Store,
        output: Path,
        *,
        epoch: int,
        platform: str,
        cancelled: threading.Event,
    ) -> None:
        self._store = store
        self._cancelled = cancelled
        self._output = output
        self._epoch = epoch
        self._platform = platform
        self._locks: dict[str, threading.Lock] = {}
        self._layers: dict[str, Layer] = {}

    def assemble(
        self,
        plan: Plan,
        base: PreparedImage,
        root: Path,
        build: Build,
        source: Snapshot,
        *,
        bundle: tuple[Bundled, ...] = (),
    ) -> Assembled:
        """Return the variant's image after writing its layout.

        A single-stage image is the build image with two layers more: the source, and what the
        commands changed. All have one for the copied files, where there are any, and one for what
        commands of the run stage changed.

        Args:
            plan: The variant, its bundle included.
            base: Its run image.
            root: The folder of that image's files.
            build: What its build stage gave.
            source: What that was built from.
            bundle: The libraries among the plan's files.
        """
        layers: list[Layer] = []
        if plan.run.single_stage:
            changes = self._store.entry("builds", build.key) / CHANGES
            layers += (
                self._layer({"source": source.digest}, source.root),
                self._layer({"build": build.key}, changes),
            )
        lower = (root, *(layer.root for layer in layers))
        if plan.run.files:
            layers.append(self.files(copies(plan, build, bundle), lower))
        if plan.run.install:
            layers.append(self._installed(plan, base, root, tuple(layers)))
        return self._image(plan, base, build, tuple(layers))

    def _installed(
        self, plan: Plan, base: PreparedImage, root: Path, below: tuple[Layer, ...]
    ) -> Layer:
        """Return the layer of what the run stage's commands change, made once.

        Raises:
            BuildFailed: A command failed.
        """
        env = (*base.env, *plan.run.env)
        identity = {
            "install": plan.run.install,
            "on": [base.digest, *(layer.diff_id for layer in below)],
            "env": env,
            "network": plan.run.network,
            "workdir": plan.run.workdir,
        }

        def fill(layer: Path) -> None:
            work, lower = layer.with_name("work"), (root, *(each.root for each in below))
            work.mkdir()
            overlay = Root(lower=lower, upper=layer, work=work)
            with layer.with_name("log.txt").open("wb") as file:
                log = Log(file)
                try:
                    run_commands(
                        overlay,
                        plan.run.install,
                        image=base.name,
                        workdir=plan.run.workdir,
                        env=(*env, ("SOURCE_DATE_EPOCH", str(self._epoch))),
                        network=plan.run.network,
                        log=log.write,
                        cancelled=self._cancelled,
                    )
                except BuildFailed as error:
                    raise failure(error, log, layer) from None
            remove_work(work)

        key = self._key(identity)
        with self._store.lock(f"layer-{key}", cancelled=self._cancelled):
            if key not in self._layers:
                self._layers[key] = self._found(key, None) or self._made(key, None, fill)
            return self._layers[key]

    def files(self, copied: Sequence[Copy], lower: tuple[Path, ...] = ()) -> Layer:
        """Return a layer of files, each with the folders above it.

        Args:
            copied: The files, and folders.
            lower: The folders of the root that they go on: its links to folders are followed.
        """
        placed = [(_placed(lower, each), each) for each in copied]

        def fill(layer: Path) -> None:
            for target, each in placed:
                for folder in list(reversed(PurePosixPath(target).parents))[1:]:
                    made = layer / folder.relative_to("/")
                    made.mkdir(exist_ok=True)
                    made.chmod(0o755)
                trees.merge(each.file, layer / target.lstrip("/"))

        described = [(target, each.digest, trees.mode(each.file)) for target, each in placed]
        return self._layer({"files": described}, None, fill)

    def _layer(
        self,
        identity: dict[str, object],
        root: Path | None,
        fill: Callable[[Path], None] | None = None,
    ) -> Layer:
        """Return a layer of the store, made once.

        Args:
            identity: What decides its content.
            root: Its files, or None when `fill` makes them.
            fill: Makes its files in an empty folder.
        """
        key = self._key(identity)
        with self._alone(key):
            if key not in self._layers:
                self._layers[key] = self._found(key, root) or self._made(key, root, fill)
            return self._layers[key]

    def _alone(self, key: str) -> threading.Lock:
        """Return the lock that keeps other threads from making the same."""
        return self._locks.setdefault(key, threading.Lock())

    def _key(self, identity: dict[str, object]) -> str:
        value = {"format": FORMAT, "epoch": self._epoch, **identity}
        return hashlib.sha256(canonical_json(value)).hexdigest()

    def _found(self, key: str, root: Path | None) -> Layer | None:
        folder = self._store.find("layers", key)
        if folder is None:
            return None
        try:
            values = self._store.read_json(folder / "layer.json")
            diff_id = Digest(values["diff_id"])
            tar = folder / hex_of(diff_id)
            files = root or folder / "root"
            # What runs has to be what is exported: a build that was made anew may differ.
            same = digest_tree(files, mtime=self._epoch).diff_id == diff_id
            if same and tar.stat().st_size == values["size"]:
                return Layer(
                    diff_id=diff_id,
                    size=values["size"],
                    content=values["content"],
                    root=files,
                    tar=tar,
                )
        except (StoreError, LayoutError, OSError, LookupError, TypeError):
            pass
        self._store.discard("layers", key)
        return None

    def _made(self, key: str, root: Path | None, fill: Callable[[Path], None] | None) -> Layer:
        with self._store.publish("layers", key) as staging:
            if root is None and fill is not None:
                (staging / "root").mkdir()
                fill(staging / "root")
            draft = staging / "tar"
            with draft.open("wb") as out:
                facts = write_tree(root or staging / "root", out, mtime=self._epoch)
            draft.chmod(0o444)
            draft.rename(staging / hex_of(facts.diff_id))
            self._store.write_json(
                staging / "layer.json",
                {"diff_id": facts.diff_id, "size": facts.size, "content": facts.content},
            )
        made = self._found(key, root)
        if made is None:
            raise StoreError(f"layer {key} vanished from the store while it was made")
        return made

    def _image(
        self, plan: Plan, base: PreparedImage, build: Build, layers: tuple[Layer, ...]
    ) -> Assembled:
        diff_ids = (*base.layers, *(layer.diff_id for layer in layers))
        env = (*base.env, *plan.run.env)
        config = oci.config(
            diff_ids,
            cmd=plan.run.cmd,
            env=env,
            workdir=plan.run.workdir,
            created=self._epoch,
            platform=self._platform,
            labels=plan.run.labels,
            entrypoint=plan.run.entrypoint,
            user=plan.run.user or base.user,
        )
        sizes = (*base.layer_sizes, *(layer.size for layer in layers))
        manifest = oci.manifest(config, tuple(zip(diff_ids, sizes, strict=True)))
        tag = names.image_tag(plan.variant)
        folder = self._output / "images" / plan.variant.program / tag
        with self._alone(str(folder)):
            _drop_damaged(folder, layers)
            layout.write_layout(
                folder,
                tag=f"{plan.variant.program}:{tag}",
                config=config,
                manifest=manifest,
                layers=[layer.tar for layer in layers],
            )
        above = sum(layer.content for layer in layers)
        image = VariantImage(
            config_digest=sha256_bytes(config),
            tag=f"{plan.variant.program}:{tag}",
            path=f"{self._output.name}/images/{plan.variant.program}/{tag}",
            layers=diff_ids,
            sizes=Sizes(
                binary=build.artifacts[0].size, content=base.content + above, above_base=above
            ),
            cmd=plan.run.cmd,
            entrypoint=plan.run.entrypoint,
            env=env,
            workdir=plan.run.workdir,
            user=plan.run.user or base.user,
        )
        return Assembled(image=image, layers=layers, config=config, manifest=manifest)


def blob(layer: Layer) -> layout.LayerBlob:
    """Return a layer on its way out."""
    return layout.LayerBlob(diff_id=layer.diff_id, size=layer.size, write=_copier(layer.tar))


def with_transfer(image: VariantImage, size: int) -> VariantImage:
    """Return an image whose compressed size is known."""
    return replace(image, sizes=replace(image.sizes, transfer=size))


def _placed(lower: tuple[Path, ...], copied: Copy) -> str:
    """Return where a file really gets; a folder's content follows a link in its place, too."""
    if copied.file.is_dir():
        return rootfs.place(lower, f"{copied.target}/-").rpartition("/")[0]
    return rootfs.place(lower, copied.target)


def _drop_damaged(folder: Path, layers: tuple[Layer, ...]) -> None:
    """Remove a layout's layers that are cut off: they share the bytes of the store's old ones."""
    for layer in layers:
        blob = folder / layout.BLOBS / layer.tar.name
        with suppress(OSError):
            if blob.stat().st_size != layer.size:
                blob.unlink()


def write_archive(
    assembled: Assembled, base: list[layout.LayerBlob], file: Path, *, docker: bool
) -> None:
    """Write a variant's image as a complete archive.

    Args:
        assembled: The image.
        base: The layers of its run image.
        file: The archive.
        docker: Whether `docker load` has to take it.
    """
    layout.write_archive(
        file,
        tag=assembled.image.tag,
        config=assembled.config,
        manifest=assembled.manifest,
        layers=[*base, *map(blob, assembled.layers)],
        docker=docker,
    )


def _copier(tar: Path) -> Callable[[IO[bytes]], object]:
    def copy(out: IO[bytes]) -> None:
        with tar.open("rb") as file:
            shutil.copyfileobj(file, out)

    return copy
