"""The figures that the project promises: ratios, each measured side by side in one run.

`nox -s bench` runs all; `nox -s bench -- listing scale` runs some. Nothing here is a test: a slow
machine is no failure. Every figure is the median of several rounds, whole processes, wall time.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # what benchmarks share with tests

from docker_side import DockerSide
from nox_variants.results import Outcome
from projects import REPOSITORY

Work = Callable[[], object]

ROUNDS = int(os.environ.get("ROUNDS", "3"))
"""How often each side is timed; the median counts."""
SETTLED = float(os.environ.get("SETTLED", "1"))
"""Seconds before each timed call: the kernel ends cgroups and networks of earlier containers late,
and no side is to pay for another's."""
RUN_IMAGES = ("scratch", "busybox:glibc", "alpine", "debian")
NOXFILE = 'import nox_variants\n\nnox_variants.register("variants.yaml")\n'
HELLO = '#include <stdio.h>\n\nint main(void) {{\n    puts("Hello {name}");\n    return 0;\n}}\n'
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
PROGRAM = """\
  {name}:
    language: c
    source: {name}
    run: [{runs}]
    link: [dynamic, static, musl]
    include: [{included}]
    expect:
      - {{run: [scratch, alpine], link: dynamic, build: gcc, verdict: fails}}
      - {{run: [scratch, busybox*, debian], link: dynamic, build: alpine-gcc, verdict: fails}}
    smoke: {{stdout: "Hello {name}\\n"}}
"""


def write_project(folder: Path, programs: int) -> None:
    """Write `programs` C programs, 16 variants each: 4 ways to link over 4 run images."""
    runs = ", ".join(f'"{name}"' for name in RUN_IMAGES)
    included = ", ".join(
        f'{{run: "{name}", link: dynamic, build: alpine-gcc}}' for name in RUN_IMAGES
    )
    text = "version: 1\nprograms:\n"
    for number in range(programs):
        name = f"prog{number}"
        text += PROGRAM.format(name=name, runs=runs, included=included)
        (folder / name).mkdir(parents=True)
        (folder / name / "hello.c").write_text(HELLO.format(name=name), encoding="utf-8")
    (folder / "variants.yaml").write_text(text, encoding="utf-8")
    (folder / "noxfile.py").write_text(NOXFILE, encoding="utf-8")


class Ours:
    """`nox -s matrix` as a whole process, on the embedded engine unless told otherwise."""

    def __init__(self, folder: Path, home: Path, **environ: str) -> None:
        self.folder = folder
        self.home = home
        self._environ = {"NOX_VARIANTS_ENGINE": "embedded", **environ}

    def run(self, *arguments: str) -> str:
        """Run Nox; fail loudly, for a ratio against a failed run means nothing."""
        environ = {
            **os.environ,
            "NOX_VARIANTS_HOME": str(self.home),
            **self._environ,
        }
        # As after pip install: nobody compiles modules at every start.
        environ.pop("PYTHONDONTWRITEBYTECODE", None)
        done = subprocess.run(
            [sys.executable, "-m", "nox", *arguments],
            cwd=self.folder,
            env=environ,
            text=True,
            capture_output=True,
            check=False,
        )
        if done.returncode:
            sys.exit(done.stdout + done.stderr)
        return done.stdout

    def matrix(self) -> None:
        """Run the whole matrix."""
        self.run("-s", "matrix")

    def records(self) -> list[dict[str, Any]]:
        """Return the records of the last run that kept them."""
        text = (self.folder / "records.json").read_text(encoding="utf-8")
        records: list[dict[str, Any]] = json.loads(text)["records"]
        return records

    def forget_builds(self) -> None:
        """Leave only the prepared images in the store: what a first compile finds."""
        for kind in ("builds", "sources", "layers", "caches"):
            shutil.rmtree(self.home / kind, ignore_errors=True)
        shutil.rmtree(self.folder / ".variants", ignore_errors=True)


def seconds(work: Work) -> float:
    """Return the wall time of one call."""
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def medians(*sides: tuple[Work, Work], rounds: int = ROUNDS) -> list[float]:
    """Return each side's median wall time; the sides take turns, so that noise meets all alike.

    Args:
        sides: For each, what is timed, and what is done before it untimed.
        rounds: How often each is timed.
    """
    times: list[list[float]] = [[] for _ in sides]
    for _ in range(rounds):
        for number, (work, before) in enumerate(sides):
            before()
            time.sleep(SETTLED)
            times[number].append(seconds(work))
    return [statistics.median(each) for each in times]


def nothing() -> None:
    """Do what has to be done before most measurements."""


