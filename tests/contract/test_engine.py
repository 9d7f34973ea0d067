"""What every engine promises: the same tests for all of them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from dockerbench import WAYS, opened
from handmade import GREETING, SMOKE, Bench
from nox_variants import names
from nox_variants.engines.fake import FakeEngine
from nox_variants.errors import BuildFailed, VariantsError
from nox_variants.model import LinkMode, Smoke
from nox_variants.oci.digest import parse
from nox_variants.results import (
    EngineName,
    FileFacts,
    ImageFacts,
    Linkage,
    Observation,
    RootFacts,
    Startup,
    Step,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FAILING = "echo compiling; echo oops >&2; exit 3"
LOADER = "/lib64/ld-linux-x86-64.so.2"


def inspected(root: RootFacts, facts: FileFacts, loader: str = "") -> ImageFacts:
    """Return an image whose program is there, and whose loader is not."""
    startup = Startup(
        steps=(Step(path="/hello-c", facts=facts, executable=True),),
        loader=Step(path=loader) if loader else None,
    )
    return ImageFacts(root=root, startup=startup)


def fake(source: Path) -> Bench:
    """Return an engine that is told what the embedded one finds out."""
    engine = FakeEngine(
        builds={
            "alpine-gcc": BuildFailed(
                f"{FAILING!r} ended with exit code 3 in alpine-gcc",
                log="compiling\noops\n",
                seconds=1,
            )
        },
        seen={
            "hello-c:gcc-dynamic.scratch": Observation(
                started=False, exec_error="/hello-c: No such file or directory"
            )
        },
        inspected={
            "hello-c:gcc-static.alpine": inspected(
                RootFacts(shell=True),  # noqa: S604  # a fact, not a call
                FileFacts(linkage=Linkage.STATIC),
            ),
            "hello-c:gcc-dynamic.scratch": inspected(
                RootFacts(), FileFacts(linkage=Linkage.GLIBC_DYNAMIC), LOADER
            ),
        },
    )
    return Bench(engine, source)


ENGINES = {
    "fake": (),
    "embedded": (pytest.mark.sandbox,),
    "buildkit": (pytest.mark.docker, pytest.mark.sandbox),
    "podman": (pytest.mark.docker, pytest.mark.sandbox),
}
"""Every engine, and what it needs."""


@pytest.fixture(params=[pytest.param(name, marks=marks) for name, marks in ENGINES.items()])
def bench(request: pytest.FixtureRequest, source: Path, home: Path) -> Iterator[Bench]:
    """Give each engine, with images of the same names."""
    if request.param == "fake":
        yield fake(source)
        return
    roots = request.getfixturevalue("roots")
    roots = {**roots, "alpine-gcc": roots["gcc"]}
    yield from opened(request, home=home, roots=roots, source=source)


def is_daemon(bench: Bench) -> bool:
    """Tell whether images are a daemon's own: with layers and ids as it likes."""
    return bench.engine.probe().name is not EngineName.EMBEDDED


def test_probe(bench: Bench, request: pytest.FixtureRequest) -> None:
    """An engine says who it is, in words that a record keeps."""
    info = bench.engine.probe()

    way = request.node.callspec.params["bench"]
    assert info.name == WAYS.get(way, EngineName.EMBEDDED)
    assert info.version > ""


def test_prepare(bench: Bench) -> None:
    """A prepared image has the name that was asked for, and is the same one the next time."""
    image = bench.plan(run="alpine").run.image
    prepared = bench.engine.prepare(image)

    assert (prepared.name, prepared.stand_in) == ("alpine", True)
    assert prepared == bench.engine.prepare(image)
    assert [parse(digest) for digest in (prepared.digest, *prepared.layers)]
    assert prepared.content > 0


def test_build(bench: Bench) -> None:
    """A build gives what the stage names, with facts about how it is linked."""
    build = bench.build(bench.plan(link=LinkMode.DYNAMIC))
    (artifact,) = build.artifacts

    assert (artifact.path, artifact.facts.linkage) == ("/out/hello-c", Linkage.GLIBC_DYNAMIC)
    assert "libc.so.6" in artifact.facts.needed
    assert (artifact.size > 0, build.seconds > 0, build.cached) == (True, True, False)


