"""Hostile programs on every engine: contained, ended in time, cleaned up, and judged rightly.

All attacks of an engine are runs of one image, several at once, beside an ordinary program.
"""

from __future__ import annotations

import os
import platform
import secrets
import shutil
import socket
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import corpus
from conftest import require
from dockerbench import WAYS, opened
from handmade import GREETING, SMOKE
from nox_variants.diagnosis import judge
from nox_variants.engines.docker.labels import OWNER, owner
from nox_variants.model import Cause, Smoke, Verdict
from sandboxed import PATIENCE, nothing_left, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from daemons import Service
    from handmade import Bench
    from nox_variants.results import Finding, Observation, VariantImage

pytestmark = [
    pytest.mark.sandbox,
    pytest.mark.skipif(platform.machine() != "x86_64", reason="the images are for x86_64"),
]

MB = 1 << 20

PROGRAM = Path(__file__).with_name("hostile.c")

SEGMENT = str(8 * MB)
"""The size of the segments of shared memory that it takes."""

ENGINES = {
    "embedded": (),
    "buildkit": (pytest.mark.docker,),
    "podman": (pytest.mark.docker,),
}
"""Every engine, and what it needs; how images are built makes no difference to what runs."""

AT_ONCE = 4
"""Attacks that run at the same time, beside the ordinary program."""

LIMITS = Smoke(timeout=4.0, memory=64 * MB, processes=30, output=10_000, file_size=128 * MB)
"""What holds an attack."""

ATTACKS: dict[str, Cause | None] = {
    "stubborn": Cause.TIMEOUT,
    "silent": Cause.TIMEOUT,
    "flood": Cause.TIMEOUT,
    "memory-segments": Cause.OUT_OF_MEMORY,
    "forks": Cause.PROCESS_LIMIT,
    "detached-forks": Cause.PROCESS_LIMIT,
    "daemon": None,
    "daemon-with-output": None,
    "memory": Cause.OUT_OF_MEMORY,
    "memory-files": Cause.OUT_OF_MEMORY,
    "inodes": Cause.OUT_OF_MEMORY,
    "locked-memory": None,
    "open-files": None,
    "disk": None,
    "network": None,
    "files": None,
    "secret": None,
    "calls": None,
    "terminal": None,
    "deceive": Cause.EXIT_CODE,
    "lie": Cause.EXIT_CODE,
}
"""What programs do, the slowest first, and the cause that it is; None for what works, in vain."""

