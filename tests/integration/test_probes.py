"""Smoke runs of servers, and of programs that ask for names and certificates, on every engine."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import docker
import pytest

import standins
from conftest import require
from dockerbench import WAYS, open_docker
from handmade import Bench, make_roots, open_engine
from nox_variants.engines.docker.engine import DockerEngine
from nox_variants.engines.docker.labels import FIXTURES, OWNER
from nox_variants.engines.docker.leftovers import remove_left_behind
from nox_variants.errors import SandboxError, VariantsError
from nox_variants.model import LinkMode, Need, Service, Smoke
from nox_variants.results import EngineName, Observation, ServiceSeen
from nox_variants.sandbox import fixtures, probes
from nox_variants.sandbox.program import run_program
from projects import REPOSITORY
from sandboxed import cancelling, nothing_left, processes, program_runs, token, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from daemons import Service as Daemon
    from sandboxed import User

SERVER = Path(__file__).with_name("server.c")
SERVICE = Service(port=8080, path="/x?y", stop=0.5)
ANSWER = "you said GET /x?y HTTP/1.1\n"

ENGINES = {
    "embedded": (pytest.mark.sandbox,),
    "buildkit": (pytest.mark.docker, pytest.mark.sandbox, pytest.mark.apt),
    "podman": (pytest.mark.docker, pytest.mark.sandbox, pytest.mark.apt),
}
"""Every engine, and what it needs: daemons run fixtures in an image with Python."""

DAEMONS = [pytest.param(name, marks=ENGINES[name]) for name in ("buildkit", "podman")]

BUNDLE = "/etc/ssl/certs/ca-certificates.crt"


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Give roots with a server, linked with both C libraries, and a TLS client.

    One has a bundle of CA certificates, the other has none.
    """
    made = make_roots(tmp_path_factory.mktemp("roots"))
    root = made["alpine"]
    for name, *compiler in (("server", "musl-gcc", "-static"), ("server-glibc", "gcc")):
        if shutil.which(compiler[0]) is None:
            require("compilers", f"{compiler[0]} is not installed")
        subprocess.run([*compiler, SERVER, "-o", root / name], check=True)
    _copy_openssl(root)
    bare = shutil.copytree(root, root.with_name("bare"), symlinks=True)
    (root / BUNDLE[1:]).write_text("# nobody\n", encoding="utf-8")
    return {**made, "busybox:glibc": bare}


def _copy_openssl(root: Path) -> None:
    """Copy this machine's openssl to a root, with the libraries that it needs."""
    found = shutil.which("openssl", path="/usr/bin")
    if found is None:
        require("openssl", "openssl is not installed")
    said = subprocess.run(["ldd", found], capture_output=True, text=True, check=True).stdout
    for path in (found, *re.findall(r"/\S+", said)):
        place = root / path[1:]
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, place)
    for folder in ("etc/ssl/certs", "usr/lib/ssl"):
        (root / folder).mkdir(parents=True)
    (root / "usr/lib/ssl/cert.pem").symlink_to(BUNDLE)


@pytest.fixture(
    scope="module", params=[pytest.param(name, marks=marks) for name, marks in ENGINES.items()]
)
def bench(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    programs: dict[str, Path],
) -> Iterator[Bench]:
    """Give each engine, with images of the same names; nothing is left in a daemon at its end."""
    home, source = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("project") / "hello-c"
    source.mkdir()
    if request.param == "embedded":
        yield Bench(open_engine(home, programs, source.parent), source)
        return
    service: Daemon = request.getfixturevalue(f"{WAYS[request.param]}_service")
    shared: Path = request.getfixturevalue("shared_home")
    helper = standins.roots(shared, REPOSITORY / "variants.yaml", ["python:slim"])
    roots = {**programs, "python": helper["python:slim"]}
    made = open_docker(request.param, service, home=home, roots=roots, source=source)
    yield made
    made.engine.close()
    client = docker.DockerClient(base_url=service.url)
    assert client.containers.list(all=True, filters={"label": OWNER}) == []
    assert client.images.list(filters={"label": OWNER}) == []
    client.close()


def run(bench: Bench, *cmd: str, image: str = "alpine", **smoke: Any) -> Observation:
    """Run a command; what was seen of it, without times."""
    plan = bench.plan(run=image, smoke=Smoke(**smoke), run_cmd=cmd)
    seen = bench.run(plan)
    service = seen.service and replace(seen.service, seconds=0.0, stop_seconds=0.0)
    return replace(seen, seconds=0.0, startup=None, service=service)


