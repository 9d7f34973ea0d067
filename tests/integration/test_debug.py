"""Debug sessions, in every engine: what they see, how they end, and that nothing stays."""

from __future__ import annotations

import shutil
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import docker
import pytest

from debugbench import EMBEDDED, EVERY, Debugging, Typed
from dockerbench import WAYS
from handmade import GREETING
from nox_variants.model import Digest, SourceKind
from nox_variants.results import PreparedImage
from nox_variants.sandbox import shell
from nox_variants.store import Store
from projects import HELLO, REPOSITORY, Project
from sandboxed import PATIENCE, child, give, nothing_left, program_runs, token, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sandboxed import User

pytestmark = [pytest.mark.sandbox, pytest.mark.docker]

INTERRUPTED = 130


@pytest.fixture(params=EVERY)
def way(request: pytest.FixtureRequest) -> str:
    """Give each way to build and run."""
    name: str = request.param
    return name


@pytest.fixture
def url(request: pytest.FixtureRequest, way: str) -> str:
    """Give the address of that way's daemon; empty where it needs none."""
    if way == EMBEDDED:
        return ""
    address: str = request.getfixturevalue(f"{WAYS[way]}_service").url
    return address


@pytest.fixture
def client(url: str) -> Iterator[docker.DockerClient | None]:
    """Give a client of the daemon, to look behind the engine's back."""
    made = docker.DockerClient(base_url=url) if url else None
    yield made
    if made:
        made.close()


@pytest.fixture
def debugging(way: str, url: str, home: Path, roots: dict[str, Path], tmp_path: Path) -> Debugging:
    """Give what starts sessions."""
    source = tmp_path / "project" / "hello-c"
    source.mkdir(parents=True)
    (source / "hello.c").write_text("int main(void) { return 0; }\n", encoding="utf-8")
    return Debugging(way, url, home, roots["gcc"].parent, source)


def test_scratch(debugging: Debugging) -> None:
    """Beside an empty image's program there are the tools, and nothing of this machine."""
    names = debugging.output("ls", "-A", "/").split()

    runtime = {".dockerenv", "run", "sys", "dev", "etc", "proc", "tmp"}
    assert {".debug", "hello-c"} <= set(names) <= {".debug", "hello-c", *runtime}
    assert debugging.output("/hello-c", "more") == f"{GREETING}more\na b\n"


def test_same_as_in_the_smoke_run(debugging: Debugging) -> None:
    """No capabilities, no network, and the environment of image and smoke run; PATH is longer."""
    script = "grep Cap /proc/self/status; cut -d : -f 1 /proc/net/dev; id -u; pwd; umask"
    lines = debugging.output("sh", "-c", script).split("\n")
    env = debugging.output("env").split("\n")

    assert {line.split()[1] for line in lines[:5]} == {"0000000000000000"}
    assert [name.strip() for name in lines[7:-4]] == ["lo"]
    assert lines[-4:] == ["0", "/", "0022", ""]
    assert {"NAME=a b", "FROM=image", "HOME=/", "HOSTNAME=variant"} <= set(env)
    assert [line for line in env if line.endswith("/sbin:/bin:/.debug/bin")]
    assert not [line for line in env if line.startswith(("SHLVL", "PWD"))]


@pytest.mark.parametrize(
    ("command", "code", "words"),
    [
        (("sh", "-c", "echo out; echo err >&2; exit 7"), 7, "err"),
        (("nonesuch",), 127, "nox-variants: nonesuch: not found in PATH="),
        (("/nonesuch",), 127, "/nonesuch: not found"),
        (("/.debug/start",), 126, "/.debug/start: Permission denied"),
        (("sh", "-c", "kill -TERM $$"), 128 + signal.SIGTERM, "Terminated"),
    ],
)
def test_exit_codes(debugging: Debugging, command: tuple[str, ...], code: int, words: str) -> None:
    """A command's end is ours; what cannot be run ends as in a shell. Errors come on stderr."""
    done = debugging.run(*command)

    assert done.returncode == code
    assert words in done.stderr
    assert done.stdout == ("out\n" if code == 7 else "")


def test_missing_loader(debugging: Debugging) -> None:
    """A program without its loader is there and cannot be executed."""
    assert debugging.run("/hello-c", link="dynamic").returncode == 127
    assert debugging.output("ls", "/hello-c", link="dynamic") == "/hello-c\n"


@pytest.mark.parametrize("command", [("cat",), ()], ids=["command", "shell"])
def test_standard_input(debugging: Debugging, command: tuple[str, ...]) -> None:
    """Standard input is passed on to its end; without a command it is a shell's script.

    More than the pipes hold would block Podman's conmon for ever, should it come back as output.
    """
    text = "".join(f"echo {number:060}\n" for number in range(500))
    wanted = text if command else text.replace("echo ", "")

    assert debugging.output(*command, stdin=text) == wanted


def test_own_files_win(debugging: Debugging) -> None:
    """What the image has is what is found; the tools are behind it."""
    found = debugging.output("sh", "-c", "readlink /proc/$$/exe; which ls", run="alpine")

    assert found == "/bin/busybox\n/bin/ls\n"


