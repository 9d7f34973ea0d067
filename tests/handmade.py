"""Images made by hand, and engines that use them: no apt, no network."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from conftest import require
from nox_variants.engines.embedded import EmbeddedEngine
from nox_variants.images.archive import open_archive
from nox_variants.images.layered import Layered
from nox_variants.images.transfer import Transfers
from nox_variants.model import Image, ImageSource, LinkMode, Recipe, Smoke, SourceKind
from nox_variants.oci.digest import hex_of, sha256_bytes
from nox_variants.oci.layer import digest_tree, write_tree
from nox_variants.oci.layout import LayerBlob
from nox_variants.plan import make_plans
from nox_variants.results import PreparedImage
from nox_variants.store import Store
from samples import SETTINGS, C, variant

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nox_variants.engines.protocol import Engine
    from nox_variants.model import Digest
    from nox_variants.plan import Plan
    from nox_variants.results import Build, Observation, VariantImage

BUSYBOX = ("/bin/busybox", "/usr/bin/busybox")
"""Where Debian's busybox-static is."""

HELLO = """\
#include <stdio.h>
#include <stdlib.h>
int main(int argc, char **argv) {
    puts("Hello, world!");
    while (--argc) puts(*++argv);
    if (getenv("NAME")) puts(getenv("NAME"));
    return 0;
}
"""

GREETING = "Hello, world!\n"

SMOKE = Smoke(stdout=GREETING)

COPY = "cp /usr/lib/hello-{link} /out/hello-c"
"""The build command of tests that are about something else; a root's compiler is `cp`."""


def make_roots(folder: Path) -> dict[str, Path]:
    """Make root filesystems below a folder; skip the test where this machine cannot."""
    busybox = next(filter(Path.is_file, map(Path, BUSYBOX)), None)
    if busybox is None or shutil.which("gcc") is None:
        require("compilers", "busybox-static and gcc are needed to make images by hand")
    roots = {name: folder / name for name in ("gcc", "alpine")}
    for root in roots.values():
        for name in ("bin", "dev", "etc", "proc", "tmp", "usr/lib"):
            (root / name).mkdir(parents=True)
        (root / "tmp").chmod(0o1777)
        shutil.copy(busybox, root / "bin/busybox")
        subprocess.run([root / "bin/busybox", "--install", "-s", root / "bin"], check=True)
        for link in (root / "bin").iterdir():
            if link.is_symlink():
                link.unlink()
                link.symlink_to("busybox")
    for name, flags in {"static": ("-static",), "dynamic": ()}.items():
        target = roots["gcc"] / "usr/lib" / f"hello-{name}"
        compiler = ["gcc", *flags, "-s", "-x", "c", "-", "-o", str(target)]
        subprocess.run(compiler, input=HELLO.encode(), check=True)
    return roots


class HandMade:
    """Gives images out of folders; see :class:`nox_variants.engines.embedded.Images`.

    Args:
        store: Where they are kept.
        roots: Folders, by image.
    """

    def __init__(self, store: Store, roots: Mapping[str, Path]) -> None:
        self._store = store
        self._roots = roots

    def prepare(self, image: Image) -> PreparedImage:
        """Copy an image's folder into the store; an image without one is empty."""
        source = self._roots.get(image.name)
        if source is None:
            empty = sha256_bytes(b"")
            self._keep(empty, None)
            return PreparedImage(
                name=image.name, kind=SourceKind.SCRATCH, reference="", digest=empty, env=image.env
            )
        facts = digest_tree(source, mtime=0)
        self._keep(facts.diff_id, source)
        return PreparedImage(
            name=image.name,
            kind=SourceKind.APT,
            reference="by hand",
            digest=facts.diff_id,
            stand_in=True,
            user=image.user,
            packages=("busybox=1",),
            layers=(facts.diff_id,),
            layer_sizes=(facts.size,),
            content=facts.content,
            env=image.env,
        )

    def unpacked(self, archive: Path, name: str) -> PreparedImage:
        """Unpack an archive as the real thing does."""
        cancelled = threading.Event()
        source = ImageSource(kind=SourceKind.ARCHIVE, reference=str(archive))
        layered = Layered(self._store, progress=lambda _: None, cancelled=cancelled)
        with open_archive(archive, "linux/amd64", cancelled=cancelled) as opened:
            return layered.prepare(
                Image(name=name, sources=(source,)), source, opened.content, opened
            )

    def root(self, image: PreparedImage) -> Path:
        """Return the folder of a prepared image."""
        return self._store.entry("images", hex_of(image.digest)) / "root"

    def layers(self, image: PreparedImage) -> list[LayerBlob]:
        """Return the one layer of a prepared image."""
        root = self.root(image)
        return [
            LayerBlob(diff_id=diff_id, size=size, write=lambda out: write_tree(root, out, mtime=0))
            for diff_id, size in zip(image.layers, image.layer_sizes, strict=True)
        ]

    def transfers(self, image: Image, prepared: PreparedImage) -> tuple[int, ...]:
        """Return the compressed size of the one layer of a prepared image."""
        return tuple(self.compressed(image.name, layer) for layer in self.layers(prepared))

    def compressed(self, name: str, layer: LayerBlob) -> int:
        """Compress a layer as the real thing does."""
        sizes = Transfers(self._store, progress=lambda _: None, cancelled=threading.Event())
        return sizes.compressed(name, layer)

    def _keep(self, digest: Digest, source: Path | None) -> None:
        if self._store.find("images", hex_of(digest)) is None:
            with self._store.publish("images", hex_of(digest)) as staging:
                if source is None:
                    (staging / "root").mkdir()
                else:
                    shutil.copytree(source, staging / "root", symlinks=True)