def served(exit_code: int | None, signal: int | None = None, **service: Any) -> Observation:
    """Return what is seen of a server."""
    answer: dict[str, Any] = {"status": 200, "body": ANSWER, "stopped": True}
    return Observation(
        started=True,
        exit_code=exit_code,
        signal=signal,
        stdout="listening\n",
        service=ServiceSeen(listened=True, **answer | service),
    )


@pytest.mark.parametrize(
    ("options", "seen"),
    [
        pytest.param(["exit=0"], served(0), id="ends on SIGTERM"),
        pytest.param(["exit=7"], served(7), id="with a code of its own"),
        pytest.param([], served(None, stopped=False), id="ignores SIGTERM"),
        pytest.param(["exit=0", "delay=300"], served(0), id="takes its time to listen"),
        pytest.param(["exit=0", "status=503 No"], served(0, status=503), id="another status"),
        pytest.param(["once"], served(0), id="answers once"),
        pytest.param(["crash"], served(139, 11), id="crashes when it has answered"),
        pytest.param(
            ["exit=0", "hang-up"],
            served(0, status=0, body="", error="Remote end closed connection without response"),
            id="hangs up",
        ),
    ],
)
def test_server(bench: Bench, options: list[str], seen: Observation) -> None:
    """A server is asked as soon as it listens, and then told to end."""
    assert run(bench, "/server", "8080", *options, service=SERVICE, timeout=30) == seen


def test_server_times(bench: Bench) -> None:
    """It is told how long a server took to listen, to answer and to end, and what memory."""
    plan = bench.plan(
        run="alpine",
        smoke=Smoke(service=replace(SERVICE, stop=30), repeat=2),
        run_cmd=("/server", "8080", "exit=0", "delay=300"),
    )
    seen = bench.run(plan)

    assert seen.service is not None
    assert seen.service.seconds > 0
    assert seen.service.stop_seconds > 0
    assert seen.startup is not None
    assert seen.service.seconds <= seen.startup < seen.seconds
    embedded = bench.engine.probe().name is EngineName.EMBEDDED
    assert (seen.peak_memory is not None) == embedded


def test_no_answer_is_no_start(bench: Bench) -> None:
    """The start-up time of a server that says nothing is not known."""
    plan = bench.plan(
        run="alpine",
        smoke=Smoke(service=SERVICE, timeout=1),
        run_cmd=("/server", "8080", "silent", "exit=0"),
    )

    assert bench.run(plan).startup is None


def test_silent_server(bench: Bench) -> None:
    """A server that takes a request and says nothing is ended at the timeout."""
    seen = run(bench, "/server", "8080", "silent", "exit=0", service=SERVICE, timeout=3)

    assert seen == served(0, status=0, body="", error="no answer within 3 s")


@pytest.mark.parametrize(
    ("option", "exit_code", "stdout"),
    [("deaf", None, "listening\n"), ("early", 3, "")],
    ids=["never listens", "ends before"],
)
def test_not_listening(bench: Bench, option: str, exit_code: int | None, stdout: str) -> None:
    """A server that never listens is ended at the timeout, which is not what is wrong with it."""
    seen = run(bench, "/server", "8080", option, service=SERVICE, timeout=2)

    assert seen == Observation(
        started=True, exit_code=exit_code, stdout=stdout, service=ServiceSeen(listened=False)
    )


def test_server_that_does_not_start(bench: Bench) -> None:
    """A server whose loader is missing did not start, and so did not listen."""
    plan = bench.plan(link=LinkMode.DYNAMIC, smoke=Smoke(service=SERVICE))
    seen = bench.run(plan)

    assert replace(seen, exec_error="") == Observation(
        started=False, service=ServiceSeen(listened=False)
    )


def test_answer_is_bounded(bench: Bench) -> None:
    """Of an answer as much is kept as of any output."""
    seen = run(bench, "/server", "8080", "exit=0", service=SERVICE, output=8, timeout=30)

    assert seen.service is not None
    assert seen.service.body == ANSWER[:8]


@pytest.mark.parametrize("program", ["/server", "/server-glibc"])
@pytest.mark.parametrize(
    ("name", "code", "said"),
    [
        ("name.fixture.test", 0, "127.0.0.1\n"),
        ("fixture.test", 0, "127.0.0.1\n"),
        ("example.org", 1, "example.org: Name"),
    ],
)
def test_names(bench: Bench, program: str, name: str, code: int, said: str) -> None:
    """Names of the test domain have an address, for both C libraries; others do not exist."""
    seen = run(bench, program, "look-up", name, needs=(Need.NAMES,))

    assert (seen.started, seen.exit_code, seen.service) == (True, code, None)
    assert seen.stdout.startswith(said)


