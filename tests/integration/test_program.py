"""Programs in the sandbox: what they see, what holds them, what is said about them."""

from __future__ import annotations

import os
import signal
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from nox_variants.errors import SandboxError
from nox_variants.model import Smoke
from nox_variants.results import Observation
from nox_variants.sandbox.bubblewrap import HOSTNAME, PATH
from nox_variants.sandbox.program import OPEN_FILES, SHM_SIZE, TMP_SIZE, run_program
from sandboxed import nothing_left, open_files, processes, program_runs, token, wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from sandboxed import User

pytestmark = pytest.mark.sandbox

MB = 1 << 20


def lines(seen: Observation) -> list[str]:
    """Return what a program printed, after checking that it did what it was asked."""
    assert (seen.started, seen.exit_code, seen.stderr) == (True, 0, "")
    return seen.stdout.splitlines()


# What a program sees


@pytest.mark.parametrize("name", ["/probe", "/musl"])
def test_hello(user: User, name: str) -> None:
    """A static program runs on a root with nothing else, and all that it did is seen."""
    seen = user.run(name)

    assert seen.startup is not None
    assert 0 < seen.startup <= seen.seconds
    assert replace(seen, seconds=0, startup=None) == Observation(
        started=True, exit_code=0, stdout="Hello, world!\n"
    )


def test_stderr_and_exit_code(user: User) -> None:
    """Standard error is kept apart, and the exit code is the program's own."""
    assert user.run("say", "oops\n").stderr == "oops\n"
    assert user.run("exit", "42").exit_code == 42
    assert user.run("exit", "42").signal is None


def test_arguments(user: User) -> None:
    """Arguments arrive as they are, also those that look like flags of bwrap."""
    argv = ("args", "", "a b", "--bind", "é", "$HOME\n;")

    assert user.run(*argv).stdout == "\n".join(["/probe", *argv, ""])


def test_environment(user: User) -> None:
    """The environment is what an engine gives and the image's: nothing of this machine's."""
    program = user.program("env", env=(("PATH", "/bin"), ("NAME", "a=b c"), ("NAME", "last")))
    defaults = {f"PATH={PATH}", f"HOSTNAME={HOSTNAME}", "HOME=/", "PWD=/"}

    assert set(lines(user.run("env"))) == defaults
    assert {"PATH=/bin", "NAME=last"} < set(lines(user.observe(program, Smoke())))


def test_standard_input(user: User) -> None:
    """Standard input is the text that was given, or nothing at all."""
    assert user.run("cat", stdin="one\ntwø\n").stdout == "one\ntwø\n"
    assert user.run("cat", stdin="").stdout == ""
    assert user.run("cat").stdout == ""


def test_standard_input_stays_as_it_is(user: User) -> None:
    """A program cannot write into its standard input: that would be memory nobody counts."""
    assert user.run("fill", "/proc/self/fd/0", stdin="text").stdout == "0 EPERM\n"


def test_working_directory(user: User) -> None:
    """A program starts where the image says."""
    assert user.observe(user.program("pwd", workdir="/work"), Smoke()).stdout == "/work\n"


def test_pid_1(user: User) -> None:
    """A program is PID 1 without a parent, and root of its own world."""
    assert user.run("pid").stdout == "1 0 0\n"


def test_files_of_an_engine(user: User) -> None:
    """The last folder of the root wins: hosts and resolv.conf are the engine's."""
    assert user.run("cat", "/etc/hosts").stdout == "127.0.0.1\tlocalhost\n"
    assert user.run("cat", "/etc/resolv.conf").stdout == "# none\n"
    assert user.run("cat", "/text").stdout == "no program\n"


def test_hostname(user: User) -> None:
    """The host's name is not this machine's."""
    assert user.run("cat", "/proc/sys/kernel/hostname").stdout == f"{HOSTNAME}\n"


def test_network(user: User) -> None:
    """Loopback is up, and there is no way out."""
    assert lines(user.run("network")) == ["loopback: done", "elsewhere: ENETUNREACH"]


def test_odd_paths(user: User, public: Path) -> None:
    """Folders of a root may have names that overlayfs's options give a meaning."""
    odd = public / f"a,b:c d\\e'{'other' if user.uid else 'me'}"
    odd.mkdir()
    (odd / "file").write_text("odd\n", encoding="utf-8")
    program = user.program("cat", "/file", lower=(user.root, odd, user.skeleton))

    assert user.observe(program, Smoke()).stdout == "odd\n"