ODD = {
    # Without cgroups nobody sees memory that is neither mapped nor in a file.
    ("embedded", "memory-segments"): {Cause.TIMEOUT},
    # A daemon may only know that the kernel killed it: it misses the notice of what ends at once.
    **{
        (engine, name): {Cause.OUT_OF_MEMORY, Cause.KILLED_BY_SIGNAL}
        for engine in ("buildkit", "podman")
        for name, cause in ATTACKS.items()
        if cause is Cause.OUT_OF_MEMORY
    },
}
"""Causes that are others on one engine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What this machine has that no program may find.

    Attributes:
        word: In the name of each file that an attack makes, and in its command line.
        halves: Of the secret in the environment of this process.
        sentinel: A file.
        server: A TCP server on the loopback.
        abstract: A server on an abstract UNIX socket.
        path: A server on a UNIX socket that is a file.
    """

    word: str
    halves: tuple[str, str]
    sentinel: Path
    server: socket.socket
    abstract: socket.socket
    path: socket.socket

    def arguments(self, attack: str) -> tuple[str, ...]:
        """Return what an attack is told."""
        port = str(self.server.getsockname()[1])
        more: dict[str, tuple[str, ...]] = {
            "network": (port, f"{self.word}-socket", str(self.path.getsockname())),
            "files": (str(self.sentinel),),
            "secret": self.halves,
        }
        return (attack, self.word, *more.get(attack, ()))

    def visited(self) -> bool:
        """Tell whether anybody has connected to one of the servers."""
        for listening in (self.server, self.abstract, self.path):
            listening.settimeout(0)
            with suppress(BlockingIOError):
                listening.accept()
                return True
        return False

    def files(self) -> list[Path]:
        """Return what attacks have left where all programs of this machine may write."""
        places = (Path(each) for each in ("/", "/tmp", "/dev", "/dev/shm", Path.cwd()))
        return [file for place in places for file in place.glob(f"{self.word}*")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Battle:
    """What was seen of all attacks on an engine.

    Attributes:
        engine: Its name.
        seen: Each attack.
        findings: What is made of each.
        ordinary: What was seen of the ordinary program, in the meantime.
        machine: Where it took place.
        left: What it left, when the engine was closed: containers, volumes, mounts, segments.
    """

    engine: str
    seen: dict[str, Observation]
    findings: dict[str, Finding]
    ordinary: list[Observation]
    machine: Machine
    left: list[str]

    def lines(self, attack: str) -> dict[str, str]:
        """Return what an attack says of each of its attempts."""
        seen = self.seen[attack]
        assert (seen.exit_code, seen.stderr, seen.truncated) == (0, "", False)
        return dict(line.split(": ") for line in seen.stdout.splitlines())


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a source folder with the program, compiled."""
    if shutil.which("gcc") is None:
        require("compilers", "gcc is not installed")
    folder = tmp_path_factory.mktemp("project") / "hello-c"
    folder.mkdir()
    words = [
        "gcc",
        "-O1",
        "-Wall",
        "-Werror",
        "-static",
        str(PROGRAM),
        "-o",
        str(folder / "hostile"),
    ]
    subprocess.run(words, check=True)
    return folder


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """Give servers, a file and a secret of this machine."""
    word, halves = f"hostile-{secrets.token_hex(8)}", (secrets.token_hex(8), secrets.token_hex(8))
    folder = tmp_path_factory.mktemp("machine")
    (folder / "sentinel").write_text("".join(halves), encoding="utf-8")
    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setenv("SECRET_OF_THE_SESSION", "".join(halves))
        abstract, path = (
            stack.enter_context(socket.socket(socket.AF_UNIX)) for _ in ("abstract", "path")
        )
        abstract.bind(f"\0{word}-socket")
        path.bind(str(folder / "socket"))
        for listening in (abstract, path):
            listening.listen()
        yield Machine(
            word=word,
            halves=halves,
            sentinel=folder / "sentinel",
            server=stack.enter_context(socket.create_server(("127.0.0.1", 0))),
            abstract=abstract,
            path=path,
        )


@pytest.fixture(
    scope="module", params=[pytest.param(name, marks=marks) for name, marks in ENGINES.items()]
)
def battle(
    request: pytest.FixtureRequest,
    roots: dict[str, Path],
    source: Path,
    machine: Machine,
    tmp_path_factory: pytest.TempPathFactory,
) -> Battle:
    """Let all attacks loose on an engine."""
    name: str = request.param
    service = request.getfixturevalue(f"{WAYS[name]}_service") if name in WAYS else None
    before = things(service)
    home = tmp_path_factory.mktemp("home")
    engines = opened(request, home=home, roots=roots, source=source)
    seen, findings, ordinary = fight(next(engines), machine)
    assert next(engines, None) is None  # it is closed
    return Battle(
        engine=name,
        seen=seen,
        findings=findings,
        ordinary=ordinary,
        machine=machine,
        left=sorted(things(service) - before),
    )


def fight(
    bench: Bench, machine: Machine
) -> tuple[dict[str, Observation], dict[str, Finding], list[Observation]]:
    """Run all attacks, and an ordinary program again and again until they are over."""
    plan = bench.plan("cp hostile /out/hello-c")
    build, image = bench.build(plan), bench.image(plan)
    over = threading.Event()
    smokes = {name: limits(name, machine.arguments(name)) for name in ATTACKS}
    with ThreadPoolExecutor(AT_ONCE + 1) as threads:
        beside = threads.submit(again_and_again, bench, image, over)
        try:
            runs = list(threads.map(bench.engine.smoke, [image] * len(smokes), smokes.values()))
        finally:
            over.set()
        ordinary = beside.result()
    seen = dict(zip(smokes, runs, strict=True))
    findings = {
        name: judge(
            corpus.subject(bench, replace(plan, smoke=smoke), build, image, platform.machine()),
            seen[name],
        )
        for name, smoke in smokes.items()
    }
    return seen, findings, ordinary


def limits(attack: str, args: tuple[str, ...]) -> Smoke:
    """Return an attack's limits.

    To fill all folders takes more memory; so do processes that have just ended, for a while.
    """
    more = attack in {"disk", "forks", "detached-forks"}
    return replace(LIMITS, args=args, memory=(256 if more else 64) * MB)


def again_and_again(bench: Bench, image: VariantImage, over: threading.Event) -> list[Observation]:
    """Run an ordinary program until the others are over."""
    seen = [bench.engine.smoke(image, SMOKE)]
    while not over.is_set():
        seen.append(bench.engine.smoke(image, SMOKE))
    return seen


def things(service: Service | None) -> set[str]:
    """Return what an engine could leave: shared memory, and what its daemon has."""
    segments = Path("/proc/sysvipc/shm").read_text(encoding="ascii").splitlines()[1:]
    found = {f"segment {each[1]}" for each in map(str.split, segments) if each[3] == SEGMENT}
    if service is None:
        return found
    import docker  # noqa: PLC0415  # slow, and not for all engines

    client = docker.DockerClient(base_url=service.url)
    containers = client.containers.list(all=True, filters={"label": f"{OWNER}={owner()}"})
    volumes = client.volumes.list()
    client.close()
    mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    places = (line.split()[4] for line in mounts)
    found |= {f"container {each.id}" for each in containers}
    found |= {f"volume {each.id}" for each in volumes}
    return found | {f"mount {each}" for each in places if each.startswith(str(service.folder))}


@pytest.mark.parametrize("attack", ATTACKS)
def test_verdict(battle: Battle, attack: str) -> None:
    """Each attack has the verdict and the cause of what it does, or works, in vain."""
    cause = ATTACKS[attack]
    found = battle.findings[attack]

    assert battle.seen[attack].started
    assert found.cause in ODD.get((battle.engine, attack), {cause}), battle.seen[attack]
    assert (found.verdict is Verdict.WORKS) == (cause is None)


@pytest.mark.parametrize("attack", ATTACKS)
def test_ends(battle: Battle, attack: str) -> None:
    """Whatever a program ignores, hides, closes or takes, it ends soon after its time is over."""
    assert 0 < battle.seen[attack].seconds < LIMITS.timeout + PATIENCE


def test_others_are_unharmed(battle: Battle) -> None:
    """An ordinary program that runs at the same time is seen to work, each time."""
    assert len(battle.ordinary) > 1
    assert {(seen.exit_code, seen.stdout) for seen in battle.ordinary} == {(0, GREETING)}


def test_nothing_is_left(battle: Battle) -> None:
    """No process, file, shared memory, container, volume or mount is left."""
    wait_until(lambda: nothing_left(battle.machine.word), "all processes end")
    assert battle.machine.files() == []
    assert battle.left == []


def test_flood(battle: Battle) -> None:
    """Of an endless output, without an end of a line and no text, the beginning is kept."""
    seen = battle.seen["flood"]

    assert seen.truncated
    assert {seen.stdout, seen.stderr} == {"\N{REPLACEMENT CHARACTER}" * LIMITS.output}


def test_daemons_end(battle: Battle) -> None:
    """A daemon ends with its program, and nobody waits for it, though it holds the output open."""
    for name in ("daemon", "daemon-with-output"):
        seen = battle.seen[name]
        assert (seen.exit_code, seen.stdout, seen.timed_out) == (0, "left\n", False)


def test_places_that_can_be_written(battle: Battle) -> None:
    """Only /tmp and /dev/shm can be written, and /dev of a daemon; all within limits."""
    said = battle.lines("disk")

    for place in ("/", ".", "/sys", "/etc"):
        assert said[place] == "EROFS"
    assert said["/proc"] == "ENOENT"
    assert said["/dev/mqueue"] in {"ENOENT", "0 EINVAL"}  # it takes messages only, within an rlimit
    assert said["/tmp"] == f"{64 * MB} ENOSPC"
    assert said["/dev/shm"] == f"{16 * MB} ENOSPC"
    assert said["/dev"] == ("EROFS" if battle.engine == "embedded" else f"{64 * MB} ENOSPC")
    assert said["sparse"] == "EFBIG"


def test_open_files(battle: Battle) -> None:
    """So many files can be open, and no more."""
    assert battle.seen["open-files"].stdout == "bounded EMFILE\n"


def test_locked_memory(battle: Battle) -> None:
    """No more memory can be locked than the kernel lets everyone."""
    assert battle.lines("locked-memory") == {"mlockall": "done", "mmap": "EAGAIN"}


def test_network(battle: Battle) -> None:
    """Nothing of this machine or beyond can be reached, whatever the address or socket is."""
    said = battle.lines("network")

    assert set(said.values()) <= {
        *("ECONNREFUSED", "ENETUNREACH", "EADDRNOTAVAIL", "ENOENT", "EPERM")
    }
    assert not battle.machine.visited()


def test_files_of_the_machine(battle: Battle) -> None:
    """No file, device or setting of this machine can be opened, on any path."""
    said = battle.lines("files")

    refused = {"ENOENT", "EPERM", "EACCES", "EROFS", "EXDEV", "ETXTBSY", "ENXIO"}
    assert set(said.values()) <= refused
    assert battle.machine.sentinel.read_text(encoding="utf-8") == "".join(battle.machine.halves)


def test_environment_of_the_session(battle: Battle) -> None:
    """A secret in the environment of the run is nowhere in /proc, and no other process is."""
    assert os.environ["SECRET_OF_THE_SESSION"] == "".join(battle.machine.halves)
    assert battle.seen["secret"].stdout == "found 0, other processes 0\n"


ALLOWED = {
    "embedded": {"ptrace"},
    "buildkit": {"ptrace", "io_uring"},
    "podman": {"ptrace", "unshare-user", "unshare-net", "unshare-mount", "setns", "keyctl"},
}
"""Calls that engines may allow: of a program's own processes, and in namespaces of its own."""


def test_calls(battle: Battle) -> None:
    """No call leads out, raises a limit, or reaches deep into the kernel."""
    said = battle.lines("calls")

    assert {name for name, result in said.items() if result == "done"} <= ALLOWED[battle.engine]


def test_terminal(battle: Battle) -> None:
    """There is no terminal into which a program could type."""
    assert set(battle.lines("terminal").values()) <= {"ENOTTY", "ENXIO", "ENOENT", "EIO"}


def test_words_do_not_deceive(battle: Battle) -> None:
    """Words that speak as a runtime does are the program's; none reaches a terminal unescaped."""
    lie, deceive = battle.seen["lie"], battle.seen["deceive"]

    assert (lie.exit_code, lie.exec_error) == (1, "")
    assert lie.stderr == "exec /hello-c: no such file or directory\n"
    assert "\x1b[2J" in deceive.stdout
    assert "\x1b[2J" in deceive.stderr
    for name in ("lie", "deceive"):
        assert battle.findings[name].explanation.isprintable()