def report(name: str, ours: float, theirs: float, *, promised: str) -> None:
    """Print one figure."""
    print(
        f"{name:<34} {ours:8.2f} s  against {theirs:8.2f} s: {theirs / ours:6.1f} times faster"
        f" ({promised})",
        flush=True,
    )


def compare_with_docker(work: Path, home: Path) -> None:
    """16 and 128 variants, cold and warm, against docker build and docker run one by one."""
    with DockerSide.start(work / "docker") as docker:
        if docker is None:
            print("docker: no dockerd here, or not root: not measured", flush=True)
            return
        for programs, promised in ((1, ("at least 8", "at least 12")), (8, ("at least 15", "-"))):
            count = programs * 16
            ours = Ours(work / f"project{count}", home)
            ours.folder.mkdir()
            write_project(ours.folder, programs)
            ours.matrix()
            docker.load_roots(home, ours.folder / "variants.yaml", RUN_IMAGES)
            names = [f"prog{number}" for number in range(programs)]
            loop = functools.partial(docker.build_and_run, ours.folder, names, RUN_IMAGES)
            cold, docker_cold = medians(
                (ours.matrix, ours.forget_builds), (loop, docker.forget_builds)
            )
            warm, docker_warm = medians((ours.matrix, nothing), (loop, nothing))
            report(f"{count} variants, cold", cold, docker_cold, promised=promised[0])
            report(f"{count} variants, warm", warm, docker_warm, promised=promised[1])


def compare_engine(work: Path, home: Path) -> None:
    """16 variants on the docker engine, against docker and against docker-compose."""
    with DockerSide.start(work / "docker-engine") as docker:
        if docker is None:
            print("docker engine: no dockerd here, or not root: not measured", flush=True)
            return
        # The same local bases on all sides: nobody looks for a registry.
        environ = {"NOX_VARIANTS_ENGINE": "docker", "NOX_VARIANTS_IMAGES": "apt"}
        ours = Ours(work / "engine", home, DOCKER_HOST=docker.host, **environ)
        ours.folder.mkdir()
        write_project(ours.folder, 1)
        ours.matrix()
        docker.load_roots(home, ours.folder / "variants.yaml", RUN_IMAGES)
        one_by_one = functools.partial(docker.build_and_run, ours.folder, ["prog0"], RUN_IMAGES)
        file = docker.write_compose(ours.folder, ["prog0"], RUN_IMAGES)
        compose = functools.partial(docker.compose, file)

        def down() -> None:
            docker.compose_down(file)

        def forget() -> None:
            down()
            ours.forget_builds()
            docker.forget_builds()

        for name, before in (("cold", forget), ("warm", down)):
            mine, docker_time, compose_time = medians(
                (ours.matrix, before), (one_by_one, before), (compose, before)
            )
            what = f"docker engine, 16 variants, {name}"
            report(what, mine, docker_time, promised="at least 1.6, docker one by one")
            report(what, mine, compose_time, promised="never slower, docker-compose")


def compare_pulling(work: Path, home: Path) -> None:
    """A 250 MB image out of a registry on the loopback, and its unpacking alone."""
    from pulling import PullSide  # noqa: PLC0415  # it needs a registry

    ours = Ours(work / "pulling", home)
    ours.folder.mkdir()
    write_project(ours.folder, 1)
    with PullSide.start(ours.folder, home, ours.folder / "variants.yaml") as side:
        mine, theirs = medians((side.pull, side.forget), (side.docker_pull, side.forget))
        report_ratio(f"pull {side.size / 1e6:.0f} MB", mine, theirs, "docker pull")
        mine, theirs = medians(
            (side.unpack, side.forget_unpacked), (side.untar, side.forget_unpacked)
        )
        report_ratio("unpack alone", mine, theirs, "tar")


def report_ratio(name: str, ours: float, theirs: float, whose: str) -> None:
    """Print a figure that may be at most 1.5."""
    print(
        f"{name:<34} {ours:8.2f} s  against {theirs:8.2f} s: {ours / theirs:6.2f} times {whose}"
        " (at most 1.5)",
        flush=True,
    )


def compare_listing(work: Path, home: Path) -> None:
    """`nox -l` of 1,000 variants against a bare noxfile with 1,000 parametrised sessions."""
    ours = Ours(work / "listing", home)
    ours.folder.mkdir()
    write_many(ours.folder, 1000)
    # What one would write by hand for the same listing: the same ids, tags and descriptions.
    bare = Ours(work / "bare", home)
    bare.folder.mkdir()
    (bare.folder / "noxfile.py").write_text(BARE, encoding="utf-8")
    listed = ours.run("-l", "-t", "variant").count("* hello")
    if listed != 1000:
        sys.exit(f"nox -l showed {listed} variants, not 1000")
    mine, theirs = medians(
        (lambda: ours.run("-l"), nothing), (lambda: bare.run("-l"), nothing), rounds=15
    )
    print(
        f"{'nox -l, 1000 variants':<34} {mine:8.2f} s  against {theirs:8.2f} s: "
        f"{mine / theirs:6.2f} times a bare noxfile (at most 1.75)",
        flush=True,
    )


