"""What all tests share: a private home, and rules about who may start what."""

from __future__ import annotations

import os
import signal
import subprocess
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import hypothesis
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    import daemons

REQUIRED = frozenset(filter(None, os.environ.get("VARIANTS_REQUIRE", "").split(",")))
"""What this machine must have: a test that would skip for the lack of it fails."""


hypothesis.settings.register_profile("here", deadline=None)
hypothesis.settings.load_profile("here")


CORPUS = "corpus"
"""Under this name tests report a pair that was tried: engine, cause, and whether all agree."""

_pairs: list[tuple[str, str, bool]] = []


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Collect the pairs of the corpus, also those of other workers."""
    if report.when == "call":
        _pairs.extend(pair for name, pair in report.user_properties if name == CORPUS)  # type: ignore[misc]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how many predictions were seen to be right."""
    if not _pairs:
        return
    engines = Counter(engine for engine, _, _ in _pairs)
    agreed = Counter(engine for engine, _, agree in _pairs if agree)
    causes = Counter(cause or "none" for _, cause, _ in _pairs)
    tried = [f"{each} pairs on {name}, {agreed[name]} agree" for name, each in engines.items()]
    seen = ", ".join(f"{cause} {number}" for cause, number in causes.most_common())
    terminalreporter.write_line(f"corpus: {'; '.join(tried)}; causes: {seen}")


def pytest_configure() -> None:
    """Let Ctrl-C reach what tests start: a shell's background job ignores it, and so would they."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees the user's own settings."""
    for name in ("ENGINE", "IMAGES", "JOBS", "HOME"):
        monkeypatch.delenv(f"NOX_VARIANTS_{name}", raising=False)
    for name in ("SOURCE_DATE_EPOCH", "GITHUB_STEP_SUMMARY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True)
def no_subprocess_in_unit_tests(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A unit test that starts a process fails: only marked tests may."""
    allowed = {"sandbox", "apt", "docker", "browser", "subprocess"}
    if any(mark.name in allowed for mark in request.node.iter_markers()):
        return

    def refuse(*args: object, **_: object) -> NoReturn:
        raise AssertionError(f"a unit test started a process: {args!r}")

    monkeypatch.setattr(subprocess, "Popen", refuse)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A store home of the test's own."""
    return tmp_path / "home"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """The source folder of a project."""
    folder = tmp_path / "project" / "hello-c"
    folder.mkdir(parents=True)
    (folder / "hello.c").write_text("int main(void) { return 0; }\n", encoding="utf-8")
    return folder


def require(what: str, reason: str) -> NoReturn:
    """Skip for the lack of something, or fail where ``VARIANTS_REQUIRE`` says it must be there."""
    if what in REQUIRED:
        pytest.fail(f"{what} is required here: {reason}")
    pytest.skip(reason)


@pytest.fixture(scope="session")
def docker_service() -> Iterator[daemons.Service]:
    """A Docker daemon of the tests' own."""
    import daemons  # noqa: PLC0415  # it imports this module

    with daemons.docker() as service:
        yield service


@pytest.fixture(scope="session")
def podman_service() -> Iterator[daemons.Service]:
    """A Podman service of the tests' own."""
    import daemons  # noqa: PLC0415  # it imports this module

    with daemons.podman() as service:
        yield service


@pytest.fixture(scope="session")
def shared_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that all end-to-end tests share, in all workers, so that images are prepared once."""
    kept = os.environ.get("VARIANTS_TEST_HOME")
    if kept:
        return Path(kept)
    base = tmp_path_factory.getbasetemp()
    home = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "shared-home"
    home.mkdir(exist_ok=True)
    return home