# What holds a program


def test_descriptors(user: User) -> None:
    """A program inherits three descriptors: not bwrap's status, with which it could lie."""
    assert lines(user.run("descriptors", stdin="x")) == ["0", "1", "2"]


def test_a_lie(user: User) -> None:
    """A program that speaks as bwrap does, wherever it can, is not believed."""
    seen = user.run("lie")

    assert (seen.started, seen.exit_code, seen.exec_error) == (True, 3, "")
    assert seen.stderr == "bwrap: execvp /probe: No such file or directory\n"


def test_what_is_forbidden(user: User) -> None:
    """No key rings, namespaces, mounts or changed roots, and no limit can be raised."""
    assert lines(user.run("forbidden")) == [
        "keyctl: EPERM",
        "add_key: EPERM",
        "unshare: ENOSPC",
        "mount: EPERM",
        "chroot: EPERM",
        "setrlimit: EPERM",
    ]


def test_no_capabilities(user: User) -> None:
    """Every set of capabilities is empty, and no file gives new ones."""
    status = dict(line.split(":\t") for line in lines(user.run("cat", "/proc/self/status")))

    assert {status[f"Cap{name}"] for name in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == {"0" * 16}
    assert status["NoNewPrivs"] == "1"


def test_read_only(user: User) -> None:
    """Nothing of the root or of /dev can be written."""
    for path in ("/file", "/probe", "/etc/hosts", "/work/file", "/dev/file"):
        assert lines(user.run("fill", path)) == [f"{path}: EROFS"]
    assert not (user.root / "file").exists()


@pytest.mark.parametrize(
    "path",
    [
        *("/proc/sys/kernel/core_pattern", "/proc/sys/vm/drop_caches"),
        *("/proc/irq/default_smp_affinity", "/proc/bus/pci/00/00.0", "/proc/sysrq-trigger"),
        "/proc/mtrr",
    ],
)
def test_kernel_settings(user: User, path: str) -> None:
    """No setting of the machine can be written, though uid 0 is the machine's own where root runs.

    A core pattern would be a command that the kernel runs as root, outside.
    """
    (said,) = lines(user.run("open", path))

    assert said in {"open: EROFS", "open: EACCES", "open: ENOENT"}


@pytest.mark.parametrize(("path", "size"), [("/tmp/file", TMP_SIZE), ("/dev/shm/file", SHM_SIZE)])
def test_bounded_folders(user: User, path: str, size: int) -> None:
    """What can be written takes so much and no more."""
    assert lines(user.run("fill", path, file_size=2 * TMP_SIZE)) == [f"{size} ENOSPC"]


def test_file_size(user: User) -> None:
    """No file grows beyond its limit; PID 1 gets an error, as the signal does not end it."""
    assert lines(user.run("fill", "/tmp/file", file_size=MB)) == [f"{MB} EFBIG"]


def test_kernel_limits(user: User) -> None:
    """Limits of the kernel are set before the program begins, hard and soft."""
    text = user.run("cat", "/proc/self/limits", file_size=12345).stdout
    limits = {line[:26].strip(): line[26:].split()[:2] for line in text.splitlines()}

    assert limits["Max file size"] == ["12345", "12345"]
    assert limits["Max core file size"] == ["0", "0"]
    assert limits["Max open files"] == [str(OPEN_FILES)] * 2
    assert limits["Max processes"] == ["272", "272"]


@pytest.mark.parametrize("what", ["wait", "stubborn", "daemon-wait", "silent", "outlive"])
def test_timeout(user: User, what: str) -> None:
    """The whole tree ends at the timeout, whatever it ignores, hides or closes."""
    word = token()
    seen = user.run(what, word, timeout=0.3)

    assert replace(seen, stdout="", seconds=0) == Observation(started=True, timed_out=True)
    assert nothing_left(word)


def test_daemon_ends_with_its_program(user: User) -> None:
    """A daemon that a program leaves behind ends with it, and nobody waits for it."""
    word = token()
    seen = user.run("daemon", word)

    assert (seen.exit_code, seen.timed_out) == (0, False)
    assert nothing_left(word)


@pytest.mark.parametrize(
    ("what", "amount"),
    [
        pytest.param("hog", 200, id="one process"),
        pytest.param("hogs", 25, id="eight children together"),
        pytest.param("headless", 200, id="threads whose main thread has ended"),
    ],
)
def test_memory(user: User, what: str, amount: int) -> None:
    """The limit on memory is the whole tree's, and no process hides from it."""
    word = token()
    seen = user.run(what, str(amount), word, memory=100 * MB, timeout=20)

    assert replace(seen, seconds=0) == Observation(started=True, out_of_memory=True)
    assert nothing_left(word)


def test_shared_memory_counts_once(user: User) -> None:
    """Nine processes with the same 60 MB take 60 MB, as a container engine counts."""
    seen = user.run("share", "60", memory=100 * MB, timeout=20)

    assert (seen.exit_code, seen.out_of_memory) == (0, False)


@pytest.mark.parametrize(("what", "number"), [("bomb", "0"), ("threads", "100")])
def test_process_limit(user: User, what: str, number: str) -> None:
    """Processes and threads are counted over the whole tree, and the tree is ended."""
    word = token()
    seen = user.run(what, number, word, processes=50, timeout=20)

    assert replace(seen, seconds=0) == Observation(started=True, process_limit=True)
    assert nothing_left(word)


def test_threads_below_the_limit(user: User) -> None:
    """As many threads as are allowed are not too many: the main thread counts."""
    assert user.run("threads", "49", processes=50, timeout=0.5).process_limit is False


def test_output_is_bounded(user: User) -> None:
    """A flood is read to its end, so that the program goes on, and the beginning is kept."""
    seen = user.run("flood", str(40 * MB), output=1000)

    assert (seen.exit_code, seen.truncated) == (0, True)
    assert (seen.stdout, seen.stderr) == ("x" * 1000, "x" * 1000)


def test_output_that_just_fits(user: User) -> None:
    """Output of exactly the limit is not cut off."""
    seen = user.run("hello", output=len("Hello, world!\n"))

    assert (seen.stdout, seen.truncated) == ("Hello, world!\n", False)


def test_output_is_text(user: User) -> None:
    """Bytes that are no text, and a character that is cut in two, are replaced."""
    assert user.run("cat", stdin="aé", output=2).stdout == "a�"


# What is said about a program


@pytest.mark.parametrize(
    ("argv", "code"),
    [
        pytest.param(("abort",), 139, id="abort as PID 1"),
        pytest.param(("crash", "0"), 139, id="a wild pointer"),
        pytest.param(("exit", "137"), 137, id="an exit code that says so"),
    ],
)
def test_killed_by_a_signal(user: User, argv: tuple[str, ...], code: int) -> None:
    """The exit code says which signal it was, as a container engine reports it."""
    seen = user.run(*argv)

    assert (seen.started, seen.exit_code, seen.signal) == (True, code, code - 128)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_signals_to_oneself(user: User, number: int) -> None:
    """PID 1 without a handler ignores what it sends itself, as in a container."""
    assert lines(user.run("kill", str(number))) == ["kill: done"]
    assert lines(user.run("kill-group", str(number))) == ["kill: done"]


@pytest.mark.parametrize("code", [128, 193, 255])
def test_exit_codes_that_are_no_signals(user: User, code: int) -> None:
    """Exit codes that no signal has are only exit codes."""
    seen = user.run("exit", str(code))

    assert (seen.exit_code, seen.signal) == (code, None)


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        pytest.param(("/dynamic",), "/dynamic: No such file or directory", id="no loader"),
        pytest.param(("/nothing",), "/nothing: No such file or directory", id="no file"),
        pytest.param(("/text",), "/text: Permission denied", id="not executable"),
        pytest.param(("/work",), "/work: Permission denied", id="a folder"),
    ],
)
@pytest.mark.parametrize("output", [1 << 20, 0])
def test_not_started(user: User, argv: tuple[str, ...], words: str, output: int) -> None:
    """A program that cannot be executed did not start, however little output is kept."""
    assert user.run(*argv, output=output) == Observation(started=False, exec_error=words)


