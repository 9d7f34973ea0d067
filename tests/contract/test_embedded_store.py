"""What the embedded engine makes of its store: damaged, shared, without the cache."""

from __future__ import annotations

import os
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from handmade import COPY, GREETING, SMOKE, Bench, made_by, open_engine
from nox_variants.errors import BuildFailed, StoreError
from nox_variants.oci.digest import sha256_file
from sandboxed import child, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


pytestmark = pytest.mark.sandbox

STATIC = COPY.format(link="static")


def test_failed_builds_leave_nothing(bench: Bench, home: Path) -> None:
    """A build that failed is not kept, and is tried again."""
    for _ in range(2):
        with pytest.raises(BuildFailed):
            bench.build(bench.plan("touch /out/other; exit 1"))

    assert [path.name for path in (home / "tmp").iterdir() if path.is_dir()] == []
    assert not (home / "builds").exists()


def truncate(file: Path) -> None:
    """Cut a file off, as a full disk or a crash does."""
    file.chmod(0o644)
    os.truncate(file, file.stat().st_size // 2)


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda folder: truncate(next(folder.glob("artifacts/*"))), id="artifact"),
        pytest.param(lambda folder: next(folder.glob("artifacts/*")).unlink(), id="no artifact"),
        pytest.param(lambda folder: truncate(folder / "build.json"), id="metadata"),
        pytest.param(lambda folder: (folder / "build.json").unlink(), id="no metadata"),
        pytest.param(lambda folder: shutil.rmtree(folder / "upper"), id="no changes"),
    ],
)
def test_damaged_build(bench: Bench, home: Path, damage: Callable[[Path], None]) -> None:
    """A build that is no longer what it was is made anew."""
    first = bench.build(bench.plan())
    damage(home / "builds" / first.key)
    second = bench.build(bench.plan())

    assert (second.cached, second.artifacts) == (False, first.artifacts)
    assert bench.build(bench.plan()).cached
    assert bench.run(bench.plan(run="gcc")).stdout == GREETING


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda folder: truncate(folder / "layer.json"), id="metadata"),
        pytest.param(lambda folder: truncate(folder / "root/hello-c"), id="program"),
        pytest.param(lambda folder: shutil.rmtree(folder / "root"), id="no root"),
        pytest.param(
            lambda folder: truncate(max(folder.iterdir(), key=lambda file: len(file.name))),
            id="tar",
        ),
    ],
)
def test_damaged_layer(
    bench: Bench, roots: dict[str, Path], home: Path, damage: Callable[[Path], None]
) -> None:
    """A layer that is no longer what it was is made anew, by the next run."""
    first = bench.image(bench.plan())
    (folder,) = (home / "layers").iterdir()
    damage(folder)
    again = Bench(open_engine(home, roots, bench.source.parent), bench.source)
    second = again.image(again.plan())

    assert second == first
    assert again.engine.smoke(second, SMOKE).stdout == GREETING
    assert sha256_file(bench.blob(second, second.layers[-1])) == second.layers[-1]


def test_store_that_takes_nothing(bench: Bench, home: Path) -> None:
    """A store that does not take what was made is an error that says where."""
    (home / "layers").write_text("in the way", encoding="utf-8")

    with pytest.raises(StoreError, match="layers"):
        bench.image(bench.plan())


def test_built_anew_and_different(bench: Bench, roots: dict[str, Path], home: Path) -> None:
    """A single-stage image of a build that was made anew is that build's, to the last byte."""
    commands = f"{STATIC}; readlink /proc/self/ns/pid > stamp"
    first = bench.image(bench.plan(commands, run="gcc"))
    engine = open_engine(home, roots, bench.source.parent, use_cache=False)
    again = Bench(engine, bench.source)
    second = again.image(again.plan(commands, run="gcc"))

    assert first.layers[:2] == second.layers[:2]
    assert first.layers[2] != second.layers[2]
    assert sha256_file(again.blob(second, second.layers[2])) == second.layers[2]


def test_without_cache(bench: Bench, roots: dict[str, Path], home: Path) -> None:
    """Without the cache a build is compiled again, and takes the place of the old one."""
    first = bench.build(bench.plan())
    engine = open_engine(home, roots, bench.source.parent, use_cache=False)
    second = Bench(engine, bench.source).build(bench.plan())

    assert (second.cached, second.key) == (False, first.key)


SLOW = f"echo x >> /kept/count; while ! [ -e /kept/go ]; do sleep 0.01; done; {STATIC}"


class Asked(threading.Event):
    """An event of an engine that tells whether it was looked at: while the engine waits."""

    asked = False

    def is_set(self) -> bool:
        self.asked = True
        return super().is_set()


@pytest.mark.parametrize("use_cache", [True, False], ids=["cached", "anew"])
def test_several_engines_at_once(
    roots: dict[str, Path],
    home: Path,
    source: Path,
    use_cache: bool,  # noqa: FBT001
) -> None:
    """Equal stages that are built at the same time are compiled once, also without the cache."""
    events = [Asked() for _ in range(4)]

    def build(event: Asked) -> bool:
        engine = open_engine(home, roots, source.parent, use_cache=use_cache, cancelled=event)
        bench = Bench(engine, source)
        return bench.build(bench.plan(SLOW, stage_caches=("/kept",))).cached

    def counts() -> list[Path]:
        return list((home / "caches").glob("*/count"))

    with ThreadPoolExecutor(len(events)) as threads:
        first = threads.submit(build, events[0])
        wait_until(lambda: bool(counts()), "the first one compiles")
        others = [threads.submit(build, event) for event in events[1:]]
        wait_until(lambda: all(event.asked for event in events), "the others wait")
        (count,) = counts()
        count.with_name("go").touch()

    assert [first.result(), *(other.result() for other in others)] == [False, True, True, True]
    assert count.read_text(encoding="utf-8") == "x\n"


def test_two_processes_at_once(roots: dict[str, Path], home: Path, source: Path) -> None:
    """Processes that build the same at the same time compile it once, and make the same image."""
    children = [child(None, made_by, home, roots, source, ("scratch",)) for _ in range(3)]
    results = [each.result() for each in children]

    assert len({digests for digests, _ in results}) == 1
    assert sum(len(compiled) for _, compiled in results) == 1
