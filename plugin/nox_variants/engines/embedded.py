"""The embedded engine: no daemon, no root. A store, bubblewrap, and OCI images as values."""

from __future__ import annotations

import platform
import threading
from typing import TYPE_CHECKING

from nox_variants import elf, rootfs
from nox_variants.engines.assembly import Assembled, Assembler, write_archive
from nox_variants.engines.compiling import Compiler
from nox_variants.results import EngineInfo, EngineName, Observation
from nox_variants.sandbox import bubblewrap
from nox_variants.sandbox.program import Program, run_program
from nox_variants.sources import Sources

if TYPE_CHECKING:
    from pathlib import Path

    from nox_variants.engines.protocol import Images
    from nox_variants.model import Image, Smoke
    from nox_variants.plan import BuildStage, Plan
    from nox_variants.results import Build, PreparedImage, RootFacts, VariantImage
    from nox_variants.store import Store

_SKELETON = "skeleton-1"
_FOLDERS = ("proc", "dev", "sys", "tmp", "etc")
_FILES = {
    "etc/hostname": f"{bubblewrap.HOSTNAME}\n",
    "etc/hosts": (
        "127.0.0.1\tlocalhost\n"
        "::1\tlocalhost ip6-localhost ip6-loopback\n"
        "fe00::\tip6-localnet\n"
        "ff00::\tip6-mcastprefix\n"
        "ff02::1\tip6-allnodes\n"
        "ff02::2\tip6-allrouters\n"
    ),
    "etc/resolv.conf": "# A smoke run has no network.\n",
}
"""What a container engine adds to an image when it runs it without a network."""


_SIBLINGS = {"x86_64": "i686", "aarch64": "arm"}
"""Machines whose kernels run another machine's programs too, as a rule."""


class EmbeddedEngine:
    """Builds and runs plans with the store and bubblewrap.

    Args:
        store: Where everything is kept.
        images: Gives run and build images.
        root: The folder of ``variants.yaml``: no source leads out of it.
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
        root: Path,
        output: Path,
        use_cache: bool,
        epoch: int,
        host: str,
        cancelled: threading.Event,
    ) -> None:
        self._store = store
        self._images = images
        self._cancelled = cancelled
        self._sources = Sources(store, root=root)
        self._compiler = Compiler(
            store=store, epoch=epoch, platform=host, use_cache=use_cache, cancelled=cancelled
        )
        self._assembler = Assembler(store, output, epoch=epoch, platform=host)
        self._lock = threading.Lock()
        self._assembled: dict[str, Assembled] = {}
        self._lower: dict[str, tuple[Path, ...]] = {}
        self._facts: dict[tuple[tuple[Path, ...], tuple[str, ...]], RootFacts] = {}

    def probe(self) -> EngineInfo:
        """Start a sandbox once and return the version of bubblewrap."""
        return EngineInfo(name=EngineName.EMBEDDED, version=bubblewrap.probe())

    def prepare(self, image: Image) -> PreparedImage:
        """Unpack an image into the store, once."""
        return self._images.prepare(image)

    def build(self, stage: BuildStage, image: PreparedImage) -> Build:
        """Compile a stage in the sandbox, or take it from the store."""
        source = self._sources.snapshot(stage.source)
        return self._compiler.build(stage, image, self._images.root(image), source)

    def assemble(self, plan: Plan, base: PreparedImage, build: Build) -> VariantImage:
        """Write the variant's layout; its layers are made once."""
        source = self._sources.snapshot(plan.build.source)
        made = self._assembler.assemble(plan, base, build, source)
        lower = (self._images.root(base), *(layer.root for layer in made.layers))
        with self._lock:
            self._assembled[made.image.config_digest] = made
            self._lower[made.image.config_digest] = lower
        return made.image

    def smoke(self, image: VariantImage, smoke: Smoke) -> Observation:
        """Run the image's command in bubblewrap.

        The kernel's own checks come first: bwrap would hand a file that it cannot execute to
        ``/bin/sh``, as execvp does and no container engine.
        """
        lower = self._lower[image.config_digest]
        if not _executable_format(lower, image.cmd[0]):
            return Observation(started=False, exec_error="exec format error")
        program = Program(
            lower=(*lower, self._skeleton()),
            argv=(*image.cmd, *smoke.args),
            env=(*image.env, *smoke.env),
            workdir=image.workdir,
        )
        return run_program(program, smoke, self._cancelled)

    def root_facts(self, image: VariantImage, paths: tuple[str, ...] = ()) -> RootFacts:
        """Read the image's root; equal roots are read once."""
        key = (self._lower[image.config_digest], paths)
        if key not in self._facts:
            self._facts[key] = rootfs.read(*key)
        return self._facts[key]

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


def _executable_format(lower: tuple[Path, ...], path: str) -> bool:
    """Tell whether the kernel knows the format; a missing file is left to exec itself."""
    file = rootfs.resolve(lower, path)
    if file is None or not file.is_file():
        return True
    with file.open("rb") as opened:
        head = opened.read(elf.HEADER_LENGTH)
    machine = platform.machine()
    return head.startswith(b"#!") or elf.machine(head) in {machine, _SIBLINGS.get(machine)}