def test_single_stage(debugging: Debugging) -> None:
    """The build image's own root can be debugged, too."""
    assert debugging.output("ls", "/usr/lib/hello-static", "/out", run="gcc") == (
        "/usr/lib/hello-static\n\n/out:\nhello-c\n"
    )


def test_changes_are_thrown_away(debugging: Debugging, client: docker.DockerClient | None) -> None:
    """The root can be written, and the next session, the image and the store know nothing of it."""
    written = "echo text >/file && rm /hello-c && ls /file"
    assert debugging.output("sh", "-c", written) == "/file\n"
    images = {image.id for image in client.images.list(all=True)} if client else set()

    assert debugging.run("cat", "/file").returncode == 1
    assert debugging.output("/hello-c").startswith(GREETING)
    assert not list(debugging.home.rglob("file"))
    if client:
        assert {image.id for image in client.images.list(all=True)} == images
        assert client.containers.list(all=True) == []
    assert str(debugging.home) not in Path("/proc/self/mountinfo").read_text(encoding="utf-8")


def test_typed(debugging: Debugging, client: docker.DockerClient | None) -> None:
    """A shell in a terminal has its size, job control and Ctrl-C; the terminal is given back."""
    with debugging.typed() as user:
        user.expect(" # ")
        user.type("echo $((6*7)); stty size\n")
        user.expect("\n42\r\n50 123\r\n")
        user.type("echo be''gun; sleep 600\n")
        user.expect("begun")
        user.interrupt(" # ")
        user.type("echo code $?; sleep 600 & jobs; kill %1; tty </dev/tty && echo $TERM\n")
        user.expect("code 130")
        user.expect("Running")
        user.expect("xterm")
        user.type("exit 3\n")

        assert user.process.wait(PATIENCE) == 3
        assert user.is_sane()
    if client:
        assert client.containers.list(all=True) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_clean_up(
    debugging: Debugging, client: docker.DockerClient | None, number: signal.Signals
) -> None:
    """Ctrl-C and SIGTERM end a command without a traceback and leave nothing behind."""
    word = token()
    with debugging.popen("sh", "-c", "echo begun; sleep 600; exit", word) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"begun\n"
        assert program_runs(word)
        process.send_signal(number)

        code = process.wait(PATIENCE)
        said = process.stderr.read().decode()

    assert code == 128 + number
    assert said == ("nox-variants: interrupted\n" if code == INTERRUPTED else "")
    wait_until(lambda: nothing_left(word), "the end of the session")
    if client:
        assert client.containers.list(all=True) == []


def test_terminal_is_given_back_after_sigterm(debugging: Debugging) -> None:
    """A session in a terminal that is ended from outside leaves the terminal as it was."""
    with debugging.typed() as user:
        user.expect(" # ")
        assert not user.is_sane()
        user.end()

        assert user.process.wait(PATIENCE) == 128 + signal.SIGTERM
        assert user.is_sane()


def test_killed(debugging: Debugging, client: docker.DockerClient | None) -> None:
    """What a session leaves that is killed, the next one removes."""
    word = token()
    with debugging.popen("sh", "-c", "echo begun; sleep 600; exit", word) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"begun\n"
        process.kill()

    debugging.output("true")

    wait_until(lambda: nothing_left(word), "the end of the session")
    if client:
        assert client.containers.list(all=True) == []


def test_ordinary_user(user: User, place: Path, roots: dict[str, Path]) -> None:
    """No privilege is needed, and files of the user's can be written over and removed."""
    busybox = PreparedImage(
        name="busybox", kind=SourceKind.APT, reference="", digest=Digest("sha256:1")
    )
    tools = shell.tools(Store(place), busybox, roots["alpine"])
    give(place, user.uid)
    session = shell.Session(
        lower=(user.root, user.skeleton, tools),
        # What it prints would be taken for an answer.
        command=("sh", "-c", "echo >/made && rm /text && [ -f /made ] && exit 7"),
        env=(),
        workdir="/tmp",
        terminal="",
    )

    assert child(user.uid, shell.run_session, session).result() == 7
    assert (user.root / "text").exists()
    assert not (user.root / "made").exists()


@pytest.mark.apt
def test_command(tmp_path: Path, shared_home: Path) -> None:
    """The command builds what is not built yet, and runs what it is told in it."""
    project = Project(folder=tmp_path / "project", home=shared_home)
    project.write("variants.yaml", HELLO)
    shutil.copytree(REPOSITORY / "examples" / "hello-c", project.folder / "hello-c")

    done = project.cli("debug", "hello-c(scratch,static)", "--", "sh", "-c", "ls -d /h*; exit 5")
    wrong = project.cli("debug", "hello-c(scratch,statc)")

    assert (done.returncode, done.stdout) == (5, "/hello-c\n"), done.stderr
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert "Did you mean 'hello-c(scratch,static)'?" in wrong.stderr

    words = [sys.executable, "-m", "nox_variants", "debug", "hello-c(scratch,static)", "--file"]
    file = str(project.folder / "variants.yaml")
    with Typed([*words, file], project.environment()) as user:
        user.expect("/.debug/bin. Its command: /hello-c. Ctrl-D or exit leaves")
        user.expect(" # ")
        user.type("/hello-c\n")
        user.expect("\nHello, world!")
        user.expect(" # ")
        user.type("\x04")

        assert user.process.wait(PATIENCE) == 0
        assert user.is_sane()