def test_artifacts_keep_their_order(bench: Bench) -> None:
    """Several artifacts come in the order of the stage."""
    paths = ("/out/b", "/out/a", "/out/c")
    plan = bench.plan(
        "for name in a b c; do cp /usr/lib/hello-static /out/$name; done", stage_artifacts=paths
    )

    assert tuple(artifact.path for artifact in bench.build(plan).artifacts) == paths


def test_build_is_cached(bench: Bench) -> None:
    """The same stage again is the same build, and takes nothing to compile."""
    first, second = bench.build(bench.plan()), bench.build(bench.plan())

    assert (first.cached, second.cached) == (False, True)
    assert (first.key, first.artifacts) == (second.key, second.artifacts)
    assert first.seconds == second.seconds


def test_other_stages_are_other_builds(bench: Bench) -> None:
    """Anything that goes into a stage makes another build of it."""
    plans = [
        bench.plan(),
        bench.plan(link=LinkMode.DYNAMIC),
        bench.plan("true", "cp /usr/lib/hello-static /out/hello-c"),
        bench.plan(stage_env=(("CFLAGS", "-O2"),)),
        bench.plan(stage_caches=("/root/.cache",)),
        bench.plan(stage_network=True),
    ]
    builds = [bench.build(plan) for plan in plans]

    assert len({build.key for build in builds}) == len(plans)
    assert not any(build.cached for build in builds)


def test_build_fails(bench: Bench) -> None:
    """A failing command is a build failure that says which, with the end of its output."""
    with pytest.raises(BuildFailed) as caught:
        bench.build(bench.plan(FAILING, build="alpine-gcc"))

    assert str(caught.value) == f"{FAILING!r} ended with exit code 3 in alpine-gcc"
    if is_daemon(bench):
        assert {"compiling", "oops"} <= {
            line.split()[-1] for line in caught.value.log.split("\n") if line
        }
    else:
        assert caught.value.log == "compiling\noops\n"
    assert caught.value.seconds > 0


def test_assemble(bench: Bench) -> None:
    """An image has the layers of its base below its own, and what the plan says."""
    plan = bench.plan(run="alpine", run_env=(("NAME", "value"),), run_workdir="/tmp")
    base, image = bench.engine.prepare(plan.run.image), bench.image(plan)

    assert image.tag == f"hello-c:{names.image_tag(plan.variant)}"
    assert image.layers[: len(base.layers)] == base.layers
    assert len(image.layers) == len(base.layers) + 1 or is_daemon(bench)
    assert (image.cmd, image.workdir) == (("/hello-c",), "/tmp")
    assert [pair for pair in image.env if pair[0] != "PATH"] == [*base.env, ("NAME", "value")]
    assert parse(image.config_digest)


def test_sizes(bench: Bench) -> None:
    """Above the base there is the program, and its content is that of all layers."""
    plan = bench.plan(run="alpine")
    base, build, image = bench.engine.prepare(plan.run.image), bench.build(plan), bench.image(plan)

    assert image.sizes.binary == build.artifacts[0].size
    assert image.sizes.above_base == image.sizes.binary
    assert image.sizes.content == base.content + image.sizes.above_base
    assert image.sizes.transfer is None


def test_transfer(bench: Bench) -> None:
    """The compressed size is worked out for a plan that asks for it, and changes nothing else."""
    plan = bench.plan(run="alpine")
    image, asked = bench.image(plan), bench.image(replace(plan, transfer=True))

    assert asked.sizes.transfer is not None
    assert asked.sizes.transfer > 0
    assert replace(asked.sizes, transfer=None) == image.sizes
    assert (asked.config_digest, asked.layers) == (image.config_digest, image.layers)


def test_single_stage(bench: Bench) -> None:
    """A single-stage image is the build image with more layers: the source, and the changes."""
    plan = bench.plan(run="gcc")
    base, image = bench.engine.prepare(plan.build.image), bench.image(plan)

    assert image.layers[: len(base.layers)] == base.layers
    assert len(image.layers) == len(base.layers) + 2 or is_daemon(bench)
    assert (image.cmd, image.workdir) == (("/out/hello-c",), "/src")
    assert image.sizes.content == base.content + image.sizes.above_base


