"""Variants to a Bake file: pure JSON for `docker buildx bake`.

The Dockerfiles are those that build without Bake too: a target's ``contexts`` take the place of
the stages that several of them have in common, so that each of those is built once (Bake file
reference, "target.contexts"; `docker buildx build`, "--build-context": "When Dockerfile defines a
stage with the same name it is overwritten").
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nox_variants import names
from nox_variants.dockerfile import BUILD, RUN, base_stage

if TYPE_CHECKING:
    from collections.abc import Iterable

    from nox_variants.dockerfile import Base
    from nox_variants.plan import BuildStage, Plan
    from nox_variants.registrycache import RegistryCache

FILE = "docker-bake.json"
"""The name under which Bake finds it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """A variant's build context.

    Attributes:
        plan: The variant.
        folder: Where it is, relative to the Bake file, with ``/``.
        build: What its build image is made from.
        run: What its run image is made from.
    """

    plan: Plan
    folder: str
    build: Base
    run: Base


def render(contexts: Iterable[Context], cache: RegistryCache | None = None) -> str:
    """Return a Bake file: a target per variant, a group per program, and ``default`` for all.

    Args:
        contexts: The variants.
        cache: Where targets find layers, and leave them; None for nowhere.
    """
    file = _File()
    for context in contexts:
        file.add(context)
    groups = {"default": [*file.groups], **file.groups}
    targets = file.targets
    if cache:
        targets = {name: {**each, **_cached(cache, name)} for name, each in targets.items()}
    values = {
        "group": {name: {"targets": targets} for name, targets in groups.items()},
        "target": targets,
    }
    return json.dumps(values, indent=2) + "\n"


def _cached(cache: RegistryCache, target: str) -> dict[str, list[str]]:
    tag = names.cache_tag(target)
    found = {"cache-from": [cache.source(tag)]}
    return {**found, "cache-to": [cache.target(tag)]} if cache.write else found


class _File:
    """A Bake file in the making.

    Attributes:
        groups: Names of variants' targets, by the program's group.
        targets: What Bake builds, by name.
    """

    def __init__(self) -> None:
        self.groups: dict[str, list[str]] = {}
        self.targets: dict[str, dict[str, Any]] = {}
        self._stages: dict[BuildStage, str] = {}

    def add(self, context: Context) -> None:
        """Add a variant, and those of its stages that are not there yet."""
        variant = context.plan.variant
        run = context.plan.run
        if not run.has_own_stage:
            target = self._compiling(context)
        else:
            made = {} if run.single_stage else self._made(context, RUN)
            stages = {BUILD: f"target:{self._stage(context)}", **made}
            target = {"context": context.folder, "target": RUN, "contexts": stages}
        name = names.bake_target(variant)
        self.targets[name] = {**target, "tags": [f"{variant.program}:{names.image_tag(variant)}"]}
        self.groups.setdefault(names.bake_group(variant.program), []).append(name)

    def _stage(self, context: Context) -> str:
        """Return the target of a build stage; equal stages have one."""
        stage = context.plan.build
        if stage not in self._stages:
            name = names.bake_stage(context.plan.variant)
            self._stages[stage] = name
            self.targets[name] = self._compiling(context)
        return self._stages[stage]

    def _compiling(self, context: Context) -> dict[str, Any]:
        target: dict[str, Any] = {"context": context.folder, "target": BUILD}
        if contexts := self._made(context, BUILD):
            target["contexts"] = contexts
        return target if context.plan.build.network else {**target, "network": "none"}

    def _made(self, context: Context, role: str) -> dict[str, str]:
        """Return the context that takes the place of the stage that makes a base, if one does."""
        base = context.build if role == BUILD else context.run
        if not base.made:
            return {}
        name, stage = names.bake_image(base.name), base_stage(role)
        self.targets.setdefault(name, {"context": context.folder, "target": stage})
        return {stage: f"target:{name}"}
