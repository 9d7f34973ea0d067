"""An engine that does nothing and answers as it was told: for tests, ours and yours."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING

from nox_variants import names
from nox_variants.errors import SandboxError, VariantsError
from nox_variants.model import Digest, LinkMode, SourceKind
from nox_variants.results import (
    Artifact,
    Build,
    EngineInfo,
    EngineName,
    FileFacts,
    ImageFacts,
    Linkage,
    Observation,
    PreparedImage,
    RootFacts,
    Sizes,
    Startup,
    Step,
    VariantImage,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nox_variants.model import Image, Smoke
    from nox_variants.plan import BuildStage, Plan


@dataclass(kw_only=True)
class FakeEngine:
    """Answers from tables; what is not in a table works.

    Attributes:
        images: Errors of :meth:`prepare`, by image name.
        builds: Errors of :meth:`build`, by build image name.
        facts: Link facts of what is built, by build image name.
        seen: Observations or errors of :meth:`smoke`, by tag.
        inspected: Facts of images, by tag.
        debugged: What :meth:`debug` returns.
        calls: What was called, in order: ``("prepare", "gcc")``.
    """

    images: Mapping[str, VariantsError] = field(default_factory=dict)
    builds: Mapping[str, VariantsError] = field(default_factory=dict)
    facts: Mapping[str, FileFacts] = field(default_factory=dict)
    seen: Mapping[str, Observation | VariantsError] = field(default_factory=dict)
    inspected: Mapping[str, ImageFacts] = field(default_factory=dict)
    debugged: int = 0
    calls: list[tuple[str, str]] = field(default_factory=list)
    cancelled: threading.Event = field(default_factory=threading.Event)
    _built: set[str] = field(default_factory=set)
    _inspected: dict[str, ImageFacts] = field(default_factory=dict)

    def probe(self) -> EngineInfo:
        """Return a version that no real engine has."""
        return EngineInfo(name=EngineName.EMBEDDED, version="0-fake")

    def prepare(self, image: Image) -> PreparedImage:
        """Return an image of one layer."""
        self.calls.append(("prepare", image.name))
        if image.name in self.images:
            raise self.images[image.name]
        digest = _digest(image.name)
        return PreparedImage(
            name=image.name,
            kind=SourceKind.APT,
            reference="fake",
            digest=digest,
            stand_in=True,
            packages=("libc6=1",),
            layers=(digest,),
            content=1000,
        )

    def build(self, stage: BuildStage, image: PreparedImage) -> Build:
        """Return static or dynamic artifacts, as the stage's commands say."""
        self._begin("build", f"{image.name}: {' && '.join(stage.commands)}")
        if image.name in self.builds:
            raise self.builds[image.name]
        artifacts = tuple(
            Artifact(
                path=path,
                file=stage.source,
                size=100,
                digest=_digest(path),
                facts=self.facts.get(image.name, _facts(stage)),
            )
            for path in stage.artifacts
        )
        key = _digest(repr(stage))
        cached = key in self._built
        self._built.add(key)
        return Build(key=key, artifacts=artifacts, seconds=0.5, cached=cached)

    def assemble(self, plan: Plan, base: PreparedImage, build: Build) -> VariantImage:
        """Return an image of the base's layers and one more, or two for a single-stage image."""
        tag = names.image_tag(plan.variant)
        self.calls.append(("assemble", tag))
        size = build.artifacts[0].size
        self._inspected[f"{plan.variant.program}:{tag}"] = _found(
            build.artifacts[0].facts, plan.run.cmd[0]
        )
        added = ("source", build.key) if plan.run.single_stage else (build.key,)
        layers = (*base.layers, *map(_digest, added))
        env = (*base.env, *plan.run.env)
        return VariantImage(
            config_digest=_digest(repr((layers, plan.run.cmd, env, plan.run.workdir))),
            tag=f"{plan.variant.program}:{tag}",
            path=f"images/{tag}",
            layers=layers,
            sizes=Sizes(
                binary=size,
                content=base.content + size,
                above_base=size,
                transfer=(base.content + size) // 2 if plan.transfer else None,
            ),
            cmd=plan.run.cmd,
            env=env,
            workdir=plan.run.workdir,
        )

    def resolve(self, plan: Plan, base: PreparedImage, build: Build) -> Plan:  # noqa: ARG002
        """Return the plan as it is: what is built here needs nothing."""
        return plan

    def smoke(self, image: VariantImage, smoke: Smoke) -> Observation:
        """Return the observation of the table, or one that is as expected."""
        self._begin("smoke", image.tag)
        answer = self.seen.get(image.tag)
        if isinstance(answer, VariantsError):
            raise answer
        return answer or Observation(
            started=True, exit_code=smoke.exit_code, stdout=smoke.stdout or "", seconds=0.01
        )

    def inspect(self, image: VariantImage) -> ImageFacts:
        """Return the facts of the table, or an image in which everything is found."""
        self.calls.append(("inspect", image.tag))
        return self.inspected.get(image.tag) or self._inspected[image.tag]

    def debug(
        self,
        image: VariantImage,
        smoke: Smoke,  # noqa: ARG002  # the contract's
        tools: PreparedImage,
        command: tuple[str, ...],
        *,
        terminal: str,
    ) -> int:
        """Return the exit code that it was told."""
        words = (tools.name, terminal, *command)
        self._begin("debug", f"{image.tag}: {' '.join(filter(None, words))}")
        return self.debugged

    def cancel(self) -> None:
        """Let nothing new start."""
        self.cancelled.set()

    def _begin(self, what: str, name: str) -> None:
        self.calls.append((what, name))
        if self.cancelled.is_set():
            raise SandboxError("cancelled")

    def close(self) -> None:
        """Take note."""
        self.calls.append(("close", ""))


def _facts(stage: BuildStage) -> FileFacts:
    if any(LinkMode.STATIC in line or LinkMode.MUSL in line for line in stage.commands):
        return FileFacts(linkage=Linkage.STATIC, machine="x86_64", bits=64)
    return FileFacts(
        linkage=Linkage.GLIBC_DYNAMIC,
        machine="x86_64",
        bits=64,
        interpreter="/lib64/ld-linux-x86-64.so.2",
        needed=("libc.so.6",),
        glibc="2.34",
    )


def _found(facts: FileFacts, path: str) -> ImageFacts:
    loader = Step(path=facts.interpreter, facts=FileFacts(linkage=Linkage.STATIC), executable=True)
    startup = Startup(
        steps=(Step(path=path, facts=facts, executable=True),),
        loader=loader if facts.interpreter else None,
    )
    return ImageFacts(root=RootFacts(), startup=startup)


def _digest(text: str) -> Digest:
    return Digest(f"sha256:{sha256(text.encode()).hexdigest()}")