def open_engine(
    home: Path, roots: Mapping[str, Path], project: Path, **changes: Any
) -> EmbeddedEngine:
    """Return an embedded engine of hand-made images."""
    store = Store(home)
    options: dict[str, Any] = {
        "use_cache": True,
        "epoch": 0,
        "host": "linux/amd64",
        "cancelled": threading.Event(),
    }
    return EmbeddedEngine(
        store=store,
        images=HandMade(store, roots),
        roots=(project,),
        output=project / ".variants",
        **options | changes,
    )


@dataclass(frozen=True)
class Bench:
    """An engine and a project with the source of one program."""

    engine: Engine
    source: Path

    def plan(
        self,
        *commands: str,
        run: str = "scratch",
        build: str = "gcc",
        link: LinkMode = LinkMode.STATIC,
        smoke: Smoke = SMOKE,
        **changes: Any,
    ) -> Plan:
        """Return a plan; its stages can be changed: ``stage_network=True``, ``run_env=...``."""
        recipe = Recipe(link=link, image="gcc", commands=commands or (COPY.format(link=link),))
        language = replace(C, recipes=(recipe,), artifact="/out/{program}")
        program = replace(
            SETTINGS.programs[0], language=language, source=self.source, smoke=smoke, network=False
        )
        settings = replace(SETTINGS, programs=(program,))
        (made,) = make_plans(settings, [variant(run, link, build)])
        stage = {name[6:]: value for name, value in changes.items() if name.startswith("stage_")}
        image = {name[4:]: value for name, value in changes.items() if name.startswith("run_")}
        return replace(made, build=replace(made.build, **stage), run=replace(made.run, **image))

    def build(self, plan: Plan) -> Build:
        """Build a plan's stage."""
        return self.engine.build(plan.build, self.engine.prepare(plan.build.image))

    def image(self, plan: Plan) -> VariantImage:
        """Make a plan's image."""
        return self.engine.assemble(plan, self.engine.prepare(plan.run.image), self.build(plan))

    def blob(self, image: VariantImage, digest: str) -> Path:
        """Return a file of an image's layout."""
        return self.source.parent / image.path / "blobs/sha256" / hex_of(digest)

    def run(self, plan: Plan) -> Observation:
        """Smoke-run a plan."""
        return self.engine.smoke(self.image(plan), plan.smoke)


def made_by(
    home: Path, roots: Mapping[str, Path], source: Path, runs: tuple[str, ...], **changes: Any
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Make images in an engine of their own; returns config digests, and what was compiled."""
    bench = Bench(open_engine(home, roots, source.parent, **changes), source)
    plans = [bench.plan(run=run) for run in runs]
    builds = [bench.build(plan) for plan in plans]
    compiled = tuple(build.key for build in builds if not build.cached)
    return tuple(bench.image(plan).config_digest for plan in plans), compiled


@dataclass(frozen=True)
class Docker:
    """A Docker client and the daemon that it talks to."""

    client: str
    host: str

    def __call__(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command of the client."""
        return subprocess.run(
            [self.client, *arguments],
            env={**os.environ, "DOCKER_HOST": self.host},
            text=True,
            capture_output=True,
            check=False,
        )

    def run(self, image: str, *flags: str) -> tuple[int, str]:
        """Run an image once, without a network; returns exit code and standard output."""
        done = self("run", "--rm", "--network=none", *flags, image)
        return done.returncode, done.stdout
