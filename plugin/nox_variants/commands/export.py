"""Write variants' images as archives that container engines load, or as what they build from.

`docker load`, podman and skopeo take a docker-archive; an OCI archive is a tar of a plain OCI
image layout. For these, images are prepared and programs compiled where the store does not have
them yet. Dockerfiles and Bake files come in folders with all that they need; nothing is compiled
for them, but for variants that bring their libraries: which those are, the built program says.
Nothing is smoke-run.
"""

from __future__ import annotations

import os
import shlex
import sys
import threading
from contextlib import ExitStack
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from nox_variants import bake, commands, names
from nox_variants.buildcontext import FILE, Contexts, draft, once
from nox_variants.errors import (
    BuildFailed,
    EngineUnavailable,
    ImageUnavailable,
    UsageError,
    VariantsError,
)
from nox_variants.options import IMAGES
from nox_variants.plan import make_plans

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterable, Sequence

    from nox_variants.model import Image, Settings, Variant
    from nox_variants.options import Options
    from nox_variants.plan import BuildStage, Plan
    from nox_variants.registrycache import RegistryCache
    from nox_variants.results import Build, PreparedImage, VariantImage


class Format(StrEnum):
    """What is written."""

    DOCKER_ARCHIVE = "docker-archive"
    OCI = "oci"
    DOCKERFILE = "dockerfile"
    BAKE = "bake"

    @property
    def built(self) -> bool:
        """Whether images are built for it; the others are what images are built from."""
        return self in {Format.DOCKER_ARCHIVE, Format.OCI}


