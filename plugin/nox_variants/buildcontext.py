"""Build contexts on disk: a Dockerfile, the source, and archives of what no registry gives.

Nothing is compiled for them. They are put together in a folder beside their place, which takes it
when all is written: a context is there whole or not at all.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

from nox_variants import dockerfile, names
from nox_variants.bake import Context
from nox_variants.dockerfile import SCRATCH, Base
from nox_variants.errors import LayoutError, UsageError, VariantsError
from nox_variants.model import SourceKind
from nox_variants.oci.layer import write_tree
from nox_variants.plan import WORKDIR

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from nox_variants.model import Digest, Image
    from nox_variants.plan import Plan
    from nox_variants.results import PreparedImage
    from nox_variants.sources import Snapshot

K = TypeVar("K")
V = TypeVar("V")

FILE = "Dockerfile"


class Images(Protocol):
    """Who gives images; see :class:`nox_variants.images.provider.Images`."""

    def prepare(self, image: Image) -> PreparedImage:
        """Return an image whose root is in the store."""

    def root(self, image: PreparedImage) -> Path:
        """Return the folder that holds a prepared image's files."""


class Sources(Protocol):
    """Who gives sources; see :class:`nox_variants.sources.Sources`."""

    def snapshot(self, folder: Path) -> Snapshot:
        """Return the snapshot of a folder."""


def once(known: dict[K, V | VariantsError], key: K, work: Callable[[K], V]) -> V:
    """Return what work gives, or raise what it raised, the first time."""
    if key not in known:
        try:
            known[key] = work(key)
        except VariantsError as error:
            known[key] = error
    found = known[key]
    if isinstance(found, VariantsError):
        raise found
    return found


class Contexts:
    """The build contexts of one export: images are prepared, archives written once.

    Args:
        images: Gives the roots that archives are made of.
        sources: Gives the source.
        policy: ``auto``, or the one source that images may come from.
        epoch: ``SOURCE_DATE_EPOCH``, in seconds since 1970.
        buildkit: Whether BuildKit builds them.
        mtime: The time of every file in an archive, in seconds since 1970.
        pool: A folder for archives, on the file system of the contexts.
    """

    def __init__(
        self,
        images: Images,
        sources: Sources,
        *,
        policy: str,
        epoch: int,
        buildkit: bool,
        mtime: int,
        pool: Path,
    ) -> None:
        self._images = images
        self._sources = sources
        self._policy = policy
        self._epoch = epoch
        self._buildkit = buildkit
        self._mtime = mtime
        self._pool = pool
        self._prepared: dict[Image, PreparedImage | VariantsError] = {}
        self._archives: dict[Digest, Path | VariantsError] = {}

    def write(self, plan: Plan, place: Path, folder: str = "") -> Context:
        """Write a variant's context; what can fail for this variant alone fails before that.

        Args:
            plan: The variant.
            place: Where all contexts are.
            folder: The context's folder there, with ``/``; a new one.

        Raises:
            ImageUnavailable: No source of an image can be used here.
            VariantsError: Anything else that is wrong with the variant.
        """
        build, run = (self._base(image) for image in (plan.build.image, plan.run.image))
        text = dockerfile.render(plan, build, run, epoch=self._epoch, buildkit=self._buildkit)
        source = self._sources.snapshot(plan.build.source).root / WORKDIR.lstrip("/")
        archives = {
            base.archive: self._archive(image)
            for base, image in ((build, plan.build.image), (run, plan.run.image))
            if base.archive
        }
        target = place / folder
        target.mkdir(parents=True)
        (target / FILE).write_text(text, encoding="utf-8")
        shutil.copytree(source, target / dockerfile.SOURCE, symlinks=True)
        for name, file in archives.items():
            _share(file, target / name)
        return Context(plan=plan, folder=folder, build=build, run=run)

    def _base(self, image: Image) -> Base:
        if self._from_registry(image):
            source = next(each for each in image.sources if each.kind is SourceKind.REGISTRY)
            return Base(
                name=image.name, reference=source.reference, setup=source.setup, user=image.user
            )
        prepared = self._prepare(image)
        if prepared.kind is SourceKind.SCRATCH:
            return Base(name=image.name, reference=SCRATCH)
        return Base(
            name=image.name,
            reference=SCRATCH,
            archive=names.archive_name(image.name),
            env=prepared.env,
            user=prepared.user,
            stand_in=prepared.stand_in,
        )

    def _from_registry(self, image: Image) -> bool:
        """Tell whether whoever builds is to pull the image.

        That is so when the registry is asked for, when there is nothing else, and when that is
        where a run takes it from.
        """
        kinds = {source.kind for source in image.sources if not source.unavailable}
        if SourceKind.REGISTRY not in kinds or self._policy not in {"auto", SourceKind.REGISTRY}:
            return False
        return (
            self._policy == SourceKind.REGISTRY
            or len(kinds) == 1
            or self._prepare(image).kind is SourceKind.REGISTRY
        )

    def _prepare(self, image: Image) -> PreparedImage:
        return once(self._prepared, image, self._images.prepare)

    def _archive(self, image: Image) -> Path:
        prepared = self._prepare(image)
        return once(self._archives, prepared.digest, lambda _: self._written(prepared))

    def _written(self, image: PreparedImage) -> Path:
        file = self._pool / f"{len(self._archives)}.tar"
        with file.open("wb") as out:
            facts = write_tree(self._images.root(image), out, mtime=self._mtime)
        if not image.blobs and facts.diff_id not in image.layers:
            raise LayoutError(
                f"image {image.name} is not what it was: its files were changed in the store",
                hint="Run the matrix with --no-cache: it is made anew.",
            )
        return file


@contextmanager
def draft(output: Path) -> Iterator[tuple[Path, Path]]:
    """Yield a folder to be made, and one for what it is made of; the first becomes the output.

    Args:
        output: A name that is free, or an empty folder.

    Raises:
        UsageError: Something is there, or the disk did not take it.
    """
    try:
        place = output.resolve()
        if place.exists() and not (place.is_dir() and not any(place.iterdir())):
            raise UsageError(
                f"--output {output}: is there already, and nothing is overwritten",
                hint="Name a new folder, or remove that one.",
            )
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=place.parent, prefix=f".{place.name}.") as name:
            pool = Path(name, "pool")
            pool.mkdir()
            made = Path(name, "made")
            yield made, pool
            if made.exists():
                made.rename(place)
    except OSError as error:
        raise UsageError(
            f"--output {output}: cannot be written: {error.strerror or error}",
            hint="Is the folder above it writable for you, and is there room?",
        ) from error


def _share(file: Path, target: Path) -> None:
    """Give a file another name where the file system can, copy it where it cannot."""
    try:
        os.link(file, target)
    except OSError:
        shutil.copyfile(file, target)
