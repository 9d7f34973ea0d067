"""Projects to measure, `nox` as a whole process, and what a call costs."""

from __future__ import annotations

import json
import os
import secrets
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Work = Callable[[], object]

ROUNDS = int(os.environ.get("ROUNDS", "3"))
"""How often each side is timed; the median counts."""
TRIES = 5
"""Times that a tool may try what fails now and then."""

SETTLED = float(os.environ.get("SETTLED", "1"))
"""Seconds before each timed call: the kernel ends cgroups and networks of earlier containers late,
and no side is to pay for another's."""
ASIDE = "aside"
CORES = len(os.sched_getaffinity(0))
PEAK = "peak"
NOX = f"""
import atexit, pathlib
from nox._cli import main

def keep():
    lines = pathlib.Path("/proc/self/status").read_text("ascii").splitlines()
    peak = next(line.split()[1] for line in lines if line.startswith("VmHWM:"))
    pathlib.Path("{PEAK}").write_text(peak, "ascii")

atexit.register(keep)
main()
"""
"""`python -m nox` that keeps its peak memory: a rusage(2) has that of who started it, if more."""
RUN_IMAGES = ("scratch", "busybox:glibc", "alpine", "debian")
NOXFILE = 'import nox_variants\n\nnox_variants.register("variants.yaml")\n'
HELLO = '#include <stdio.h>\n\nint main(void) {{\n    puts("Hello {name}");\n    return 0;\n}}\n'
EDITION = "const char edition[] = "
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


def edit(folder: Path) -> None:
    """Change each C program below a folder: nobody has built it, and nothing has to be deleted.

    What was deleted costs who makes files next on some file systems (ext4 without a journal looks
    for inodes that were free for long).
    """
    for file in folder.rglob("*.c"):
        text, _, _ = file.read_text("utf-8").partition(EDITION)
        file.write_text(f'{text}{EDITION}"{secrets.token_hex(8)}";\n', "utf-8")


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


def write_programs(folder: Path, count: int) -> None:
    """Write a file of `count` variants: programs with 5 run images and 2 link modes each."""
    (folder / "hello").mkdir(parents=True)
    runs = '[ubuntu, debian, alpine, "busybox:glibc", scratch]'
    program = f"{{language: c, source: hello, run: {runs}, link: [dynamic, static]}}"
    lines = [f"  p{number}: {program}" for number in range(count // 10)]
    text = "\n".join(("version: 1", "programs:", *lines, ""))
    (folder / "variants.yaml").write_text(text, encoding="utf-8")


class Ours:
    """`nox -s matrix` as a whole process, on the embedded engine unless told otherwise.

    Attributes:
        folder: The project.
        home: The store.
        peak: MiB of the largest process of the last run.
    """

    def __init__(self, folder: Path, home: Path, **environ: str) -> None:
        self.folder = folder
        self.home = home
        self.peak = 0.0
        self._environ = {"NOX_VARIANTS_ENGINE": "embedded", **environ}
        folder.mkdir(parents=True, exist_ok=True)

    def run(self, *arguments: str) -> str:
        """Run Nox; fail loudly, for a ratio against a failed run means nothing."""
        environ = {**os.environ, "NOX_VARIANTS_HOME": str(self.home), **self._environ}
        # As after pip install: nobody compiles modules at every start.
        environ.pop("PYTHONDONTWRITEBYTECODE", None)
        command = [sys.executable, "-c", NOX, *arguments]
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode:
            sys.exit(done.stdout)
        self.peak = int((self.folder / PEAK).read_text("ascii")) / 1024
        return done.stdout

    def matrix(self) -> None:
        """Run the whole matrix."""
        self.run("-s", "matrix")

    def matrix_recorded(self) -> None:
        """Run the whole matrix, and keep its records for :meth:`records`."""
        self.run("-s", "matrix", "--", "--json", "records.json")

    def records(self) -> list[dict[str, Any]]:
        """Return the records of the last run that kept them."""
        text = (self.folder / "records.json").read_text(encoding="utf-8")
        records: list[dict[str, Any]] = json.loads(text)["records"]
        return records

    def compiles(self) -> dict[object, float]:
        """Return the seconds of each compile that these records have."""
        return {
            (each["program"], each["build_image"], each["link"]): each["seconds"]["build"] or 0.0
            for each in self.records()
        }

    def forget_builds(self) -> None:
        """Leave only the prepared images in the store: what a first compile finds.

        The rest is put aside, and deleted in the end; see :func:`edit`.
        """
        aside = self.home / ASIDE / secrets.token_hex(8)
        aside.mkdir(parents=True)
        for kind in ("builds", "sources", "layers", "caches"):
            with suppress(FileNotFoundError):
                (self.home / kind).rename(aside / kind)
        self.forget_runs()

    def forget_runs(self) -> None:
        """Leave nothing of earlier runs in the project."""
        with suppress(FileNotFoundError):
            (self.folder / ".variants").rename(self.folder / f"{ASIDE}-{secrets.token_hex(8)}")


class FailedError(Exception):
    """Another tool cannot do it; the last line of what it says."""

    def __init__(self, said: str) -> None:
        super().__init__(said.strip().splitlines()[-1] if said.strip() else "without a word")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a call cost.

    Attributes:
        wall: Seconds.
        cpu: Seconds of the whole machine's processors, for a daemon works elsewhere; so nothing
            else may run meanwhile.
    """

    wall: float
    cpu: float

    def __str__(self) -> str:
        return f"{self.wall:.2f} s, {self.cpu:.1f} s of CPU"


def cost(work: Work) -> Cost:
    """Return what one call costs."""
    busy, begin = _busy(), time.perf_counter()
    work()
    return Cost(wall=time.perf_counter() - begin, cpu=_busy() - busy)


def _busy() -> float:
    """Return the seconds that the processors have worked (proc(5), ``/proc/stat``)."""
    first = Path("/proc/stat").read_text("ascii").splitlines()[0].split()[1:]
    user, nice, system, _, _, irq, softirq = map(int, first[:7])
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def seconds(work: Work) -> float:
    """Return the wall time of one call."""
    return cost(work).wall


def medians(*sides: tuple[Work, Work], rounds: int = ROUNDS) -> list[Cost]:
    """Return each side's median cost; the sides take turns, so that noise meets all alike.

    Args:
        sides: For each, what is timed, and what is done before it untimed.
        rounds: How often each is timed.
    """
    costs: list[list[Cost]] = [[] for _ in sides]
    for _ in range(rounds):
        for number, (work, before) in enumerate(sides):
            costs[number].append(_measured(work, before))
    return [
        Cost(
            wall=statistics.median(each.wall for each in some),
            cpu=statistics.median(each.cpu for each in some),
        )
        for some in costs
    ]


def _measured(work: Work, before: Work) -> Cost:
    """Return what a call costs that works: what does not is tried again."""
    for _ in range(TRIES - 1):
        before()
        time.sleep(SETTLED)
        with suppress(FailedError):
            return cost(work)
    before()
    return cost(work)


def nothing() -> None:
    """Do what has to be done before most measurements."""
