"""Commands of builds in the sandbox, and what is said where there can be none."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from nox_variants.errors import SandboxError
from nox_variants.sandbox.bubblewrap import PATH
from nox_variants.sandbox.command import Root, run_command
from sandboxed import child, command, give, nothing_left, program_runs, token, wait_until

if TYPE_CHECKING:
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
