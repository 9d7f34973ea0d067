"""The figures that the project promises: ratios, each measured side by side in one run.

`nox -s bench` runs all; `nox -s bench -- listing scale` runs some; `--write` puts them into
docs/benchmarks.md. Nothing here is a test: a slow machine is no failure. Figures are medians
of several rounds (ROUNDS), of whole processes.
"""

from __future__ import annotations

import argparse
import inspect
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parents[1]))  # what benchmarks share with tests

import comparisons
import figures
import growth
import workloads
from projects import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PARTS: dict[str, Callable[[Path, Path], Iterator[figures.Figure]]] = {
    "docker": comparisons.docker,
    "engine": comparisons.engine,
    "smoke": comparisons.smoke,
    "pulling": comparisons.pulling,
    "listing": comparisons.listing,
    "limit": comparisons.limit,
    "profile": comparisons.profile,
    "project": comparisons.project,
    "scale": growth.scale,
    "variants": growth.variants,
    "images": growth.images,
    "history": growth.history,
    "shards": growth.shards,
}
PAGE = REPOSITORY / "docs" / "benchmarks.md"
HEAD = Path(__file__).with_name("head.md")


def measure(name: str, work: Path, home: Path) -> figures.Section:
    """Measure one part, and print its figures as they come."""
    part = PARTS[name]
    title, _, text = (inspect.getdoc(part) or "").partition("\n")
    made = figures.Section(title=title, text=text.strip())
    print(title, flush=True)
    (work / name).mkdir()
    for figure in part(work / name, home):
        print(f"  {figure}", flush=True)
        made.figures.append(figure)
    return made


def main() -> None:
    """Measure what is asked for, or all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="what to measure")
    parser.add_argument("--home", type=Path, help="a store whose images may be used")
    parser.add_argument(
        "--write", action="store_true", help="make docs/benchmarks.md, or these parts of it, anew"
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="nox-variants-bench-") as name:
        work = Path(name)
        home = arguments.home or work / "home"
        try:
            found = [measure(part, work, home) for part in arguments.parts or PARTS]
        finally:
            shutil.rmtree(home / workloads.ASIDE, ignore_errors=True)
    if arguments.write:
        page = figures.page(found, HEAD.read_text("utf-8"))
        if arguments.parts:
            page = figures.replaced(PAGE.read_text("utf-8"), page)
        PAGE.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
