"""Root filesystems made by hand, where a sandbox can use them."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from conftest import require
from dockerbench import opened
from handmade import Bench, make_roots, open_engine
from nox_variants.errors import EngineUnavailable
from nox_variants.sandbox import bubblewrap

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def public() -> Iterator[Path]:
    """Give a folder that every user can reach: pytest's own are closed to others."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture(scope="session")
def roots(public: Path) -> dict[str, Path]:
    """Give root filesystems with busybox, and one with programs to build."""
    try:
        bubblewrap.probe()
    except EngineUnavailable as error:
        require("embedded", str(error))
    return make_roots(public / "roots")


@pytest.fixture
def bench(roots: dict[str, Path], home: Path, source: Path) -> Bench:
    """Give an embedded engine, and a project with one source file."""
    return Bench(open_engine(home, roots, source.parent), source)


REAL = {
    "embedded": (pytest.mark.sandbox,),
    "buildkit": (pytest.mark.docker, pytest.mark.sandbox),
    "classic": (pytest.mark.docker, pytest.mark.sandbox),
    "podman": (pytest.mark.docker, pytest.mark.sandbox),
}
"""Every way to build and run for real, and what it needs."""


@pytest.fixture(params=[pytest.param(name, marks=marks) for name, marks in REAL.items()])
def real(
    request: pytest.FixtureRequest, roots: dict[str, Path], source: Path, home: Path
) -> Iterator[Bench]:
    """Give each real engine, with images of the same names."""
    yield from opened(request, home=home, roots=roots, source=source)