def test_parent_death_signal(user: User) -> None:
    """A program that unsets what binds it to its parent is told that it did, and stays bound."""
    assert lines(user.run("parent-death")) == ["set: done", "9"]


@pytest.mark.parametrize("what", ["stubborn", "daemon-wait", "outlive"])
def test_killed_parent(user: User, what: str) -> None:
    """When the process that runs a program is killed, nothing of the program is left."""
    word = token()
    started = user.start(user.program(what, word), Smoke(timeout=600))
    wait_until(lambda: program_runs(word), "the program runs")
    with started.process as process:
        process.kill()

    wait_until(lambda: nothing_left(word), "the program ends")


def test_cancelled(user: User) -> None:
    """A cancelled run ends the program and says so."""
    word = token()
    with pytest.raises(SandboxError, match=r"^cancelled$"):
        user.run("outlive", word, timeout=600, cancel_on=word)

    assert nothing_left(word)


def test_cancelled_before(user: User) -> None:
    """Nothing starts after a run was cancelled."""
    cancelled = threading.Event()
    cancelled.set()
    program = user.program("hello", lower=(user.root / "nowhere",))

    with pytest.raises(SandboxError, match=r"^cancelled$"):
        run_program(program, Smoke(), cancelled)


class Broken(threading.Event):
    """An event that cannot be asked again: an interrupt in the midst of a run."""

    def __init__(self, word: str) -> None:
        super().__init__()
        self._word = word

    def is_set(self) -> bool:
        if program_runs(self._word):
            raise KeyboardInterrupt
        return False


