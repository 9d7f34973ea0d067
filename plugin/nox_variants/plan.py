"""Variants to plans: pure. Says what has to be done, not who does it."""

from __future__ import annotations

import posixpath
import re
import shlex
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from nox_variants import names
from nox_variants.limits import Measure
from nox_variants.model import CopiedFile, Libs

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from nox_variants.model import (
        Image,
        Language,
        Pairs,
        Program,
        Recipe,
        Settings,
        Smoke,
        Variant,
    )

WORKDIR = "/src"
"""Where every build stage has its source. Always set: golang's own WORKDIR is /go, others' is /."""


SHELL = ("/bin/sh", "-c")
"""What runs a command in shell form (Dockerfile reference, "CMD")."""

_PLACEHOLDER = re.compile(r"(?<!\$)\{(artifact|program)\}")
_FLAGS = re.compile(r" ?(?<!\$)\{flags\}")


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
        artifacts: Absolute paths that the build must make, the program's own first.
        files: Absolute paths of what else is taken out of its root.
        network: Whether commands may use the network.
        name: What it is called where several machines meet: no part of what it is.
    """

    image: Image
    source: Path
    workdir: str
    commands: tuple[str, ...]
    env: Pairs
    caches: tuple[str, ...]
    artifacts: tuple[str, ...]
    network: bool
    files: tuple[str, ...] = ()
    name: str = field(default="", compare=False)

    @property
    def outputs(self) -> tuple[str, ...]:
        """All that is taken out of its root."""
        return (*self.artifacts, *self.files)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStage:
    """The image that ships.

    Attributes:
        image: The run image.
        files: What is copied from the build stage: without the artifacts, and without what is in
            its place already, for a single-stage image.
        install: Shell commands run after that, in the image itself.
        network: Whether those may use the network.
        env: Environment of the image's configuration, on top of the base's.
        workdir: Working directory of the image's configuration.
        entrypoint: What the image starts with the command for arguments; empty for none.
        cmd: The command, exec form; one in shell form begins with :data:`SHELL`.
        user: Who runs it; empty for the base's.
        labels: Of the image.
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
    install: tuple[str, ...] = ()
    network: bool = True
    entrypoint: tuple[str, ...] = ()
    user: str = ""
    labels: Pairs = ()

    @property
    def has_own_stage(self) -> bool:
        """Whether it is more than the build stage with a command."""
        return not self.single_stage or bool(self.files or self.install)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Everything a variant needs done, without an engine.

    Attributes:
        variant: The variant.
        language: What its program is written in.
        build: What has to be compiled.
        run: The image that ships.
        smoke: How it is tried.
        transfer: Whether the compressed size of its image is worked out, which takes a while.
    """

    variant: Variant
    language: Language
    build: BuildStage
    run: RunStage
    smoke: Smoke
    transfer: bool = False


def make_plans(
    settings: Settings, variants: Iterable[Variant], *, transfer: bool = False
) -> tuple[Plan, ...]:
    """Return one plan per variant, in the same order.

    Args:
        settings: The file that the variants come from.
        variants: Any selection of its variants.
        transfer: Whether the compressed size of every image is worked out; without it, of those
            that have a budget of it.
    """
    programs = {program.name: program for program in settings.programs}
    images = {image.name: image for image in settings.images}
    return tuple(
        _plan(
            programs[variant.program],
            images,
            variant,
            transfer=transfer or any(each.measure is Measure.TRANSFER for each in variant.limits),
        )
        for variant in variants
    )


def _plan(program: Program, images: dict[str, Image], variant: Variant, *, transfer: bool) -> Plan:
    recipe = program.language.recipe(variant.link)
    if recipe is None:  # the configuration was checked for it
        raise AssertionError(variant)
    options, single = program.options, variant.single_stage
    artifacts = options.artifacts or (program.language.artifact,)
    artifacts = tuple(path.replace("{program}", program.name) for path in artifacts)
    places = tuple(path if single else f"/{posixpath.basename(path)}" for path in artifacts)
    copied = tuple(map(CopiedFile, artifacts, places))
    files = tuple(
        CopiedFile(posixpath.join(WORKDIR, each.source), each.target) for each in options.files
    )
    words = _Words(program.name, places[0])
    build = BuildStage(
        image=images[variant.build_image],
        source=program.source,
        workdir=WORKDIR,
        commands=_commands(program, recipe, artifacts[0]),
        env=_merged(recipe.env, options.build_env),
        caches=program.language.caches,
        artifacts=artifacts,
        network=program.network,
        files=tuple(dict.fromkeys(each.source for each in files)),
        name=names.bake_stage(variant),
    )
    run = RunStage(
        image=images[variant.run_image],
        # What a build makes stands in its place in a single-stage image.
        files=tuple(
            each for each in (*copied, *files) if not (single and each.source == each.target)
        ),
        install=tuple(map(words.filled, recipe.install)),
        network=program.network,
        env=options.env,
        workdir=WORKDIR if single else "/",
        entrypoint=tuple(map(words.filled, options.entrypoint or ())),
        cmd=_command(program, words),
        user=options.user,
        labels=options.labels,
        bundle=variant.libs is Libs.BUNDLE,
        single_stage=single,
    )
    return Plan(
        variant=variant,
        language=program.language,
        build=build,
        run=run,
        smoke=program.smoke,
        transfer=transfer,
    )


def _merged(under: Pairs, over: Pairs) -> Pairs:
    return tuple((dict(under) | dict(over)).items())


def _commands(program: Program, recipe: Recipe, artifact: str) -> tuple[str, ...]:
    """Return the commands that build a program, its flags in them."""
    flags = f" {shlex.join(program.options.flags)}" if program.options.flags else ""
    commands = [_FLAGS.sub(lambda _: flags, line) for line in recipe.commands]
    if program.options.strip:
        commands.append(program.language.strip.replace("{artifact}", shlex.quote(artifact)))
    return tuple(line.replace("{program}", program.name) for line in commands)


@dataclass(frozen=True, slots=True)
class _Words:
    """What placeholders stand for in an image: the program's name, the artifact's path."""

    program: str
    artifact: str

    def filled(self, word: str) -> str:
        return _PLACEHOLDER.sub(lambda found: getattr(self, found[1]), word)


def _command(program: Program, words: _Words) -> tuple[str, ...]:
    """Return a program's command: its own, or the language's where nothing else starts it."""
    match program.cmd:
        case None:
            if program.options.entrypoint is not None:
                return ()
            return tuple(map(words.filled, program.language.cmd or ("{artifact}",)))
        case str(text):
            return (*SHELL, words.filled(text))
        case parts:
            return tuple(map(words.filled, parts))
