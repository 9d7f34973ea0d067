"""Variants to plans: pure. Says what has to be done, not who does it."""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nox_variants.model import Libs

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from nox_variants.model import Image, Language, Pairs, Program, Settings, Smoke, Variant

WORKDIR = "/src"
"""Where every build stage has its source. Always set: golang's own WORKDIR is /go, others' is /."""


SHELL = ("/bin/sh", "-c")
"""What runs a command in shell form (Dockerfile reference, "CMD")."""

_PLACEHOLDER = re.compile(r"(?<!\$)\{(artifact|program)\}")


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildStage:
    """What has to be compiled, where and how. Equal stages are equal values: that is the sharing.

    Attributes:
        image: The build image.
        source: The source folder on this machine.
        workdir: Where the source stands in the build image, and where commands run.
        commands: Shell commands, in order, each with ``/bin/sh -c``.
        env: Environment of the commands, on top of the image's.
        caches: Folders kept between builds.
        artifacts: Absolute paths that the build must make.
        network: Whether commands may use the network.
    """

    image: Image
    source: Path
    workdir: str
    commands: tuple[str, ...]
    env: Pairs
    caches: tuple[str, ...]
    artifacts: tuple[str, ...]
    network: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class CopiedFile:
    """A file copied from the build stage into the run image. Both paths are absolute."""

    source: str
    target: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStage:
    """The image that ships.

    Attributes:
        image: The run image.
        files: What is copied from the build stage; empty for a single-stage image.
        env: Environment of the image's configuration, on top of the base's.
        workdir: Working directory of the image's configuration.
        cmd: The command, exec form; one in shell form begins with :data:`SHELL`.
        bundle: Whether the loader and the libraries that the artifact needs are copied, too; which
            they are is known when it was built.
        single_stage: Whether this is the build stage itself.
    """

    image: Image
    files: tuple[CopiedFile, ...]
    env: Pairs
    workdir: str
    cmd: tuple[str, ...]
    bundle: bool
    single_stage: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Everything a variant needs done, without an engine."""

    variant: Variant
    language: Language
    build: BuildStage
    run: RunStage
    smoke: Smoke


def make_plans(settings: Settings, variants: Iterable[Variant]) -> tuple[Plan, ...]:
    """Return one plan per variant, in the same order.

    Args:
        settings: The file that the variants come from.
        variants: Any selection of its variants.
    """
    programs = {program.name: program for program in settings.programs}
    images = {image.name: image for image in settings.images}
    return tuple(_plan(programs[variant.program], images, variant) for variant in variants)


def _plan(program: Program, images: dict[str, Image], variant: Variant) -> Plan:
    recipe = program.language.recipe(variant.link)
    if recipe is None:  # the configuration was checked for it
        raise AssertionError(variant)
    artifact = program.language.artifact.replace("{program}", program.name)
    target = f"/{posixpath.basename(artifact)}"
    build = BuildStage(
        image=images[variant.build_image],
        source=program.source,
        workdir=WORKDIR,
        commands=tuple(line.replace("{program}", program.name) for line in recipe.commands),
        env=recipe.env,
        caches=program.language.caches,
        artifacts=(artifact,),
        network=program.network,
    )
    single = variant.single_stage
    run = RunStage(
        image=images[variant.run_image],
        files=() if single else (CopiedFile(source=artifact, target=target),),
        env=(),
        workdir=WORKDIR if single else "/",
        cmd=_command(program, artifact if single else target),
        bundle=variant.libs is Libs.BUNDLE,
        single_stage=single,
    )
    return Plan(
        variant=variant, language=program.language, build=build, run=run, smoke=program.smoke
    )


def _command(program: Program, artifact: str) -> tuple[str, ...]:
    """Return a program's command in the image that has its artifact at a path."""
    stands_for = {"artifact": artifact, "program": program.name}

    def filled(word: str) -> str:
        return _PLACEHOLDER.sub(lambda found: stands_for[found[1]], word)

    match program.cmd:
        case None:
            return (artifact,)
        case str(text):
            return (*SHELL, filled(text))
        case words:
            return tuple(map(filled, words))