def write_many(folder: Path, count: int) -> None:
    """Write a project of `count` variants over 4 build stages: 250 run images each."""
    runs = [f"image{number}" for number in range(count // 4)]
    images = "\n".join(f"  {name}: {{apt: [busybox-static]}}" for name in runs)
    (folder / "hello").mkdir(parents=True)
    (folder / "hello" / "hello.c").write_text(HELLO.format(name="many"), encoding="utf-8")
    included = "\n".join(
        f"      - {{run: {name}, link: dynamic, build: alpine-gcc}}" for name in runs
    )
    (folder / "variants.yaml").write_text(
        "version: 1\nprograms:\n  hello:\n    language: c\n    source: hello\n"
        f"    run: [{', '.join(runs)}]\n    link: [dynamic, static, musl]\n"
        f"    include:\n{included}\n"
        '    expect:\n      - {run: "*", link: dynamic, verdict: fails, cause: missing-loader}\n'
        '    smoke: {stdout: "Hello many\\n"}\n'
        f"images:\n{images}\n",
        encoding="utf-8",
    )
    (folder / "noxfile.py").write_text(NOXFILE, encoding="utf-8")


def measure_scale(work: Path, home: Path) -> None:
    """1,000 variants over 4 build stages: wall time per variant beyond the builds, and memory."""
    ours = Ours(work / "scale", home)
    ours.folder.mkdir()
    write_many(ours.folder, 1000)
    ours.matrix()
    ours.forget_builds()
    builds = seconds(lambda: ours.run("-s", "matrix", "--", "--only", "hello(image0,*"))
    ours.forget_builds()
    whole = seconds(ours.matrix)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(
        f"{'1000 variants over 4 stages':<34} {whole:8.2f} s, of them {builds:.2f} s for 4 variants"
        f" and the builds: {(whole - builds) / 996 * 1000:.1f} ms per variant (at most 15);"
        f" largest process {peak:.0f} MiB (under 200)",
        flush=True,
    )


def measure_growth(work: Path, home: Path) -> None:
    """From 16 to 10,000 variants, 4 compiles for 16 of them: what docs/scaling.md has."""
    for programs in (1, 6, 63, 625):
        ours = Ours(work / f"growth{programs}", home)
        write_project(ours.folder, programs)
        ours.matrix()  # images are prepared
        ours.forget_builds()
        run = functools.partial(ours.run, "-s", "matrix", "--", "--json", "records.json")
        cold = seconds(run)
        builds = {
            (each["program"], each["build_image"], each["link"]): each["seconds"]["build"]
            for each in ours.records()
        }
        history = (ours.folder / ".variants" / "history.sqlite").stat().st_size / 1e6
        store = sum(
            path.lstat().st_size
            for kind in ("builds", "sources", "layers")
            for path in (home / kind).rglob("*")
        )
        warm = seconds(ours.matrix)
        listing = seconds(functools.partial(ours.run, "-l"))
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
        print(
            f"{16 * programs:>6} variants, {len(builds)} compiles: cold {cold:.2f} s (of which"
            f" compiles {sum(builds.values()):.1f} s one by one), warm {warm:.2f} s, nox -l"
            f" {listing:.2f} s; history {history:.1f} MB, builds {store / 1e6:.0f} MB, largest"
            f" process so far {peak:.0f} MiB",
            flush=True,
        )


def measure_project(work: Path, home: Path) -> None:
    """The project's own matrix: cold against its compiles one by one, and warm."""
    ours = Ours(work / "own", home)
    ours.folder.mkdir()
    (ours.folder / "noxfile.py").write_text(NOXFILE, encoding="utf-8")
    shutil.copy(REPOSITORY / "variants.yaml", ours.folder)
    shutil.copytree(REPOSITORY / "examples", ours.folder / "examples")
    ours.matrix()
    compiles, cold = [], []
    for _ in range(ROUNDS):
        ours.forget_builds()
        compiles.append(compile_times(ours))
        ours.forget_builds()
        time.sleep(SETTLED)
        cold.append(seconds(ours.matrix))
    alone, together = statistics.median(compiles), statistics.median(cold)
    cores = len(os.sched_getaffinity(0))
    print(
        f"{'the project, cold':<34} {together:8.2f} s  against {alone:8.2f} s of compiles one by"
        f" one on {cores} cores: {together / (alone / cores):6.2f} times (at most 1.3)",
        flush=True,
    )
    (warm,) = medians((ours.matrix, nothing))
    count = len(ours.records())
    print(
        f"{'the project, warm':<34} {warm:8.2f} s  for {count} variants"
        f" (under {3 + 0.015 * count:.2f})",
        flush=True,
    )


def compile_times(ours: Ours) -> float:
    """Return the sum of all compiles' wall times when nothing else runs beside them."""
    ours.run("-s", "matrix", "--", "--jobs", "1", "--json", "records.json")
    stages = {
        (record["program"], record["build_image"], record["link"]): record["seconds"]["build"]
        for record in ours.records()
    }
    return float(sum(filter(None, stages.values())))


def measure_history(work: Path, home: Path) -> None:
    """A year of nights: 365 runs of 200 variants, recorded, asked for a trend, made a page."""
    del home
    from nox_variants.commands import report as reporting  # noqa: PLC0415
    from nox_variants.history import History  # noqa: PLC0415
    from year import records, settings  # noqa: PLC0415  # records of the tests' own

    file = work / "history.sqlite"
    nights = list(records(nights=365, variants=200))
    with History(file) as history:
        begin = time.perf_counter()
        for record in nights[:2000]:
            history.add(record)
        adding = (time.perf_counter() - begin) / 2000
        history.merge(nights[2000:])
    with History(file) as history:
        last = nights[-1]
        (trend,) = medians((lambda: history.trend(last.variant), nothing))
        source = reporting.Source(
            history=history, settings=settings(), run_id=last.run_id, since="", program=""
        )
        (page,) = medians((lambda: reporting.of_run(source, "html"), nothing))
        size = len("".join(reporting.of_run(source, "html")).encode())
    print(
        f"{f'{len(nights)} records':<34} {adding * 1000:.2f} ms to record one (under 1);"
        f" {trend * 1000:.1f} ms for a trend (under 50); {page:.2f} s for a page (under 5) of"
        f" {size / 1e6:.2f} MB (under 3)",
        flush=True,
    )


def write_programs(folder: Path, count: int) -> None:
    """Write a project of `count` variants: programs with 5 run images and 2 link modes each."""
    (folder / "hello").mkdir(parents=True)
    runs = '[ubuntu, debian, alpine, "busybox:glibc", scratch]'
    program = f"{{language: c, source: hello, run: {runs}, link: [dynamic, static]}}"
    lines = [f"  p{number}: {program}" for number in range(count // 10)]
    text = "\n".join(("version: 1", "programs:", *lines, ""))
    (folder / "variants.yaml").write_text(text, encoding="utf-8")


def measure_shards(work: Path, home: Path) -> None:
    """Deal 10,000 variants out to 256 jobs, and join 100 shards of 1,000 records."""
    from nox_variants import recordfile  # noqa: PLC0415
    from nox_variants.sharding import Part  # noqa: PLC0415
    from year import records  # noqa: PLC0415  # records of the tests' own

    ours = Ours(work / "shards", home)
    write_programs(ours.folder, 10_000)

    def command(*words: str) -> Work:
        words = (sys.executable, "-m", "nox_variants", *words)
        return lambda: subprocess.run(words, cwd=ours.folder, check=True, capture_output=True)

    (dealt,) = medians((command("ci", "--emit-matrix", "--shards", "256"), nothing))
    every = list(records(nights=1, variants=100_000))
    for index in range(100):
        part = Part(index=index + 1, count=100, variants=len(every), matrix="0" * 64)
        mine = [replace(each, outcome=Outcome.PASSED) for each in every[index * 1000 :][:1000]]
        (ours.folder / f"{index:02}.json").write_text(
            "".join(recordfile.document(mine, part)), "utf-8"
        )
    files = [f"{index:02}.json" for index in range(100)]
    joined = seconds(command("merge", *files, "--json", "all.json"))
    print(
        f"{'10,000 variants, 256 shards':<34} {dealt:.2f} s to read, expand and deal out (under 3);"
        f" {joined:.2f} s to join 100 shards of 1,000 records (under 10)",
        flush=True,
    )


def main() -> None:
    """Measure what is asked for, or all."""
    parts = {
        "docker": compare_with_docker,
        "engine": compare_engine,
        "pulling": compare_pulling,
        "listing": compare_listing,
        "scale": measure_scale,
        "growth": measure_growth,
        "project": measure_project,
        "history": measure_history,
        "shards": measure_shards,
    }
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", choices=[*parts, []], help="what to measure")
    parser.add_argument("--home", type=Path, help="a store whose images may be used")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="nox-variants-bench-") as name:
        work = Path(name)
        home = arguments.home or work / "home"
        for part in arguments.parts or parts:
            parts[part](work, home)


if __name__ == "__main__":
    main()
