"""How what it costs grows: with variants, images, records, shards."""

from __future__ import annotations

import functools
import subprocess
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from figures import Figure
from nox_variants.results import Outcome
from workloads import (
    NOXFILE,
    Cost,
    Ours,
    Work,
    cost,
    medians,
    nothing,
    write_many,
    write_programs,
    write_project,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def scale(work: Path, home: Path) -> Iterator[Figure]:
    """1,000 variants over 4 compiles.

    What a variant costs beyond the compiles.
    """
    ours = Ours(work / "scale", home)
    write_many(ours.folder, 1000)
    ours.matrix()
    ours.forget_builds()
    few = cost(lambda: ours.run("-s", "matrix", "--", "--only", "hello(image0,*"))
    ours.forget_builds()
    whole = cost(ours.matrix)
    each = (whole.wall - few.wall) / 996 * 1000
    yield Figure(
        what="1,000 variants",
        ours=f"{whole}",
        against=f"4 of them, with all compiles: {few}",
        ratio=f"{each:.1f} ms per variant",
        promised="at most 15 ms",
    )
    yield Figure(what="largest process", ours=f"{ours.peak:.0f} MiB", promised="under 200 MiB")


def variants(work: Path, home: Path) -> Iterator[Figure]:
    """From 16 to 10,000 variants.

    4 compiles for 16 variants; cold, warm and listed.
    """
    for programs in (1, 6, 63, 625):
        ours = Ours(work / f"growth{programs}", home)
        write_project(ours.folder, programs)
        ours.matrix()  # images are prepared
        ours.forget_builds()
        cold = cost(ours.matrix_recorded)
        peak = ours.peak
        compiles = ours.compiles()
        history = (ours.folder / ".variants" / "history.sqlite").stat().st_size / 1e6
        store = sum(
            path.lstat().st_size
            for kind in ("builds", "sources", "layers")
            for path in (home / kind).rglob("*")
        )
        count = f"{16 * programs:,}"
        yield Figure(
            what=f"{count} variants, cold",
            ours=f"{cold}, {peak:.0f} MiB",
            against=f"{len(compiles)} compiles: {sum(compiles.values()):.1f} s",
        )
        warm = cost(ours.matrix)
        yield Figure(
            what=f"{count} variants, warm",
            ours=f"{warm}, {ours.peak:.0f} MiB",
            ratio=f"{warm.wall / 16 / programs * 1000:.1f} ms per variant",
        )
        yield Figure(
            what=f"{count} variants, nox -l", ours=f"{cost(functools.partial(ours.run, '-l'))}"
        )
        yield Figure(
            what=f"{count} variants, kept",
            ours=f"history {history:.1f} MB, builds {store / 1e6:.0f} MB",
        )


def images(work: Path, home: Path) -> Iterator[Figure]:
    """Run images of every size.

    One static program, warm, `--jobs 1`: what its layer and its run cost on top of small and large
    images.
    """
    names = ("scratch", "busybox:glibc", "ubuntu", "gcc")
    ours = Ours(work / "images", home)
    (ours.folder / "hello.c").write_text("int main(void) { return 0; }\n", encoding="utf-8")
    runs = ", ".join(f'"{name}"' for name in names)
    (ours.folder / "variants.yaml").write_text(
        "version: 1\nprograms:\n"
        f"  hello: {{language: c, source: ., run: [{runs}], link: [static]}}\n",
        encoding="utf-8",
    )
    (ours.folder / "noxfile.py").write_text(NOXFILE, encoding="utf-8")
    ours.matrix()
    ours.run("-s", "matrix", "--", "--jobs", "1", "--json", "records.json")
    for record in ours.records():
        spent = (record["seconds"]["assemble"] + record["seconds"]["smoke"]) * 1000
        yield Figure(
            what=f"{record['run_image']}, {record['sizes']['content'] / 1e6:.1f} MB",
            ours=f"{spent:.1f} ms for its layer and its run",
        )


def history(work: Path, home: Path) -> Iterator[Figure]:
    """A year of nights.

    365 runs of 200 variants: recorded, asked for a trend, made a page.
    """
    del home
    from nox_variants.commands import report as reporting  # noqa: PLC0415
    from nox_variants.history import History  # noqa: PLC0415
    from year import records, settings  # noqa: PLC0415  # records of the tests' own

    file = work / "history.sqlite"
    nights = list(records(nights=365, variants=200))
    with History(file) as kept:
        begin = time.perf_counter()
        for record in nights[:2000]:
            kept.add(record)
        adding = (time.perf_counter() - begin) / 2000
        kept.merge(nights[2000:])
    with History(file) as kept:
        last = nights[-1]
        (trend,) = medians((lambda: kept.trend(last.variant), nothing))
        source = reporting.Source(
            history=kept, settings=settings(), run_id=last.run_id, since="", program=""
        )
        (page,) = medians((lambda: reporting.of_run(source, "html"), nothing))
        size = len("".join(reporting.of_run(source, "html")).encode())
    yield Figure(what="to record one", ours=f"{adding * 1000:.2f} ms", promised="under 1 ms")
    yield Figure(
        what=f"a trend out of {len(nights):,}",
        ours=f"{trend.wall * 1000:.1f} ms",
        promised="under 50 ms",
    )
    yield Figure(
        what="its page",
        ours=f"{page.wall:.2f} s, {size / 1e6:.2f} MB",
        promised="under 5 s and 3 MB",
    )


def shards(work: Path, home: Path) -> Iterator[Figure]:
    """Shards.

    10,000 variants dealt out to 256 jobs, and 100 shards of 1,000 records joined: whole processes.
    """
    from nox_variants import recordfile  # noqa: PLC0415
    from nox_variants.sharding import Part  # noqa: PLC0415
    from year import records  # noqa: PLC0415  # records of the tests' own

    ours = Ours(work / "shards", home)
    write_programs(ours.folder, 10_000)

    def command(*words: str) -> Work:
        words = (sys.executable, "-m", "nox_variants", *words)
        return lambda: subprocess.run(words, cwd=ours.folder, check=True, capture_output=True)

    (dealt,) = medians((command("ci", "--emit-matrix", "--shards", "256"), nothing))
    yield Figure(what="10,000 variants dealt out", ours=f"{dealt}", promised="under 3 s")
    every = list(records(nights=1, variants=100_000))
    for index in range(100):
        part = Part(index=index + 1, count=100, variants=len(every), matrix="0" * 64)
        mine = [replace(each, outcome=Outcome.PASSED) for each in every[index * 1000 :][:1000]]
        text = "".join(recordfile.document(mine, part))
        (ours.folder / f"{index:02}.json").write_text(text, "utf-8")
    files = [f"{index:02}.json" for index in range(100)]
    joined: Cost = cost(command("merge", *files, "--json", "all.json"))
    yield Figure(what="100,000 records joined", ours=f"{joined}", promised="under 10 s")
