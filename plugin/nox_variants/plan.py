"""Variants to plans: pure. Says what has to be done, not who does it."""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING

from nox_variants.model import BuildStage, CopiedFile, Plan, RunStage

if TYPE_CHECKING:
    from collections.abc import Iterable

    from nox_variants.model import Image, Program, Settings, Variant

WORKDIR = "/src"
"""Where every build stage has its source. Always set: golang's own WORKDIR is /go, others' is /."""


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
        cmd=(artifact if single else target,),
        single_stage=single,
    )
    return Plan(
        variant=variant, language=program.language, build=build, run=run, smoke=program.smoke
    )
