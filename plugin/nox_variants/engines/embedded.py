"""The embedded engine: no daemon, no root. A store, bubblewrap, and OCI images as values."""

from __future__ import annotations

import platform
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

from nox_variants import elf, rootfs
from nox_variants.engines.assembly import (
    Assembled,
    Assembler,
    artifacts,
    blob,
    with_transfer,
    write_archive,
)
from nox_variants.engines.bundling import libraries, with_libraries
from nox_variants.engines.compiling import Compiler
from nox_variants.engines.inspection import Files, Inspector, shipped
from nox_variants.results import EngineInfo, EngineName, Linkage, Observation
from nox_variants.sandbox import bubblewrap, probes
from nox_variants.sandbox.program import HOSTS, NO_RESOLVER, Program, run_program
from nox_variants.sources import Sources

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from nox_variants.engines.bundling import Bundled
    from nox_variants.engines.protocol import Images
    from nox_variants.model import Image, Smoke
    from nox_variants.plan import BuildStage, Plan
    from nox_variants.results import Build, ImageFacts, PreparedImage, Step, VariantImage
    from nox_variants.sandbox.probes import Fixtures
    from nox_variants.store import Store

_SKELETON = "skeleton-1"
_FOLDERS = ("proc", "dev", "sys", "tmp", "etc")
_FILES = {
    "etc/hostname": f"{bubblewrap.HOSTNAME}\n",
    "etc/hosts": HOSTS,
    "etc/resolv.conf": NO_RESOLVER,
}
"""What a container engine adds to an image when it runs it without a network."""


_SIBLINGS = {"x86_64": "i686", "aarch64": "arm"}
"""Machines whose kernels run another machine's programs too, as a rule."""


