"""Who may import what: the rules of the design, read from the modules themselves."""

from __future__ import annotations

import ast
import functools
import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

import nox_variants

PACKAGE = Path(nox_variants.__file__).parent
NAME = "nox_variants"
SOURCES = {
    ".".join(file.relative_to(PACKAGE).with_suffix("").parts): file
    for file in sorted(PACKAGE.rglob("*.py"))
}
"""Files by module, named within the package: ``engines.fake``, ``engines.__init__``."""

TREES = {module: ast.parse(file.read_bytes()) for module, file in SOURCES.items()}

PURE = (
    "advice",
    "bake",
    "baseline",
    "budgets",
    "compare",
    "diagnosis",
    "dockerfile",
    "limits",
    "linkage",
    "matrix",
    "needs",
    "obstacles",
    "plan",
    "registrycache",
    "repetition",
    "reports",
    "subject",
    "trend",
)
IMPURE = {"os", "subprocess", "time", "nox", "docker"}
LAYERS = (
    ("errors", "limits", "model", "registrycache", "results"),
    ("oci", "images", "sandbox"),
    ("engines",),
    ("runner",),
    ("sessions", "invocation", "cli", "commands"),
)
"""Each may import those before it, and none behind it."""


@functools.cache
def imported(module: str) -> frozenset[str]:
    """Return all that a module imports anywhere: modules, and what is taken from them."""
    found: set[str] = set()
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            found.add(f"{node.module}")
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return frozenset(found)


def own(module: str) -> set[str]:
    """Return the modules of the package that a module imports."""
    names = {name.removeprefix(f"{NAME}.") for name in imported(module)}
    return {name for name in names if name in TREES} | {
        f"{name}.__init__" for name in names if f"{name}.__init__" in TREES
    }


def within(module: str, places: tuple[str, ...]) -> bool:
    """Tell whether a module is one of some modules and folders."""
    return module.startswith(tuple(f"{place}." for place in places)) or module in places


def importers(name: str) -> set[str]:
    """Return the modules that import a third party's package, or a part of it."""
    return {
        module
        for module in TREES
        if any(each == name or each.startswith(f"{name}.") for each in imported(module))
    }


def pure() -> list[str]:
    """Return the modules that promise to be pure."""
    return [module for module in TREES if within(module, PURE)]


def test_what_is_seen() -> None:
    """The reading of imports finds plain, nested and partial ones."""
    assert {"nox", "nox_variants.matrix", "typing.TYPE_CHECKING"} <= imported("sessions")
    assert {"matrix", "errors", "invocation", "reports.table"} <= own("sessions")
    assert {
        "matrix",
        "plan",
        "limits",
        "linkage",
        "subject",
        "obstacles",
        "needs",
        "diagnosis",
        "reports.table",
    } <= set(pure())


@pytest.mark.parametrize("module", pure())
def test_pure_modules(module: str) -> None:
    """A pure module imports nothing that acts, nor does any module of ours that it imports."""
    reached, todo = set(), {module}
    while todo:
        reached |= todo
        todo = set().union(*map(own, todo)) - reached

    assert {name: reached & importers(name) for name in IMPURE} == {name: set() for name in IMPURE}


def test_only_sessions_know_nox() -> None:
    """Nox is imported by one module."""
    assert importers("nox") == {"sessions"}


def test_who_knows_docker() -> None:
    """The docker SDK is imported by its engine, for credentials, and for ``.dockerignore``."""
    others = {
        module
        for module in importers("docker")
        if not module.startswith(("engines.docker", "images.credentials"))
    }

    assert others == {"sources"}


@pytest.mark.parametrize("module", TREES)
def test_no_relative_imports(module: str) -> None:
    """Every import says from where."""
    froms = [node for node in ast.walk(TREES[module]) if isinstance(node, ast.ImportFrom)]

    assert [node.lineno for node in froms if node.level > 0] == []


@pytest.mark.parametrize("number", range(len(LAYERS) - 1))
def test_direction(number: int) -> None:
    """No layer imports one above it."""
    above = sum(LAYERS[number + 1 :], ())
    modules = [module for module in TREES if within(module, LAYERS[number])]

    assert modules
    assert {each: own(each) for each in modules if any(within(o, above) for o in own(each))} == {}


def test_errors_and_model_stand_alone() -> None:
    """The lowest modules import nothing of the package: but settings have limits and a cache."""
    lowest = ("errors", "limits", "registrycache")
    assert [own(module) for module in lowest] == [set()] * len(lowest)
    assert own("model") == {"limits", "registrycache"}


def test_runner_knows_no_engine() -> None:
    """The runner knows what an engine promises, and none of them by name."""
    assert {name for name in own("runner") if within(name, ("engines",))} == {"engines.protocol"}


def exporting() -> list[str]:
    """Return the modules with an ``__all__``."""
    return [
        ".".join(filter(None, (NAME, module.removesuffix("__init__").rstrip("."))))
        for module, tree in TREES.items()
        if any(
            isinstance(node, ast.Name) and node.id == "__all__" and isinstance(node.ctx, ast.Store)
            for node in ast.walk(tree)
        )
    ]


@pytest.mark.parametrize("name", exporting())
def test_exported_names_exist(name: str) -> None:
    """All that a module exports is there, once, and sorted."""
    module = importlib.import_module(name)

    assert module.__all__ == sorted(set(module.__all__))
    assert [each for each in module.__all__ if not hasattr(module, each)] == []


def test_the_package_exports_something() -> None:
    """The package itself is among those that are checked."""
    assert NAME in exporting()


HEAVY = ("docker", "elftools", "jinja2", "rich", "sqlite3")
"""Slow to import (10 to 100 ms each), and not needed to list sessions."""

_LOAD = f"""
import sys
import nox_variants.sessions
print(*(name for name in {("nox", *HEAVY)} if name in sys.modules))
"""


@pytest.mark.subprocess
def test_registration_is_light() -> None:
    """What a noxfile imports, once a process, loads nothing that listing can do without."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")
    }  # coverage imports sqlite3 itself

    done = subprocess.run(
        [sys.executable, "-c", _LOAD], env=environment, capture_output=True, text=True, check=False
    )

    assert (done.stdout, done.stderr) == ("nox\n", "")
