"""Thousands of runs of a small matrix, and what is more after them than before: `nox -s soak`.

Whole processes share a store and a project; then one process runs the matrix as often. What may
grow is the history, by a row of each variant and run.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import io
import os
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import smallmatrix
from nox_variants import config, invocation, matrix
from nox_variants.history import History
from nox_variants.options import Options, parse

if TYPE_CHECKING:
    from projects import Project

ONLY = ("--only", "hello(*", "--only", "installed*")
"""Variants that take no time by themselves."""

WARM = 50
"""Runs before the first look: caches, thread pools and the allocator have their size then."""

PATIENCE = 10
"""Seconds that orphans have to end."""

_SET_CHILD_SUBREAPER = 36  # linux/prctl.h

MEMORY = 4 << 20
"""Bytes that a process may have more after all runs: what the allocator keeps is not exact."""


def _pages() -> int:
    """Return this process's resident memory in bytes."""
    gc.collect()
    fields = Path("/proc/self/statm").read_text("ascii").split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")


def _count(folder: Path) -> int:
    """Return how many files there are, without the locks of processes that ended last."""
    return sum(path.is_file() and path.suffix != ".lock" for path in folder.rglob("*"))


def _adopt() -> None:
    """Have all orphans become children of this process, instead of getting out of sight."""
    ctypes.CDLL(None).prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _bury() -> None:
    """Take note of orphans that have ended: a process's guardian ends after it."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _children() -> int:
    """Return how many children, orphans of theirs included, are still there after a while."""
    children = Path(f"/proc/self/task/{os.getpid()}/children")
    end = time.monotonic() + PATIENCE
    while True:
        _bury()
        found = len(children.read_text("ascii").split())
        if found <= 1 or time.monotonic() > end:  # the guardian of this process's own sandboxes
            return found
        time.sleep(0.1)


def _containers() -> int:
    """Return how many containers Docker has; 0 where it does not answer."""
    try:
        done = subprocess.run(
            ["docker", "ps", "--all", "--quiet"],
            capture_output=True,
            text=True,
            check=False,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return 0
    return len(done.stdout.split())


def look(project: Project) -> dict[str, int]:
    """Return what must not grow."""
    return {
        "files in the store": _count(project.home),
        "files in .variants": _count(project.folder / ".variants"),
        "mounts": Path("/proc/self/mountinfo").read_text("utf-8").count(os.fspath(project.home)),
        "containers": _containers(),
        "open files": len(list(Path("/proc/self/fd").iterdir())),
        "threads": len(list(Path("/proc/self/task").iterdir())),
        "processes": _children(),
        "memory": _pages(),
    }


def rows(project: Project) -> int:
    """Return how many records the history has."""
    with History(project.folder / ".variants/history.sqlite") as history:
        return len(history.points())


def processes(project: Project, runs: int) -> None:
    """Run the matrix in processes of their own."""
    for _ in range(runs):
        done = project.nox("-s", "matrix", "--", *ONLY)
        if done.returncode:
            raise SystemExit(done.stdout + done.stderr)
        _bury()


def inside(project: Project, runs: int) -> None:
    """Run the matrix in this process."""
    settings = config.load(project.folder / "variants.yaml")
    options = parse(ONLY, project.environment(), prog="soak")
    assert isinstance(options, Options)
    selected = matrix.select(matrix.expand(settings).variants, only=options.only, skip=options.skip)
    for _ in range(runs):
        records = invocation.run(
            settings, selected, options, stream=io.StringIO(), environ=project.environment()
        )
        bad = [record for record in records if record.outcome.bad]
        if bad:
            raise SystemExit(f"{bad[0].variant}: {bad[0].outcome}: {bad[0].reason}")


def grown(before: dict[str, int], after: dict[str, int]) -> list[str]:
    """Return what is more than before."""
    allowed = {"memory": MEMORY}
    return [
        f"{name}: {before[name]} before, {after[name]} after"
        for name in before
        if after[name] - before[name] > allowed.get(name, 0)
    ]


def soak(way: str, project: Project, runs: int) -> list[str]:
    """Run a matrix many times in a way; print figures, and return what has grown."""
    work = {"processes": processes, "inside": inside}[way]
    work(project, min(WARM, runs))
    before, had, begin = look(project), rows(project), time.monotonic()
    work(project, runs)
    seconds, after, has = time.monotonic() - begin, look(project), rows(project)
    lines = [f"{way}: {runs} runs in {seconds:.0f} s, {has - had} records"]
    lines += [f"  {name}: {before[name]} before, {after[name]} after" for name in before]
    print("\n".join(lines))  # noqa: T201  # figures are printed
    each = (has - had) / runs
    wrong = [] if each == int(each) and each else [f"history: {has - had} records of {runs} runs"]
    return [*wrong, *grown(before, after)]


def main() -> None:
    """Run both ways; exit with 1 when something has grown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=2000, help="default: %(default)s")
    parser.add_argument("--way", choices=("processes", "inside"), action="append")
    args = parser.parse_args()
    _adopt()
    with tempfile.TemporaryDirectory() as place:
        base = Path(place)
        project = smallmatrix.make(base / "project", base / "home", smallmatrix.save(base))
        ways = args.way or ("processes", "inside")
        found = [each for way in ways for each in soak(way, project, args.runs)]
    print("\n".join(found) or "nothing has grown")  # noqa: T201
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