class EmbeddedEngine:
    """Builds and runs plans with the store and bubblewrap.

    Args:
        store: Where everything is kept.
        images: Gives run and build images.
        roots: The folders of the project's files: no source leads out of its own.
        output: The project's folder, for layouts.
        use_cache: Whether builds of earlier runs are good.
        epoch: ``SOURCE_DATE_EPOCH``, in seconds since 1970.
        host: ``linux/amd64``: what is built and run here.
        cancelled: Ends everything when it is set.
    """

    def __init__(
        self,
        *,
        store: Store,
        images: Images,
        roots: tuple[Path, ...],
        output: Path,
        use_cache: bool,
        epoch: int,
        host: str,
        cancelled: threading.Event,
    ) -> None:
        self._store = store
        self._images = images
        self._cancelled = cancelled
        self._sources = Sources(store, roots=roots)
        self._compiler = Compiler(
            store=store, epoch=epoch, platform=host, use_cache=use_cache, cancelled=cancelled
        )
        self._assembler = Assembler(store, output, epoch=epoch, platform=host, cancelled=cancelled)
        self._lock = threading.Lock()
        self._assembled: dict[str, Assembled] = {}
        self._files: dict[str, Files] = {}
        self._inspector = Inspector(store)
        self._prepared: dict[Image, PreparedImage] = {}

    def probe(self) -> EngineInfo:
        """Start a sandbox once and return the version of bubblewrap."""
        return EngineInfo(name=EngineName.EMBEDDED, version=bubblewrap.probe())

    def prepare(self, image: Image) -> PreparedImage:
        """Unpack an image into the store, once."""
        self._prepared[image] = self._images.prepare(image)
        return self._prepared[image]

    def build(self, stage: BuildStage, image: PreparedImage) -> Build:
        """Compile a stage in the sandbox, or take it from the store."""
        source = self._sources.snapshot(stage.source)
        return self._compiler.build(stage, image, self._images.root(image), source)

    def assemble(self, plan: Plan, base: PreparedImage, build: Build) -> VariantImage:
        """Write the variant's layout; its layers are made once."""
        source = self._sources.snapshot(plan.build.source)
        bundle = self._bundle(plan, base, build)
        plan = with_libraries(plan, bundle)
        root = self._images.root(base)
        made = self._assembler.assemble(plan, base, root, build, source, bundle=bundle)
        if plan.transfer:
            made = self._with_transfer(plan, base, made)
        files = Files(
            base=base.digest,
            root=lambda: root,
            layers=tuple(layer.root for layer in made.layers),
            artifacts=shipped(plan, build),
        )
        with self._lock:
            self._assembled[made.image.config_digest] = made
            self._files[made.image.config_digest] = files
        return made.image

    def _with_transfer(self, plan: Plan, base: PreparedImage, made: Assembled) -> Assembled:
        """Work out the size of the layers as they travel: the base's, and gzip of the others."""
        below = self._images.transfers(plan.run.image, base)
        if below is None:
            return made
        name = str(plan.variant.id)
        own = [self._images.compressed(name, blob(layer)) for layer in made.layers]
        return replace(made, image=with_transfer(made.image, sum(below) + sum(own)))

    def resolve(self, plan: Plan, base: PreparedImage, build: Build) -> Plan:
        """Find the libraries of the plan's bundle in its build image."""
        return with_libraries(plan, self._bundle(plan, base, build))

    def _bundle(self, plan: Plan, base: PreparedImage, build: Build) -> tuple[Bundled, ...]:
        if not plan.run.bundle:
            return ()
        beside = self._assembler.files(artifacts(build)).root
        where = (self._images.root(self._prepared[plan.build.image]), beside)
        return libraries(where, plan.build.artifacts, base.env)

    def smoke(self, image: VariantImage, smoke: Smoke) -> Observation:
        """Run the image's command in bubblewrap.

        The kernel's own checks come first: bwrap would hand a file that it cannot execute to
        ``/bin/sh``, as execvp does and no container engine.
        """
        lower = self._files[image.config_digest].lower
        if not _executable_format(lower, self.inspect(image).startup.steps):
            return Observation(
                started=False, exec_error="exec format error", service=probes.not_started(smoke)
            )
        fixtures = probes.fixtures(smoke)
        program = Program(
            lower=(*lower, self._skeleton()),
            argv=(*image.argv, *smoke.args),
            user=image.user,
            env=(*image.env, *smoke.env),
            workdir=image.workdir,
            files=tuple(self._laid_over(image, fixtures)) if fixtures else (),
            fixtures=fixtures,
        )
        return run_program(program, smoke, self._cancelled)

    def _laid_over(self, image: VariantImage, fixtures: Fixtures) -> Iterator[tuple[str, bytes]]:
        """Yield what a run with fixtures lays over the image's files and the skeleton's."""
        if fixtures.names:
            yield "/etc/resolv.conf", probes.RESOLV_CONF.encode()
        if not fixtures.authority:
            return
        yield "/etc/hosts", f"{_FILES['etc/hosts']}{probes.HOSTS_LINE}".encode()
        lower = self._files[image.config_digest].lower
        yield from probes.trusting(lower, self.inspect(image).root.certificates, fixtures)

    def inspect(self, image: VariantImage) -> ImageFacts:
        """Read the image, once."""
        return self._inspector.facts(image, self._files[image.config_digest])

    def export(self, image: VariantImage, base: PreparedImage, file: Path, *, docker: bool) -> None:
        """Write an assembled image as a complete archive.

        Args:
            image: The image.
            base: Its run image.
            file: The archive.
            docker: Whether `docker load` has to take it; else a plain OCI layout.
        """
        made = self._assembled[image.config_digest]
        write_archive(made, self._images.layers(base), file, docker=docker)

    def debug(
        self,
        image: VariantImage,
        smoke: Smoke,
        tools: PreparedImage,
        command: tuple[str, ...],
        *,
        terminal: str,
    ) -> int:
        """Run a command in bubblewrap, with tools beside the image's files."""
        from nox_variants.sandbox import shell  # noqa: PLC0415  # no run has one

        beside = shell.tools(self._store, tools, self._images.root(tools))
        return shell.run_session(
            shell.Session(
                lower=(*self._files[image.config_digest].lower, self._skeleton(), beside),
                command=command,
                env=(*image.env, *smoke.env),
                workdir=image.workdir,
                terminal=terminal,
            )
        )

    def cancel(self) -> None:
        """End every child, and let nothing new start."""
        self._cancelled.set()

    def close(self) -> None:
        """Do nothing: there is nothing that would stay open."""

    def _skeleton(self) -> Path:
        """Return the mount points and files that a container engine adds, as a folder."""
        if self._store.find("layers", _SKELETON) is None:
            with self._store.publish("layers", _SKELETON) as staging:
                for name in _FOLDERS:
                    (staging / "root" / name).mkdir(parents=True)
                for name, text in _FILES.items():
                    (staging / "root" / name).write_text(text, encoding="utf-8")
        return self._store.entry("layers", _SKELETON) / "root"


def _executable_format(lower: tuple[Path, ...], steps: tuple[Step, ...]) -> bool:
    """Tell whether the kernel knows the form of what it executes.

    What is missing, or may not be executed, is left to exec itself.
    """
    for step in steps:
        if step.facts is None or not step.executable:
            return True
        if step.facts.linkage is not Linkage.SCRIPT:
            return _taken(rootfs.resolve(lower, step.path))
        if not step.facts.interpreter:
            return False
    return True


def _taken(file: Path | None) -> bool:
    if file is None:
        return True
    with file.open("rb") as opened:
        known = elf.machine(opened.read(elf.HEADER_LENGTH))
        opened.seek(0)
        machine = platform.machine()
        return known in {machine, _SIBLINGS.get(machine)} and elf.taken(opened)