@pytest.mark.parametrize(
    ("needs", "said"),
    [
        ((), (False, False)),
        ((Need.NAMES,), (False, True)),
        ((Need.CERTIFICATES,), (True, False)),
        ((Need.CERTIFICATES, Need.NAMES), (True, True)),
        ((Need.USERS, Need.TIME_ZONES), (False, False)),
    ],
)
def test_files(bench: Bench, needs: tuple[Need, ...], said: tuple[bool, bool]) -> None:
    """Only what is asked for is there: a host's name, a name server."""
    script = "cat /etc/hosts; echo ---; cat /etc/resolv.conf"
    hosts, _, resolv = run(bench, "/bin/sh", "-c", script, needs=needs).stdout.partition("---")

    assert ("fixture.test" in hosts.split(), "nameserver 127.0.0.1" in resolv) == said
    assert "127.0.0.1\tlocalhost" in hosts


def ask(bench: Bench, image: str) -> Observation:
    """Ask the HTTPS server with a client that verifies."""
    client = ("/usr/bin/openssl", "s_client", "-quiet", "-verify_return_error")
    return run(
        bench,
        *client,
        *("-verify_hostname", "fixture.test", "-connect", "fixture.test:443"),
        image=image,
        stdin="GET / HTTP/1.1\r\nHost: fixture.test\r\n\r\n",
        needs=(Need.CERTIFICATES,),
        timeout=30,
    )


def test_certificates(bench: Bench) -> None:
    """A client finds the run's CA in the image's own bundle, and gets its answer."""
    seen = ask(bench, "alpine")

    assert (seen.exit_code, seen.distrusted) == (0, False)
    assert seen.stdout.startswith("HTTP/1.1 200 OK\r\n")
    assert seen.stdout.endswith("\r\n\r\nfixture\n")


def test_no_certificates(bench: Bench) -> None:
    """A client without a bundle refuses the certificate, and the server knows."""
    seen = ask(bench, "busybox:glibc")

    assert (seen.exit_code, seen.distrusted, seen.stdout) == (1, True, "")


def test_bundle(bench: Bench) -> None:
    """The program sees the bundle with one certificate more, and cannot write it."""
    script = f"cat {BUNDLE}; echo >{BUNDLE}"
    seen = run(bench, "/bin/sh", "-c", script, needs=(Need.CERTIFICATES,))

    assert seen.stdout.startswith("# nobody\n-----BEGIN CERTIFICATE-----\n")
    assert seen.stdout.count("BEGIN") == 1
    assert "Read-only file system" in seen.stderr


def test_nothing_of_fixtures_is_seen(bench: Bench) -> None:
    """Neither a process of the fixtures nor anything of their environment is the program's."""
    script = "echo /proc/[0-9]*; env | cut -d= -f1 | sort"
    with_, without = (
        run(bench, "/bin/sh", "-c", script, needs=needs)
        for needs in ((Need.NAMES, Need.CERTIFICATES), ())
    )

    assert with_.stdout == without.stdout
    assert "/proc/1" in with_.stdout


def test_limits_stay(bench: Bench) -> None:
    """A program with fixtures has the limits of one without."""
    script = (
        "cat /proc/self/limits; grep -E '^(Cap|NoNewPrivs|Seccomp)' /proc/self/status; touch /x"
    )
    with_, without = (
        run(bench, "/bin/sh", "-c", script, needs=needs)
        for needs in ((Need.NAMES, Need.CERTIFICATES), ())
    )

    assert (with_.stdout, with_.exit_code) == (without.stdout, 1)


def test_cancelled(bench: Bench) -> None:
    """A cancelled run ends the server, and what was brought for it."""
    word = token()
    with (
        cancelling(bench.engine._cancelled, word),  # type: ignore[attr-defined]
        pytest.raises(VariantsError, match="cancelled"),
    ):
        run(bench, "/server", "8080", "deaf", word, service=SERVICE, timeout=600)

    bench.engine._cancelled.clear()  # type: ignore[attr-defined]
    wait_until(lambda: nothing_left(word), "the server ends")
    assert companions(os.getpid()) == []


# The embedded engine's


def companions(parent: int) -> list[int]:
    """Return the processes of fixtures that a process has started."""
    found = []
    for number, _ in processes(fixtures.__file__):
        status = Path(f"/proc/{number}/status").read_text(encoding="utf-8")
        if f"\nPPid:\t{parent}\n" in status:
            found.append(number)
    return found