@pytest.mark.parametrize(
    "change",
    [{"run_cmd": ("/hello-c", "more")}, {"run_env": (("A", "1"),)}, {"run_workdir": "/tmp"}],
    ids=["cmd", "env", "workdir"],
)
def test_config_digest(bench: Bench, change: dict[str, Any]) -> None:
    """An image is known by what is in it: the same again, and another one with any change."""
    image = bench.image(bench.plan())

    assert bench.image(bench.plan()).config_digest == image.config_digest or is_daemon(bench)
    assert bench.image(bench.plan(**change)).config_digest != image.config_digest


def test_other_base_is_another_image(bench: Bench) -> None:
    """The same program on another base is another image."""
    first, second = (bench.image(bench.plan(run=run)) for run in ("scratch", "alpine"))

    assert first.config_digest != second.config_digest
    assert first.layers[-1] == second.layers[-1] or is_daemon(bench)


@pytest.mark.parametrize("run", ["scratch", "alpine", "gcc"])
def test_smoke(bench: Bench, run: str) -> None:
    """A program that works is seen to work."""
    seen = bench.run(bench.plan(run=run))

    assert seen.seconds > 0
    unseen = replace(seen, seconds=0, startup=None)
    assert unseen == Observation(started=True, exit_code=0, stdout=GREETING)


def test_smoke_without_a_loader(bench: Bench) -> None:
    """A dynamic program does not start where its loader is missing, and the image shows it."""
    image = bench.image(bench.plan(link=LinkMode.DYNAMIC))

    seen = bench.engine.smoke(image, SMOKE)
    assert replace(seen, exec_error="") == Observation(started=False)
    assert "no such file or directory" in seen.exec_error.lower()
    facts = bench.engine.inspect(image)
    assert facts.root == RootFacts()
    assert facts.startup.loader == Step(path=LOADER)
    assert facts.startup.steps[0].facts is not None
    assert facts.startup.steps[0].facts.linkage is Linkage.GLIBC_DYNAMIC


def test_inspect(bench: Bench) -> None:
    """What an image's root offers is told, and how its command would start."""
    image = bench.image(bench.plan(run="alpine"))

    facts = bench.engine.inspect(image)

    assert facts.root == RootFacts(shell=True)  # noqa: S604  # a fact, not a call
    (step,) = facts.startup.steps
    assert (step.path, step.executable) == ("/hello-c", True)
    assert step.facts is not None
    assert step.facts.linkage in {Linkage.STATIC, Linkage.STATIC_PIE}
    assert facts.startup.loader is None
    assert bench.engine.inspect(image) == facts


def test_many_threads(bench: Bench) -> None:
    """Every method may be called from several threads at once, and all get the same."""
    plans = [bench.plan(run=run) for run in ("scratch", "alpine", "gcc")] * 4

    with ThreadPoolExecutor(6) as threads:
        images = list(threads.map(bench.image, plans))
        seen = list(threads.map(bench.engine.smoke, images, [SMOKE] * len(images)))
        roots = list(threads.map(bench.engine.inspect, images))

    if not is_daemon(bench):
        assert images[:3] == images[3:6] == images[6:9] == images[9:]
    assert {observation.stdout for observation in seen} == {GREETING}
    assert len(set(roots)) <= 3


def test_cancel(bench: Bench) -> None:
    """After a cancel nothing new starts."""
    image = bench.image(bench.plan())
    bench.engine.cancel()

    with pytest.raises(VariantsError, match="cancelled"):
        bench.engine.smoke(image, Smoke())
    with pytest.raises(VariantsError, match="cancelled"):
        bench.build(bench.plan("true", "cp /usr/lib/hello-static /out/hello-c"))


def test_what_is_measured(real: Bench) -> None:
    """A program's start-up time is seen by every engine, its peak memory by the embedded one."""
    sleep = real.plan(run="alpine", smoke=Smoke(repeat=2), run_cmd=("/bin/sh", "-c", "sleep 0.3"))
    seen = real.run(sleep)

    assert seen.startup is not None
    assert 0.1 < seen.startup <= seen.seconds
    assert (seen.peak_memory is None) == is_daemon(real)


def test_startup_of_what_is_ended(real: Bench) -> None:
    """A program that does not end by itself has none."""
    waits = real.plan(run="alpine", smoke=Smoke(timeout=0.5), run_cmd=("/bin/sh", "-c", "sleep 60"))
    seen = real.run(waits)

    assert (seen.timed_out, seen.startup) == (True, None)
