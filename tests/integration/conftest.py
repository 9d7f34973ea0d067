"""Small programs and roots for the sandbox, and a Docker daemon of the tests' own."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from browsing import PAGES, Opened
from conftest import require
from handmade import Docker, make_roots
from nox_variants.errors import EngineUnavailable
from nox_variants.sandbox import bubblewrap
from sandboxed import OTHER, Child, User, give, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from playwright.sync_api import Browser

PROBE = Path(__file__).with_name("probe.c")
SERVER = Path(__file__).with_name("server.c")
HELLO = '#include <stdio.h>\nint main(void) { return puts("Hello, world!") < 0; }\n'

CLIENTS = ("/usr/bin/docker", shutil.which("docker"))
"""Debian's own client first: it fits the daemon."""


@pytest.fixture(autouse=True)
def sandbox_works(request: pytest.FixtureRequest) -> None:
    """Skip what needs a sandbox where there is none."""
    if request.node.get_closest_marker("sandbox"):
        try:
            bubblewrap.probe()
        except EngineUnavailable as error:
            require("embedded", str(error))


@pytest.fixture(scope="session")
def public() -> Iterator[Path]:
    """Give a folder that every user can reach: pytest's own are closed to others."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture(scope="session")
def root(public: Path) -> Path:
    """Give a root with programs: linked statically with glibc and musl, and dynamically."""
    folder = public / "root"
    folder.mkdir()
    for name, text, *words in (
        ("probe", PROBE.read_text(encoding="utf-8"), "gcc", "-static"),
        ("musl", HELLO, "musl-gcc", "-static"),
        ("server", SERVER.read_text(encoding="utf-8"), "musl-gcc", "-static"),
        ("dynamic", HELLO, "gcc"),
    ):
        if shutil.which(words[0]) is None:
            require("compilers", f"{words[0]} is not installed")
        compiler = [*words, "-x", "c", "-", "-o", str(folder / name)]
        subprocess.run(compiler, input=text.encode(), check=True)
    for name in ("dev", "proc", "tmp", "work"):
        (folder / name).mkdir()
    (folder / "tmp").chmod(0o1777)
    (folder / "text").write_text("no program\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def skeleton(public: Path) -> Path:
    """Give what an engine lays over a root: mount points, and the files of /etc."""
    folder = public / "skeleton"
    for name in ("dev", "proc", "tmp", "etc"):
        (folder / name).mkdir(parents=True)
    (folder / "tmp").chmod(0o1777)
    (folder / "etc/hosts").write_text("127.0.0.1\tlocalhost\n", encoding="utf-8")
    (folder / "etc/resolv.conf").write_text("# none\n", encoding="utf-8")
    return folder


@pytest.fixture
def place(public: Path, request: pytest.FixtureRequest) -> Path:
    """Give the name of a folder of the test's own that every user can reach."""
    return public / f"{len(list(public.iterdir()))}-{request.node.name[:20].replace('/', '-')}"


@pytest.fixture(scope="session")
def roots(public: Path) -> dict[str, Path]:
    """Give root filesystems to make images of."""
    return make_roots(public / "roots")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Give the system's Chromium, driven by Playwright; its event loop ends with the module."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        require("browser", "chromium is not installed")
    from playwright.sync_api import sync_playwright  # noqa: PLC0415  # slow, and for few tests

    # Chromium's own sandbox refuses root.
    flags = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=program, args=flags)
        yield started
        started.close()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """Give the address of a page, by its name."""
    folder = tmp_path_factory.mktemp("pages")

    def address(name: str) -> str:
        file = folder / f"{name}.html"
        if not file.exists():
            file.write_text(PAGES[name](), encoding="utf-8")
        return file.as_uri()

    return address


@pytest.fixture
def opened(browser: Browser, files: Callable[[str], str]) -> Iterator[Opened]:
    """Open pages; none may have made a noise, or asked for anything but itself."""
    made = Opened(browser, files)
    yield made
    for context in browser.contexts:
        context.close()
    assert made.noise == []
    assert [each for each in made.requests if not each.startswith("file:")] == []


@pytest.fixture(scope="session")
def docker() -> Iterator[Docker]:
    """Give a Docker daemon of the tests' own: no container of this machine is touched."""
    daemon = shutil.which("dockerd")
    client = next((path for path in CLIENTS if path and Path(path).exists()), None)
    if daemon is None or client is None or os.geteuid() != 0:
        require("docker", "docker and dockerd are not installed, or the tests do not run as root")
    # A short path: a socket's has at most 107 bytes (unix(7)).
    with tempfile.TemporaryDirectory() as name, (Path(name) / "log").open("wb") as log:
        process = subprocess.Popen([daemon, *_daemon_flags(Path(name))], stdout=log, stderr=log)
        try:
            made = Docker(client, f"unix://{name}/socket")
            wait_until(
                lambda: process.poll() is not None or not made("version").returncode, "dockerd"
            )
            if process.returncode is not None:
                require(
                    "docker", (Path(name) / "log").read_text(encoding="utf-8", errors="replace")
                )
            yield made
        finally:
            process.terminate()
            process.wait()


def _daemon_flags(folder: Path) -> list[str]:
    places = {"data-root": "data", "exec-root": "exec", "pidfile": "pid"}
    flags = [f"--{name}={folder / place}" for name, place in places.items()]
    return [f"--host=unix://{folder}/socket", *flags, "--bridge=none", "--iptables=false"]


@pytest.fixture(scope="session")
def other(root: Path, skeleton: Path) -> Iterator[User]:
    """Give an ordinary user, with a process and folders of its own."""
    own = root.with_name("other")
    for folder in (root, skeleton):
        shutil.copytree(folder, own / folder.name)
    give(own, OTHER)
    process = Child(OTHER)
    yield User(OTHER, own / root.name, own / skeleton.name, process)
    with process.process:
        process.process.kill()


@pytest.fixture(params=["me", "other"] if os.geteuid() == 0 else ["me"])
def user(request: pytest.FixtureRequest) -> User:
    """Give each of the users that this machine can try: root starts an ordinary one as well."""
    made: User = request.getfixturevalue(request.param)
    return made


@pytest.fixture
def me(root: Path, skeleton: Path) -> User:
    """Give the user who runs the tests."""
    return User(None, root, skeleton)
