"""The cache of glibc's loader, made by hand, by `ldconfig`, and damaged."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import require
from elffiles import OLD_CACHE, cache
from nox_variants import ldcache


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("before", [b"", OLD_CACHE])
def test_entries(before: bytes, order: str) -> None:
    """Names lead to paths, in order; an older form before them is passed over."""
    assert ldcache.parse(before + cache(order=order)) == {
        "liba.so.1": ("/lib/liba.so.1", "/lib32/liba.so.1"),
        "b": ("/usr/b",),
    }


def test_special_entries_come_last() -> None:
    """What is for some processors only is the second choice."""
    paths = ldcache.parse(cache(special=(0,)))["liba.so.1"]

    assert paths == ("/lib32/liba.so.1", "/lib/liba.so.1")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        OLD_CACHE,
        OLD_CACHE[:14],
        cache()[:60],
        cache(count=2**32 - 1),
        cache(count=9),
        cache([("a", "x" * 4000)] * 3000),
        cache().replace(b"1.1", b"1.2", 1),
    ],
)
def test_no_cache(data: bytes) -> None:
    """What makes no sense, or is too much, is as good as none."""
    assert ldcache.parse(data) == {}


def test_relative_and_many_paths() -> None:
    """Only absolute paths count, and not more of one name than anyone has."""
    found = ldcache.parse(cache([("a", "lib/a"), *(("b", f"/{number}") for number in range(99))]))

    assert (found["a"], len(found["b"])) == ((), 16)


@given(
    damage=st.dictionaries(st.integers(0, 400), st.integers(0, 255), max_size=12),
    cut=st.integers(0, 400) | st.none(),
    before=st.sampled_from([b"", OLD_CACHE]),
)
def test_damaged(damage: dict[int, int], cut: int | None, before: bytes) -> None:
    """Whatever is overwritten or cut off, there are names and absolute paths, or none."""
    data = bytearray(before + cache())
    for at, value in damage.items():
        data[at % len(data)] = value

    found = ldcache.parse(bytes(data[:cut]))

    assert all(path.startswith("/") for paths in found.values() for path in paths)


@pytest.mark.subprocess
def test_as_ldconfig_says() -> None:
    """This machine's own cache has what `ldconfig -p` prints."""
    ldconfig = shutil.which("ldconfig", path="/sbin:/usr/sbin")
    file = Path("/etc/ld.so.cache")
    if ldconfig is None or not file.exists():
        require("ldconfig", "this machine has no glibc")
    printed = subprocess.run([ldconfig, "-p"], capture_output=True, text=True, check=True).stdout
    lines = [line.strip() for line in printed.splitlines() if " => " in line]

    found = ldcache.parse(file.read_bytes())

    pairs = {(line.split(" ", 1)[0], line.split(" => ", 1)[1]) for line in lines}
    assert pairs
    assert {(name, path) for name, paths in found.items() for path in paths} == pairs
