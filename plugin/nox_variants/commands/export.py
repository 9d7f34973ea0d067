"""Write variants' images as complete archives that container engines load.

`docker load`, podman and skopeo take a docker-archive; an OCI archive is a tar of a plain OCI
image layout. Images are prepared and programs compiled where the store does not have them yet;
nothing is smoke-run.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

from nox_variants import commands, names
from nox_variants.errors import BuildFailed, ImageUnavailable, UsageError, VariantsError
from nox_variants.plan import make_plans

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence

    from nox_variants.model import Image, Settings, Variant
    from nox_variants.plan import BuildStage, Plan
    from nox_variants.results import Build, PreparedImage, VariantImage

K = TypeVar("K")
V = TypeVar("V")


class Format(StrEnum):
    """What is written."""

    DOCKER_ARCHIVE = "docker-archive"
    OCI = "oci"
    DOCKERFILE = "dockerfile"
    BAKE = "bake"


class Exporter(Protocol):
    """What export needs of an engine; see :mod:`nox_variants.engines.protocol`."""

    def prepare(self, image: Image) -> PreparedImage:
        """Bring an image to this machine."""

    def build(self, stage: BuildStage, image: PreparedImage) -> Build:
        """Compile a stage, or take it from the cache."""

    def assemble(self, plan: Plan, base: PreparedImage, build: Build) -> VariantImage:
        """Make the variant's image."""

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
        help="the archive; for several variants, or where it is a folder: PATH/PROGRAM/TAG.tar",
    )


def run(args: argparse.Namespace) -> int:
    """Export what the arguments name.

    Returns:
        0, or 1 when a variant could not be exported.
    """
    from nox_variants import invocation, matrix, options  # noqa: PLC0415  # not for --help

    check(args.ids, every=args.all, kind=args.format)
    settings = commands.settings(args)
    chosen = matrix.select(matrix.expand(settings).variants, only=tuple(args.ids))
    parsed = options.parse((), os.environ, prog="nox-variants export")
    if isinstance(parsed, str):  # the help, which nobody asked for
        raise TypeError(parsed)
    engine = invocation.open_engine(settings, parsed, environ=os.environ, progress=_note)
    export = Export(engine, kind=args.format, lenient=args.all)
    try:
        engine.probe()
        return export.run(settings, chosen, args.output)
    finally:
        engine.cancel()


def check(ids: Sequence[str], *, every: bool, kind: Format) -> None:
    """Refuse what cannot be meant, or cannot be done yet.

    Raises:
        UsageError: Always with what to do instead.
    """
    if every == bool(ids):
        raise UsageError(
            f"export: {'ids and --all' if every else 'no variant'} given",
            hint='Give ids, such as "hello-c(scratch,static)", or --all.',
        )
    if kind not in {Format.DOCKER_ARCHIVE, Format.OCI}:
        raise UsageError(
            f"--format {kind}: not supported by this version",
            hint=f"Choose {Format.DOCKER_ARCHIVE} or {Format.OCI}.",
        )


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
    return {
        variant.id: output / names.file_name(variant.program) / f"{names.image_tag(variant)}.tar"
        for variant in variants
    }


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
        failed = False
        for plan in make_plans(settings, variants):
            failed |= not self._one(plan, files[plan.variant.id])
        return int(failed)

    def _one(self, plan: Plan, file: Path) -> bool:
        """Export a variant, say how it went, and return whether that is all right."""
        name = plan.variant.id
        try:
            self._write(plan, file)
        except ImageUnavailable as error:
            _note(f"{name}: skipped: {error}")
            return self.lenient
        except VariantsError as error:
            _note(f"{name}: not exported: {error}")
            return False
        print(f"{name}: {file}")
        return True

    def _write(self, plan: Plan, file: Path) -> None:
        base = self._prepared(plan.run.image)
        image = self.engine.assemble(plan, base, self._built(plan.build))
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"--output {file}: {error.strerror}") from error
        self.engine.export(image, base, file, docker=self.kind is Format.DOCKER_ARCHIVE)

    def _prepared(self, image: Image) -> PreparedImage:
        return _once(self._images, image, self.engine.prepare)

    def _built(self, stage: BuildStage) -> Build:
        return _once(self._builds, stage, self._build)

    def _build(self, stage: BuildStage) -> Build:
        try:
            return self.engine.build(stage, self._prepared(stage.image))
        except BuildFailed as error:
            _note(error.log.rstrip())
            raise


def _once(known: dict[K, V | VariantsError], key: K, work: Callable[[K], V]) -> V:
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


def _note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
