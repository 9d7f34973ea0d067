"""Held against other ways to do the same: Docker, docker-compose, GNU tar, bubblewrap, bare Nox."""

from __future__ import annotations

import functools
import shutil
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

from docker_side import Case, DockerSide
from figures import Figure
from projects import REPOSITORY
from workloads import (
    CORES,
    HELLO,
    NOXFILE,
    ROUNDS,
    RUN_IMAGES,
    Cost,
    FailedError,
    Ours,
    cost,
    edit,
    medians,
    nothing,
    write_many,
    write_project,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

BARE = """\
import nox

PARAMS = [
    nox.param(
        number,
        id=f"image{number},static",
        tags=["variant", "hello", "c", f"image{number}", "gcc", "static"],
    )
    for number in range(1000)
]


@nox.session(default=False, venv_backend="none")
@nox.parametrize("variant", PARAMS)
def hello(session, variant):
    "Build hello (c) in gcc or alpine-gcc and smoke-run it."
"""
SMOKE_RUNS = 200


def faster(what: str, ours: Cost, theirs: Cost, whose: str, promised: str) -> Figure:
    """Return how many times faster we are."""
    ratio = f"{theirs.wall / ours.wall:.1f} times faster"
    return Figure(
        what=what, ours=f"{ours}", against=f"{whose}: {theirs}", ratio=ratio, promised=promised
    )


def no_slower(what: str, ours: Cost, theirs: Cost, whose: str, most: float) -> Figure:
    """Return how many times as long as another we take."""
    return Figure(
        what=what,
        ours=f"{ours}",
        against=f"{whose}: {theirs}",
        ratio=f"{ours.wall / theirs.wall:.2f} times",
        promised=f"at most {most}",
    )


def docker(work: Path, home: Path) -> Iterator[Figure]:
    """The embedded engine against Docker.

    Whole processes, images present. Docker builds a two-stage Dockerfile per variant and runs it,
    one by one; Compose does all with `build` and `up`; Bake, where it is installed, builds all, and
    `docker run` runs them, as many at once as there are cores. What fails is tried again.
    """
    with DockerSide.start(work / "docker") as side:
        if side is None:
            yield Figure(what="16 variants", ours="not measured: no dockerd here, or not root")
            return
        for programs, rounds, promised in (
            (1, ROUNDS, (("at least 8", "at least 10"), ("at least 12", ""))),
            (8, 1, (("at least 15", "at least 20"), ("", ""))),
        ):
            count = programs * 16
            ours = Ours(work / f"project{count}", home)
            write_project(ours.folder, programs)
            ours.matrix()
            side.load_roots(home, ours.folder / "variants.yaml", RUN_IMAGES)
            names = [f"prog{number}" for number in range(programs)]
            case = Case(ours.folder, names, RUN_IMAGES).write()
            down = functools.partial(side.compose_down, case)

            def change(ours: Ours = ours, down: functools.partial[None] = down) -> None:
                down()
                ours.forget_runs()
                edit(ours.folder)

            ways = _theirs(side, case)
            theirs = dict(ways)
            for whose, why in _unable(ways, change).items():
                yield Figure(what=f"{count} variants", ours="", against=f"{whose}: fails: {why}")
                del theirs[whose]
            cold = medians(
                (ours.matrix, change), *((work, change) for work in theirs.values()), rounds=rounds
            )
            for built in (ours.matrix, *theirs.values()):  # the last change was built by one only
                built()
            warm = medians(
                (ours.matrix, nothing), *((work, down) for work in theirs.values()), rounds=rounds
            )
            for name, (mine, *costs), wanted in zip(
                ("cold", "warm"), (cold, warm), promised, strict=True
            ):
                ratios = dict(zip(ways, wanted, strict=False))
                for whose, each in zip(theirs, costs, strict=True):
                    what = f"{count} variants, {name}"
                    yield faster(what, mine, each, whose, ratios.get(whose, ""))
            down()


def _theirs(side: DockerSide, case: Case) -> dict[str, Callable[[], None]]:
    """Return the other ways, by what they are called; Bake where it is installed."""
    ways: dict[str, Callable[[], None]] = {
        "docker build, docker run": functools.partial(side.build_and_run, case),
        f"{side.composes} build, up": functools.partial(side.compose, case),
    }
    if side.bakes:
        ways["docker buildx bake, docker run"] = functools.partial(side.bake, case)
    return ways


def _unable(ways: dict[str, Callable[[], None]], change: Callable[[], None]) -> dict[str, str]:
    """Return which ways do not work when all is new, and why."""
    found = {}
    for whose, work in ways.items():
        try:
            medians((work, change), rounds=1)
        except FailedError as error:
            found[whose] = f"{error}"
    return found


def engine(work: Path, home: Path) -> Iterator[Figure]:
    """The docker engine against Docker.

    The same as above, through a daemon on both sides.
    """
    with DockerSide.start(work / "docker-engine") as side:
        if side is None:
            yield Figure(what="16 variants", ours="not measured: no dockerd here, or not root")
            return
        # The same local bases on all sides: nobody looks for a registry.
        environ = {"NOX_VARIANTS_ENGINE": "docker", "NOX_VARIANTS_IMAGES": "apt"}
        ours = Ours(work / "engine", home, DOCKER_HOST=side.host, **environ)
        write_project(ours.folder, 1)
        ours.matrix()
        side.load_roots(home, ours.folder / "variants.yaml", RUN_IMAGES)
        case = Case(ours.folder, ["prog0"], RUN_IMAGES).write()
        theirs = _theirs(side, case)

        def down() -> None:
            side.compose_down(case)

        def change() -> None:
            down()
            ours.forget_runs()
            edit(ours.folder)

        for name, before in (("cold", change), ("warm", down)):
            mine, *costs = medians(
                (ours.matrix, before), *((work, before) for work in theirs.values())
            )
            promised = ("at least 1.6", "at least 1", "")
            for whose, each, ratio in zip(theirs, costs, promised, strict=False):
                yield faster(f"16 variants, {name}", mine, each, whose, ratio)


def pulling(work: Path, home: Path) -> Iterator[Figure]:
    """An image out of a registry.

    The stand-in of gcc from a registry on the loopback, and its one layer's tar alone.
    """
    from pulling import PullSide  # noqa: PLC0415  # it needs a registry

    ours = Ours(work / "pulling", home)
    write_project(ours.folder, 1)
    with PullSide.start(ours.folder, home, ours.folder / "variants.yaml") as side:
        mine, theirs = medians((side.pull, side.forget), (side.docker_pull, side.forget))
        yield no_slower(f"pull {side.size / 1e6:.0f} MB", mine, theirs, "docker pull", 1.5)
        mine, theirs = medians(
            (side.unpack, side.forget_unpacked), (side.untar, side.forget_unpacked)
        )
        yield no_slower("unpack alone", mine, theirs, "tar", 1.5)


def smoke(work: Path, home: Path) -> Iterator[Figure]:
    """A smoke run against bubblewrap alone.

    A static hello world in a root of its own, limits, watching and all, against `bwrap` with the
    same namespaces.
    """
    del home
    from nox_variants.model import Smoke  # noqa: PLC0415
    from nox_variants.sandbox import bubblewrap  # noqa: PLC0415
    from nox_variants.sandbox.program import Program, run_program  # noqa: PLC0415

    below, root = work / "below", work / "root"
    below.mkdir()
    for name in ("proc", "dev", "tmp"):
        (root / name).mkdir(parents=True)
    (work / "hello.c").write_text(HELLO.format(name="you"), encoding="utf-8")
    subprocess.run(["gcc", "-static", "-o", root / "hello", work / "hello.c"], check=True)
    program = Program(lower=(root, below), argv=("/hello",), env=(), workdir="/")
    never = threading.Event()
    command = [
        *(str(bubblewrap.find_bwrap()), *bubblewrap.NAMESPACES, *bubblewrap.AS_ROOT),
        *("--overlay-src", str(below), "--overlay-src", str(root), "--ro-overlay", "/"),
        *("--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", "/hello"),
    ]

    def ours() -> None:
        for _ in range(SMOKE_RUNS):
            if run_program(program, Smoke(), never).exit_code:
                sys.exit("hello does not run")

    def bare() -> None:
        for _ in range(SMOKE_RUNS):
            subprocess.run(command, check=True, capture_output=True)

    mine, theirs = medians((ours, nothing), (bare, nothing))
    yield no_slower(f"{SMOKE_RUNS} runs, one after another", mine, theirs, "bwrap", 2)


def listing(work: Path, home: Path) -> Iterator[Figure]:
    """`nox -l` of 1,000 variants against a bare noxfile.

    The bare one has 1,000 parametrised sessions with the same ids, tags and descriptions.
    """
    ours = Ours(work / "listing", home)
    write_many(ours.folder, 1000)
    bare = Ours(work / "bare", home)
    (bare.folder / "noxfile.py").write_text(BARE, encoding="utf-8")
    listed = ours.run("-l", "-t", "variant").count("* hello")
    if listed != 1000:
        sys.exit(f"nox -l showed {listed} variants, not 1000")
    mine, theirs = medians(
        (lambda: ours.run("-l"), nothing), (lambda: bare.run("-l"), nothing), rounds=15
    )
    yield no_slower("nox -l, 1,000 variants", mine, theirs, "a bare noxfile", 1.75)


def limit(work: Path, home: Path) -> Iterator[Figure]:
    """How far from the limit.

    No tool that compiles the same and starts each program can be faster than its compiles, one by
    one, over the cores, and a bare `bwrap` for each program.
    """
    ours = Ours(work / "limit", home)
    write_project(ours.folder, 8)
    ours.matrix()
    (bare,) = (each for each in smoke(work, home))
    each_run = float(bare.against.split()[1]) / SMOKE_RUNS

    def alone() -> None:
        ours.run("-s", "matrix", "--", "--jobs", "1", "--json", "records.json")

    ours.forget_builds()
    alone()
    compiles = sum(ours.compiles().values())
    cold, warm = medians((ours.matrix, ours.forget_builds), (ours.matrix, nothing))
    for name, found, least in (
        ("cold", cold, (compiles + 128 * each_run) / CORES),
        ("warm", warm, 128 * each_run / CORES),
    ):
        yield Figure(
            what=f"128 variants, {name}",
            ours=f"{found}",
            against=f"the limit: {least:.2f} s",
            ratio=f"{found.wall / least:.2f} times",
        )


def profile(work: Path, home: Path) -> Iterator[Figure]:
    """Where the time goes.

    Cold with `--jobs 1`, so that the parts add up: each begins when the one before has ended.
    """
    ours = Ours(work / "profile", home)
    (found,) = (each for each in smoke(work, home))
    watched, bare = float(found.ours.split()[0]), float(found.against.split()[1])
    write_project(ours.folder, 8)
    ours.matrix()
    ours.forget_builds()
    whole = cost(lambda: ours.run("-s", "matrix", "--", "--jobs", "1", "--json", "records.json"))
    (nox,) = medians((lambda: ours.run("--version"), nothing))
    (listed,) = medians((lambda: ours.run("-l"), nothing))
    records = ours.records()
    parts = {
        "Python and Nox start": nox.wall,
        "the file is read, sessions made": listed.wall - nox.wall,
        "32 compiles": sum(ours.compiles().values()),
        "128 layers and layouts": sum(each["seconds"]["assemble"] for each in records),
        "128 programs in bare sandboxes": len(records) * bare / SMOKE_RUNS,
        "their limits, and watching them": len(records) * (watched - bare) / SMOKE_RUNS,
    }
    parts["the rest: modules, facts, records, report"] = whole.wall - sum(parts.values())
    for what, seconds in parts.items():
        yield Figure(what=what, ours=f"{seconds:.2f} s", ratio=f"{seconds / whole.wall:.0%}")
    yield Figure(what="128 variants, cold, --jobs 1", ours=f"{whole}", ratio="100%")


def project(work: Path, home: Path) -> Iterator[Figure]:
    """The project's own matrix.

    Cold against its compiles one by one over the cores, and warm. Go and jlink use all cores by
    themselves, so that their seconds cannot be divided once more: the CPU of a run with `--jobs 1`
    over the cores is what no order of them can go below.
    """
    ours = Ours(work / "own", home)
    shutil.copy(REPOSITORY / "variants.yaml", ours.folder)
    shutil.copytree(REPOSITORY / "examples", ours.folder / "examples")
    (ours.folder / "noxfile.py").write_text(NOXFILE, encoding="utf-8")
    ours.matrix()
    ours.forget_builds()
    alone = cost(lambda: ours.run("-s", "matrix", "--", "--jobs", "1", "--json", "records.json"))
    least = sum(ours.compiles().values()) / CORES
    count = len(ours.records())
    cold, warm = medians((ours.matrix, ours.forget_builds), (ours.matrix, nothing))
    yield Figure(
        what=f"{count} variants, cold",
        ours=f"{cold}",
        against=f"its compiles one by one, over {CORES} cores: {least:.2f} s",
        ratio=f"{cold.wall / least:.2f} times",
        promised="at most 1.3",
    )
    yield Figure(
        what=f"{count} variants, cold",
        ours=f"{cold}",
        against=f"CPU of --jobs 1, over {CORES} cores: {alone.cpu / CORES:.2f} s",
        ratio=f"{cold.wall * CORES / alone.cpu:.2f} times",
    )
    yield Figure(
        what=f"{count} variants, warm",
        ours=f"{warm}",
        promised=f"under {3 + 0.015 * count:.2f} s",
    )