class Exporter(Protocol):
    """What export needs of an engine; see :mod:`nox_variants.engines.protocol`."""

    def prepare(self, image: Image) -> PreparedImage:
        """Bring an image to this machine."""

    def build(self, stage: BuildStage, image: PreparedImage) -> Build:
        """Compile a stage, or take it from the cache."""

    def assemble(self, plan: Plan, base: PreparedImage, build: Build) -> VariantImage:
        """Make the variant's image."""

    def resolve(self, plan: Plan, base: PreparedImage, build: Build) -> Plan:
        """Return a plan that copies the libraries of its bundle, too."""

    def export(self, image: VariantImage, base: PreparedImage, file: Path, *, docker: bool) -> None:
        """Write an assembled image as a complete archive, with what `docker load` needs or not."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("ids", nargs="*", metavar="ID", help='a variant, "hello-c(scratch,static)"')
    parser.add_argument("--all", action="store_true", help="every variant")
    parser.add_argument(
        "--format",
        type=Format,
        choices=tuple(Format),
        default=Format.DOCKER_ARCHIVE,
        help="what is written (default: %(default)s)",
    )
    parser.add_argument(
        "--output",
        type=Path,
        required=True,
        metavar="PATH",
        help="the archive, or a new folder for a Dockerfile; PATH/PROGRAM/TAG for several variants",
    )
    parser.add_argument(
        "--images",
        choices=IMAGES,
        help="the only source images may come from (NOX_VARIANTS_IMAGES); with registry, a"
        " Dockerfile names all images that have a reference, and nothing is prepared",
    )
    parser.add_argument(
        "--classic",
        action="store_true",
        help="a Dockerfile for builders without BuildKit: no mounts, no caches",
    )


def run(args: argparse.Namespace) -> int:
    """Export what the arguments name.

    Returns:
        0, or 1 when a variant could not be exported.
    """
    from nox_variants import matrix, options  # noqa: PLC0415  # not for --help

    check(args.ids, every=args.all, kind=args.format, classic=args.classic)
    settings = commands.settings(args)
    chosen = matrix.select(matrix.expand(settings).variants, only=tuple(args.ids))
    given = ("--images", args.images) if args.images else ()
    parsed = options.parse(given, os.environ, prog="nox-variants export")
    if isinstance(parsed, str):  # the help, which nobody asked for
        raise TypeError(parsed)
    if not args.format.built:
        return _contexts(args, settings, make_plans(settings, chosen), parsed)
    return _archives(args, settings, chosen, parsed)


def check(ids: Sequence[str], *, every: bool, kind: Format, classic: bool = False) -> None:
    """Refuse what cannot be meant.

    Raises:
        UsageError: Always with what to do instead.
    """
    if every == bool(ids):
        raise UsageError(
            f"export: {'ids and --all' if every else 'no variant'} given",
            hint='Give ids, such as "hello-c(scratch,static)", or --all.',
        )
    if classic and kind is not Format.DOCKERFILE:
        raise UsageError(
            f"--classic: has no meaning for --format {kind}",
            hint=f"Choose --format {Format.DOCKERFILE}, or leave it out.",
        )


def _archives(
    args: argparse.Namespace, settings: Settings, chosen: Sequence[Variant], options: Options
) -> int:
    from nox_variants import invocation  # noqa: PLC0415  # not for --help

    engine = invocation.open_engine(settings, options, environ=os.environ, progress=_note)
    export = Export(engine, kind=args.format, lenient=args.all)
    try:
        engine.probe()
        return export.run(settings, chosen, args.output)
    finally:
        engine.cancel()


def _contexts(
    args: argparse.Namespace, settings: Settings, plans: Sequence[Plan], options: Options
) -> int:
    """Write build contexts, and a Bake file beside them where one is asked for."""
    from nox_variants import invocation  # noqa: PLC0415  # not for --help
    from nox_variants.images.provider import EPOCH, Images  # noqa: PLC0415
    from nox_variants.sources import Sources  # noqa: PLC0415
    from nox_variants.store import Store, default_home  # noqa: PLC0415

    store = Store(default_home(os.environ))
    images = Images(
        store,
        policy=options.images,
        refresh=False,
        progress=_note,
        cancelled=threading.Event(),
        root=settings.root,
        host=invocation.host_platform(),
        environ=os.environ,
    )
    with ExitStack() as ending, draft(args.output) as (place, pool):

        def engine() -> Exporter:
            opened = invocation.open_engine(settings, options, environ=os.environ, progress=_note)
            ending.callback(opened.cancel)
            opened.probe()
            return opened

        contexts = Contexts(
            images,
            Sources(store, roots=settings.roots),
            policy=options.images,
            epoch=invocation.source_date_epoch(os.environ),
            buildkit=not args.classic,
            mtime=EPOCH,
            pool=pool,
        )
        written, status = write_contexts(
            contexts,
            plans,
            place,
            kind=args.format,
            every=args.all,
            bundles=Bundles(engine),
            cache=settings.cache,
        )
    for name, folder in written.items():
        print(f"{name}: {args.output / folder / FILE}")
    if written and args.format is Format.BAKE:
        print(f"cd {shlex.quote(str(args.output))} && docker buildx bake")
    return status


def write_contexts(
    contexts: Contexts,
    plans: Sequence[Plan],
    place: Path,
    *,
    kind: Format,
    every: bool,
    bundles: Bundles,
    cache: RegistryCache | None = None,
) -> tuple[dict[str, str], int]:
    """Write build contexts in a folder, and go on after failures.

    Args:
        contexts: Writes one.
        plans: The variants.
        place: The folder, which is not there yet.
        kind: Dockerfiles only, or a Bake file too.
        every: Whether all variants are meant, and one that cannot be had here is no failure.
        bundles: Finds the libraries that variants bring.
        cache: Where the targets of a Bake file find layers, and leave them.

    Returns:
        Folders by variant, and the exit code.
    """
    alone = kind is Format.DOCKERFILE and len(plans) == 1 and not every
    written: list[bake.Context] = []

    def write(plan: Plan) -> None:
        where = "" if alone else folder(plan.variant)
        written.append(contexts.write(bundles.resolve(plan), place, where))

    failed = _each(plans, write, lenient=every)
    if written and kind is Format.BAKE:
        (place / bake.FILE).write_text(bake.render(written, cache), encoding="utf-8")
    return {each.plan.variant.id: each.folder for each in written}, int(failed)


def folder(variant: Variant) -> str:
    """Return ``PROGRAM/TAG``: where a variant goes among several."""
    return f"{names.file_name(variant.program)}/{names.image_tag(variant)}"


def targets(variants: Sequence[Variant], output: Path) -> dict[str, Path]:
    """Return where each variant's archive goes, by id.

    Raises:
        UsageError: Several variants cannot be one file.
    """
    if len(variants) == 1 and not output.is_dir():
        return {variants[0].id: output}
    if output.exists() and not output.is_dir():
        raise UsageError(
            f"--output {output}: is a file, and {len(variants)} variants need a folder",
            hint="Name a folder, or one variant.",
        )
    return {variant.id: output / f"{folder(variant)}.tar" for variant in variants}


@dataclass
class Export:
    """One export: images are prepared and stages compiled once.

    Attributes:
        engine: What does it.
        kind: What is written.
        lenient: Whether a variant that cannot be had here is no failure.
    """

    engine: Exporter
    kind: Format
    lenient: bool = False
    _images: dict[Image, PreparedImage | VariantsError] = field(default_factory=dict)
    _builds: dict[BuildStage, Build | VariantsError] = field(default_factory=dict)

    def run(self, settings: Settings, variants: Sequence[Variant], output: Path) -> int:
        """Export variants, go on after failures, and return the exit code."""
        files = targets(variants, output)

        def write(plan: Plan) -> None:
            name = plan.variant.id
            self._write(plan, files[name])
            print(f"{name}: {files[name]}")

        return int(_each(make_plans(settings, variants), write, lenient=self.lenient))

    def resolve(self, plan: Plan) -> Plan:
        """Compile a variant, and return its plan with the libraries of its bundle."""
        return self.engine.resolve(plan, self._prepared(plan.run.image), self._built(plan.build))

    def _write(self, plan: Plan, file: Path) -> None:
        base = self._prepared(plan.run.image)
        image = self.engine.assemble(plan, base, self._built(plan.build))
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"--output {file}: {error.strerror}") from error
        self.engine.export(image, base, file, docker=self.kind is Format.DOCKER_ARCHIVE)

    def _prepared(self, image: Image) -> PreparedImage:
        return once(self._images, image, self.engine.prepare)

    def _built(self, stage: BuildStage) -> Build:
        return once(self._builds, stage, self._build)

    def _build(self, stage: BuildStage) -> Build:
        try:
            return self.engine.build(stage, self._prepared(stage.image))
        except BuildFailed as error:
            _note(error.log.rstrip())
            raise


class Bundles:
    """Finds the libraries that variants bring; a plan without a bundle needs no engine.

    Args:
        engine: Opens the engine that compiles them.
    """

    def __init__(self, engine: Callable[[], Exporter]) -> None:
        self._engine = engine
        self._export: Export | None = None

    def resolve(self, plan: Plan) -> Plan:
        """Return a plan with the libraries of its bundle.

        Raises:
            UsageError: There is no engine here that finds them.
        """
        if not plan.run.bundle:
            return plan
        if self._export is None:
            try:
                self._export = Export(self._engine(), kind=Format.DOCKERFILE)
            except EngineUnavailable as error:
                raise UsageError(
                    f"which libraries it brings is known when it is built: {error.message}",
                    hint="Export it where the embedded engine works, or without libs: bundle.",
                ) from error
        return self._export.resolve(plan)


def _each(plans: Iterable[Plan], write: Callable[[Plan], None], *, lenient: bool) -> bool:
    """Write each variant, say what went wrong, and return whether that makes the command fail."""
    failed = False
    for plan in plans:
        try:
            write(plan)
        except ImageUnavailable as error:
            _note(f"{plan.variant.id}: skipped: {error}")
            failed |= not lenient
        except VariantsError as error:
            _note(f"{plan.variant.id}: not exported: {error}")
            failed = True
    return failed


def _note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