def test_interrupted(me: User) -> None:
    """An exception in the midst of a run leaves no process and no open file behind."""
    word = token()
    before = open_files()
    with pytest.raises(KeyboardInterrupt):
        run_program(me.program("outlive", word), Smoke(timeout=600), Broken(word))

    assert nothing_left(word)
    assert open_files() == before


def test_open_files(me: User) -> None:
    """A run leaves no open file behind, whether it goes well or not."""
    me.run("hello", stdin="text")
    before = open_files()
    me.run("hello", stdin="text")
    me.run("/nothing")
    with pytest.raises(SandboxError):
        me.observe(me.program("hello", lower=(me.root, me.root / "nowhere")), Smoke())

    assert open_files() == before


class Killer(threading.Event):
    """An event that is asked whether a run was cancelled, and ends bwrap instead."""

    def __init__(self, word: str) -> None:
        super().__init__()
        self._word = word

    def is_set(self) -> bool:
        for number, words in processes(self._word) if program_runs(self._word) else ():
            if "--die-with-parent" in words:
                os.kill(number, signal.SIGKILL)
        return False


@pytest.mark.parametrize("what", ["stubborn", "lie-wait"])
def test_ended_from_outside(me: User, what: str) -> None:
    """A bwrap that somebody else ends, as the kernel does for memory, says nothing of a program."""
    word = token()

    with pytest.raises(SandboxError, match=r"^the sandbox was ended from outside, by signal 9$"):
        run_program(me.program(what, word), Smoke(timeout=600), Killer(word))
    assert nothing_left(word)


class Priority(threading.Event):
    """An event that notes the priority of the thread that asks it."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[int] = set()

    def is_set(self) -> bool:
        self.seen.add(priority())
        return False


def priority() -> int:
    """Return the nice value of this thread."""
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


def test_priority(me: User) -> None:
    """Where root runs us a fork bomb is not bound, and who ends it goes first; then no more."""
    before, event = priority(), Priority()
    run_program(me.program("hello"), Smoke(), event)

    assert event.seen == ({before, -20} if os.geteuid() == 0 else {before})
    assert priority() == before


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        pytest.param({"lower": 2 * ("nowhere",)}, "Can't find source path", id="no such folder"),
        pytest.param({"lower": ("text", "work")}, "Can't make overlay mount", id="not a folder"),
        pytest.param({"workdir": "/nowhere"}, "Can't chdir to /nowhere", id="no such workdir"),
        pytest.param({"env": (("BIG", "x" * 200_000),)}, "Argument list too long", id="too much"),
    ],
)
def test_broken_sandbox(user: User, changes: dict[str, object], words: str) -> None:
    """A sandbox that cannot be made is an error in bwrap's words, and never a verdict."""
    lower = changes.get("lower", ())
    assert isinstance(lower, tuple)
    folders = tuple(user.root / name for name in lower) or (user.root, user.skeleton)
    program = user.program("hello", **{**changes, "lower": folders})

    with pytest.raises(SandboxError, match=words):
        user.observe(program, Smoke())


def test_broken_sandbox_again_and_again(me: User) -> None:
    """However soon bwrap ends, what it said is what is told."""
    program = me.program("hello", lower=(me.root, me.root / "nowhere"))
    for _ in range(50):
        with pytest.raises(SandboxError, match="Can't find source path"):
            run_program(program, Smoke(), threading.Event())