@pytest.mark.sandbox
def test_users(user: User) -> None:
    """An ordinary user's fixtures open their ports like root's: a server, names, certificates."""
    smoke = Smoke(service=SERVICE, needs=(Need.NAMES, Need.CERTIFICATES), timeout=30)
    made = probes.fixtures(smoke)
    program = user.program("/server", "8080", "exit=0", fixtures=made)
    seen = user.observe(program, smoke)

    assert (seen.exit_code, seen.service and seen.service.body) == (0, ANSWER)


@pytest.mark.sandbox
def test_killed_parent(user: User) -> None:
    """When the process that runs a program is killed, its fixtures end, too."""
    word = token()
    smoke = Smoke(service=SERVICE, timeout=600)
    program = user.program("/server", "8080", "deaf", word, fixtures=probes.fixtures(smoke))
    started = user.start(program, smoke)
    wait_until(lambda: program_runs(word), "the server runs")
    beside = companions(started.process.pid)
    with started.process as process:
        process.kill()

    assert len(beside) == 1
    wait_until(lambda: not Path(f"/proc/{beside[0]}").exists(), "the fixtures end")
    wait_until(lambda: nothing_left(word), "the server ends")


class Killer(threading.Event):
    """An event that is asked whether a run was cancelled, and ends its fixtures instead."""

    def __init__(self, word: str) -> None:
        super().__init__()
        self._word = word

    def is_set(self) -> bool:
        for number in companions(os.getpid()) if program_runs(self._word) else ():
            os.kill(number, 9)
        return False


@pytest.mark.sandbox
def test_fixtures_that_end(me: User) -> None:
    """When fixtures end before their program, nothing is said about the program."""
    word = token()
    smoke = Smoke(service=SERVICE, timeout=600)
    program = me.program("/server", "8080", "deaf", word, fixtures=probes.fixtures(smoke))

    with pytest.raises(SandboxError, match="the fixtures of the smoke run failed"):
        run_program(program, smoke, Killer(word))

    assert nothing_left(word)


@pytest.mark.sandbox
@pytest.mark.parametrize(
    ("executable", "words"),
    [
        ("/bin/false", "the fixtures of the smoke run failed: they ended, or did nothing"),
        ("/nowhere", "fixtures cannot be started: No such file or directory"),
    ],
)
def test_no_python(me: User, monkeypatch: pytest.MonkeyPatch, executable: str, words: str) -> None:
    """Without fixtures there is no run, and no observation."""
    monkeypatch.setattr(sys, "executable", executable)
    word = token()
    smoke = Smoke(service=SERVICE)
    program = me.program("/server", "8080", word, fixtures=probes.fixtures(smoke))

    with pytest.raises(SandboxError, match=f"^{words}$"):
        me.observe(program, smoke)

    assert nothing_left(word)


def open_files() -> list[str]:
    """Return the numbers of this process's open files."""
    return sorted(path.name for path in Path("/proc/self/fd").iterdir())


@pytest.mark.sandbox
def test_open_files(me: User) -> None:
    """A run with fixtures leaves no open file behind."""
    smoke = Smoke(service=SERVICE, timeout=30)
    program = me.program(
        "/server",
        *("8080", "exit=0"),
        fixtures=probes.fixtures(smoke),
        files=(("/etc/hosts", b"hosts\n"),),
    )
    me.observe(program, smoke)
    before = open_files()
    me.observe(program, smoke)

    assert open_files() == before


# A daemon's


@pytest.mark.parametrize("bench", DAEMONS, indirect=True)
def test_helper_without_python(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A helper image that cannot run the fixtures is the daemon's trouble, not the program's."""
    monkeypatch.setattr(bench.engine, "_helper", bench.plan(run="alpine").run.image)

    with pytest.raises(VariantsError, match="python3"):
        run(bench, "/server", "8080", service=SERVICE)


@pytest.mark.parametrize("bench", DAEMONS, indirect=True)
def test_left_behind(bench: Bench) -> None:
    """What a killed run left goes with the next one: containers in order, and its image."""
    engine = bench.engine
    assert isinstance(engine, DockerEngine)
    client = engine._daemon.client
    image = bench.image(bench.plan(run="alpine")).config_digest
    dead = {OWNER: f"{os.uname().nodename}:999999999"}
    limits = [docker.types.Ulimit(name=name, soft=64, hard=64) for name in ("nofile", "nproc")]
    options: dict[str, Any] = {"command": ["/bin/sleep", "600"], "ulimits": limits}
    helper = client.containers.create(
        image, labels={**dead, FIXTURES: ""}, network_mode="none", **options
    )
    helper.start()
    joined = client.containers.create(
        image, labels=dead, network_mode=f"container:{helper.id}", **options
    )
    joined.commit()

    assert remove_left_behind(engine._daemon) == 2
    assert client.images.list(filters={"label": OWNER}) == []
