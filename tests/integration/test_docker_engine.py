"""The docker engine against real daemons: what it does, and what it says when they fail."""

from __future__ import annotations

import io
import os
import signal
import socket
import subprocess
import sys
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import docker
import pytest

import daemons
from dockerbench import WAYS, environment, open_docker
from handmade import GREETING, SMOKE
from nox_variants import runner
from nox_variants.engines.docker import connection
from nox_variants.engines.docker.connection import DaemonError
from nox_variants.engines.docker.labels import LABEL
from nox_variants.engines.docker.leftovers import remove_left_behind
from nox_variants.errors import BuildFailed, EngineUnavailable, ImageError, VariantsError
from nox_variants.invocation import _context
from nox_variants.model import LinkMode, Smoke
from nox_variants.results import EngineName, Outcome
from nox_variants.sandbox.program import HOSTS, NO_RESOLVER
from samples import SETTINGS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from daemons import Service
    from handmade import Bench
    from nox_variants.engines.docker.builders import Builder, Job
    from nox_variants.record import Record
    from nox_variants.results import VariantImage
    from nox_variants.runner import Task

pytestmark = [pytest.mark.docker, pytest.mark.sandbox]

MB = 1024 * 1024
NOBODY = 65534


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    """Give each way to build and run."""
    name: str = request.param
    return name


@pytest.fixture
def service(request: pytest.FixtureRequest, way: str) -> Service:
    """Give the daemon of that way."""
    made: Service = request.getfixturevalue(f"{WAYS[way]}_service")
    return made


@pytest.fixture
def bench(
    way: str, service: Service, home: Path, roots: dict[str, Path], source: Path
) -> Iterator[Bench]:
    """Give an engine on that daemon."""
    made = open_docker(way, service, home=home, roots=roots, source=source)
    yield made
    made.engine.close()


@pytest.fixture
def client(service: Service) -> Iterator[docker.DockerClient]:
    """Give a client of the daemon, to look behind the engine's back."""
    made = docker.DockerClient(base_url=service.url)
    yield made
    made.close()


def shell(script: str, **smoke: Any) -> dict[str, Any]:
    """Return what makes a plan whose program is a shell script on alpine."""
    return {
        "run": "alpine",
        "smoke": Smoke(**smoke),
        "run_cmd": ("/bin/sh", "-c", script),
    }


def test_program_works(bench: Bench) -> None:
    """A variant is built, tagged and run; its labels say what it is."""
    plan = bench.plan()
    image = bench.image(plan)

    seen = bench.engine.smoke(image, plan.smoke)

    assert (seen.started, seen.exit_code, seen.stdout) == (True, 0, GREETING)
    assert image.tag == "hello-c:gcc-static.scratch"
    assert image.sizes.content == image.sizes.binary == image.sizes.above_base > 0
    assert image.cmd == ("/hello-c",)
    kept = bench.source.parent / ".variants/dockerfiles/hello-c/gcc-static.scratch.Dockerfile"
    assert 'CMD ["/hello-c"]' in kept.read_text(encoding="utf-8")


def test_labels(client: docker.DockerClient, bench: Bench) -> None:
    """An image carries its variant, and the revision of its sources, under OCI's keys."""
    image = bench.image(bench.plan())

    labels = client.images.get(image.config_digest).labels
    assert labels[f"{LABEL}variant"] == "hello-c(scratch,static)"
    assert labels["org.opencontainers.image.title"] == "hello-c"
    assert labels["org.opencontainers.image.revision"] == "0" * 40


def test_missing_loader(bench: Bench) -> None:
    """A program without its loader did not start, whatever words the runtime has for it."""
    seen = bench.run(bench.plan(link=LinkMode.DYNAMIC))

    assert not seen.started
    assert "no such file" in seen.exec_error.lower() or "not found" in seen.exec_error.lower()


def test_arguments_environment_and_input(bench: Bench) -> None:
    """Arguments, environment and standard input of the smoke run reach the program."""
    smoke = replace(SMOKE, args=("one", "two"), env=(("NAME", "a b"),))
    seen = bench.run(bench.plan(smoke=smoke))
    read = bench.run(bench.plan(**shell("cat; echo end", stdin="from outside\n")))

    assert seen.stdout == f"{GREETING}one\ntwo\na b\n"
    assert read.stdout == "from outside\nend\n"


def test_exit_code_and_signal(bench: Bench) -> None:
    """A program's own end is what is seen."""
    code = bench.run(bench.plan(**shell("echo no >&2; exit 3")))
    killed = bench.run(bench.plan(**shell("sh -c 'kill -TERM $$'; exit $?")))

    assert (code.exit_code, code.signal, code.stderr) == (3, None, "no\n")
    assert (killed.exit_code, killed.signal) == (143, 15)


def test_contained(bench: Bench) -> None:
    """No network, a root and /dev that are read-only, a /tmp that is bounded, no capabilities."""
    script = (
        "touch /a 2>/dev/null || echo root; touch /tmp/a && echo tmp;"
        " grep CapEff /proc/self/status; ls /sys/class/net;"
        " dd if=/dev/zero of=/tmp/big bs=1M count=100 2>/dev/null; ls -l /tmp/big | wc -l"
    )
    lines = bench.run(bench.plan(**shell(script, file_size=200 * MB))).stdout.split()

    assert lines[:2] == ["root", "tmp"]
    assert lines[2:4] == ["CapEff:", "0000000000000000"]
    assert [name for name in lines[4:-1] if name != "lo"] == []


def test_timeout(bench: Bench) -> None:
    """What runs too long is ended, and that is what is seen."""
    seen = bench.run(bench.plan(**shell("echo begun; sleep 600", timeout=2.0)))

    assert (seen.timed_out, seen.exit_code, seen.stdout) == (True, None, "begun\n")


def test_output_is_bounded(bench: Bench) -> None:
    """A flood is read to its end and cut off."""
    script = "dd if=/dev/zero bs=1M count=20 2>/dev/null"
    seen = bench.run(bench.plan(**shell(script, output=1000)))

    assert (seen.exit_code, seen.truncated, len(seen.stdout)) == (0, True, 1000)


def test_memory(way: str, bench: Bench) -> None:
    """Memory beyond the limit is out-of-memory; Podman may only know that it was killed."""
    hungry = "exec tail -c 190000000 /dev/zero"
    seen = bench.run(bench.plan(**shell(hungry, memory=30 * MB, timeout=30.0)))

    if WAYS[way] == "podman" and not seen.out_of_memory:
        assert seen.signal == signal.SIGKILL
        assert "killed for its memory" in " ".join(bench.engine.probe().notes)
    else:
        assert (seen.out_of_memory, seen.exit_code) == (True, None)


def test_memory_of_a_child(way: str, bench: Bench) -> None:
    """A child that is killed for its memory counts although the program lives; Podman is silent."""
    outlived = "tail -c 190000000 /dev/zero; sleep 2; exit 0"  # until the daemon hears of it
    seen = bench.run(bench.plan(**shell(outlived, memory=30 * MB)))

    if WAYS[way] == "podman":
        assert "not at all for a child" in " ".join(bench.engine.probe().notes)
    else:
        assert (seen.out_of_memory, seen.exit_code) == (True, None)


def test_processes(bench: Bench) -> None:
    """More processes than allowed are seen and ended."""
    script = "for n in 1 2 3 4 5 6 7 8 9 10 11 12; do sleep 60 & done; wait"
    seen = bench.run(bench.plan(**shell(script, processes=8, timeout=30.0)))

    assert (seen.process_limit, seen.exit_code) == (True, None)


def test_build_fails(bench: Bench) -> None:
    """A command that fails is a build failure, with its output."""
    with pytest.raises(BuildFailed) as caught:
        bench.build(bench.plan("echo compiling; exit 3"))

    assert "compiling" in caught.value.log


def test_no_artifact(bench: Bench) -> None:
    """A build that makes no artifact, or something else in its place, has failed."""
    for command in ("true", "mkfifo /out/hello-c"):
        with pytest.raises(BuildFailed):
            bench.build(bench.plan(command))


def test_artifact_behind_a_link(bench: Bench) -> None:
    """A link is followed inside the image, never on this machine."""
    copy = "cp /usr/lib/hello-static /real && ln -s /real /out/hello-c"
    build = bench.build(bench.plan(copy))

    assert build.artifacts[0].size > 0
    with pytest.raises(BuildFailed):
        bench.build(bench.plan("ln -s /etc/passwd-of-nobody /out/hello-c"))


def test_compiles_once(
    way: str, service: Service, home: Path, roots: dict[str, Path], source: Path
) -> None:
    """The second engine finds the build; `--no-cache` makes it anew."""
    first = open_docker(way, service, home=home, roots=roots, source=source)
    plan = first.plan("date +%s%N >/dev/null; cp /usr/lib/hello-static /out/hello-c")

    assert not first.build(plan).cached
    again = open_docker(way, service, home=home, roots=roots, source=source)
    assert again.build(plan).cached
    anew = open_docker(way, service, home=home, roots=roots, source=source, use_cache=False)
    assert not anew.build(plan).cached
    for each in (first, again, anew):
        each.engine.close()


class Counting:
    """A builder that counts what it builds."""

    def __init__(self, builder: Builder) -> None:
        self._builder = builder
        self.name, self.buildkit = builder.name, builder.buildkit
        self.tags: list[str] = []

    def build(self, job: Job, log: Callable[[bytes], None], cancelled: threading.Event) -> None:
        self.tags.append(job.tag)
        self._builder.build(job, log, cancelled)


def test_image_of_an_earlier_run(
    way: str,
    service: Service,
    client: docker.DockerClient,
    home: Path,
    roots: dict[str, Path],
    source: Path,
) -> None:
    """A variant's image is used again while it is the daemon's; never another one of that tag."""

    def run(**changes: Any) -> tuple[VariantImage, list[str]]:
        bench = open_docker(way, service, home=home, roots=roots, source=source, **changes)
        counting = Counting(bench.engine._builder)  # type: ignore[attr-defined]
        bench.engine._builder = counting  # type: ignore[attr-defined]
        try:
            image = bench.image(bench.plan())
        finally:
            bench.engine.close()
        return image, [tag for tag in counting.tags if tag.startswith("hello-c:")]

    first, built = run()
    assert built == [first.tag]

    assert run() == (first, [])
    assert run(use_cache=False)[1] == [first.tag]
    assert run(revision="1" * 40)[1] == [first.tag]  # another label, so another image

    client.images.remove(first.tag, force=True)
    assert run()[1] == [first.tag]

    other = client.images.build(
        fileobj=io.BytesIO(f"FROM scratch\nLABEL {LABEL}variant=other\n".encode()), rm=True
    )[0]
    other.tag(*first.tag.split(":"))
    assert run()[1] == [first.tag]


def test_single_stage(bench: Bench) -> None:
    """The build image itself ships: base, source and what the build made."""
    plan = bench.plan(run="gcc")
    image = bench.image(plan)

    base = bench.engine.prepare(plan.run.image)
    source = sum(file.stat().st_size for file in bench.source.iterdir())
    assert image.sizes.above_base == image.sizes.binary + source
    assert image.sizes.content == base.content + image.sizes.above_base
    assert bench.engine.smoke(image, plan.smoke).stdout == GREETING


def test_nothing_is_left(client: docker.DockerClient, bench: Bench) -> None:
    """No container is left, and what a dead process left is removed by the next run."""
    bench.run(bench.plan())
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    image = bench.image(bench.plan())
    for owner in (f"{socket.gethostname()}:{dead.pid}", f"{socket.gethostname()}:{os.getpid()}"):
        client.containers.create(image.config_digest, labels={f"{LABEL}owner": owner})

    daemon = bench.engine._daemon  # type: ignore[attr-defined]
    assert remove_left_behind(daemon) == 1
    left = client.containers.list(all=True, filters={"label": f"{LABEL}owner"})
    mine = [each for each in left if each.labels[f"{LABEL}owner"].endswith(f":{os.getpid()}")]
    assert len(left) == len(mine)
    for each in mine:
        each.remove(force=True)


def test_network(way: str, bench: Bench) -> None:
    """A smoke run has the loopback, IPv6 too, and the files that tell of it; nothing else."""
    asked = "cat /etc/hosts /etc/resolv.conf; tail -n +3 /proc/net/dev | cut -d: -f1"
    seen = bench.run(bench.plan(**shell(f"{asked}; grep -c ^0*1.01 /proc/net/if_inet6")))
    *files, loopback, addresses = seen.stdout.splitlines(keepends=True)

    assert (loopback.strip(), seen.exit_code) == ("lo", 0)
    if WAYS[way] == "docker":
        assert ("".join(files), addresses) == (HOSTS + NO_RESOLVER, "1\n")
    else:
        assert any("127.0.0.1" in line and "localhost" in line for line in files)


def test_volume_goes_with_its_run(way: str, client: docker.DockerClient, bench: Bench) -> None:
    """What holds those files is gone after the run, or when a later one finds its owner dead."""
    bench.run(bench.plan())
    ours = {"label": f"{LABEL}owner"}
    made = client.volumes.list(filters=ours)
    dead = client.volumes.create(labels={f"{LABEL}owner": f"{socket.gethostname()}:{2**22}"})

    remove_left_behind(bench.engine._daemon)  # type: ignore[attr-defined]
    assert dead.id not in {each.id for each in client.volumes.list()}
    bench.engine.close()
    left = {each.id for each in client.volumes.list(filters=ours)}
    assert len(made) == (WAYS[way] == "docker")
    assert not left & {each.id for each in made}


def test_tag_of_somebody_else_is_left_alone(client: docker.DockerClient, bench: Bench) -> None:
    """An image without our label keeps its tag; the variant is an error that says what to do."""
    plan = bench.plan(run="alpine")
    image = bench.image(plan)
    client.images.remove(image.tag, force=True)
    theirs = io.BytesIO(b"FROM scratch\nENV mine=1\n")
    client.images.build(fileobj=theirs, tag="hello-c:gcc-static.alpine")
    mine = client.images.get("hello-c:gcc-static.alpine").id

    with pytest.raises(DaemonError, match="another image has this tag") as caught:
        bench.image(plan)

    assert "docker rmi hello-c:gcc-static.alpine" in str(caught.value)
    assert client.images.get("hello-c:gcc-static.alpine").id == mine
    client.images.remove("hello-c:gcc-static.alpine", force=True)


def test_image_removed_under_us(client: docker.DockerClient, bench: Bench) -> None:
    """An image that is gone is an error, and no verdict."""
    plan = bench.plan()
    image = bench.image(plan)
    client.images.remove(image.config_digest, force=True)

    with pytest.raises(DaemonError, match="running /hello-c: the daemon says"):
        bench.engine.smoke(image, plan.smoke)


def test_cancel_ends_what_runs(bench: Bench) -> None:
    """Ctrl-C ends a container at once."""
    plan = bench.plan(**shell("sleep 600", timeout=600.0))
    image = bench.image(plan)
    threading.Timer(1.0, bench.engine.cancel).start()

    with pytest.raises(VariantsError, match="cancelled"):
        bench.engine.smoke(image, plan.smoke)


class Quiet:
    """An observer that keeps records."""

    def __init__(self) -> None:
        self.records: list[Record] = []

    def started(self, task: Task) -> None:
        """Say nothing."""

    def finished(self, task: Task, result: object) -> None:
        """Say nothing."""

    def recorded(self, record: Record) -> None:
        """Keep it."""
        self.records.append(record)


@pytest.mark.parametrize("name", ["docker", "podman"])
def test_daemon_that_dies(name: str, home: Path, roots: dict[str, Path], source: Path) -> None:
    """A daemon that is killed in the middle is an error for each variant; all are accounted for."""
    way = {"docker": "buildkit", "podman": "podman"}[name]
    with getattr(daemons, name)() as service:
        bench = open_docker(way, service, home=home, roots=roots, source=source)
        plans = [
            bench.plan(**shell("sleep 600", timeout=600.0)),
            bench.plan(run="gcc", smoke=SMOKE),
        ]
        threading.Timer(6.0, _kill, (service,)).start()

        records = runner.run(
            plans,
            bench.engine,
            _context(SETTINGS, bench.engine.probe()),
            Quiet(),
            jobs=2,
        )

    assert records[0].outcome is Outcome.ERROR
    assert records[0].verdict is None
    assert "daemon" in records[0].reason
    assert len(records) == 2


def _kill(service: Service) -> None:
    """Kill a daemon and what it started to do its work."""
    service.process.send_signal(signal.SIGKILL)


def test_daemon_that_hangs(home: Path, roots: dict[str, Path], source: Path) -> None:
    """A daemon that stops answering is an error after a while, not a run that never ends."""
    with daemons.docker() as service:
        bench = open_docker("buildkit", service, home=home, roots=roots, source=source)
        plan = bench.plan()
        image = bench.image(plan)
        bench.engine._daemon.client.api.timeout = 2  # type: ignore[attr-defined]
        service.process.send_signal(signal.SIGSTOP)

        with pytest.raises(DaemonError, match="does not answer in time"):
            bench.engine.smoke(image, plan.smoke)


def test_disk_that_is_full(home: Path, roots: dict[str, Path], source: Path) -> None:
    """A daemon without room cannot take an image: an error that says so."""
    with daemons.docker() as service:
        small = service.folder / "small"
        small.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "none", small], check=True)
        try:
            with _second_daemon(service, small) as crowded:
                bench = open_docker("buildkit", crowded, home=home, roots=roots, source=source)
                (small / "filler").write_bytes(bytes(20 * MB))
                with pytest.raises((ImageError, DaemonError), match=r"no space left|the daemon"):
                    bench.engine.prepare(bench.plan().build.image)
        finally:
            subprocess.run(["umount", "--lazy", small], check=True)


def _second_daemon(service: Service, place: Path) -> Any:
    return daemons.docker(data=os.path.relpath(place, service.folder) and str(place))


# --- connecting -------------------------------------------------------------------------------


def test_found_by_its_address(way: str, service: Service) -> None:
    """An engine is found by the variable that names its socket, and says who it is."""
    daemon = connection.connect(WAYS[way], environment(way, service))
    daemon.client.close()

    assert daemon.info.name is EngineName(WAYS[way])
    assert daemon.info.version[0].isdecimal()


def test_docker_context(
    docker_service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The docker context in use says where the daemon is, by its name or by being the current."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    create = ["docker", "context", "create", "mine", "--docker", f"host={docker_service.url}"]
    subprocess.run(create, check=True, capture_output=True)
    named = {"DOCKER_CONTEXT": "mine", "DOCKER_CONFIG": str(tmp_path)}
    (tmp_path / "config.json").write_text('{"currentContext": "mine"}', encoding="utf-8")

    for environ in (named, {"DOCKER_CONFIG": str(tmp_path)}):
        daemon = connection.connect("docker", environ)
        daemon.client.close()
        assert daemon.why == "docker context 'mine'"
        assert daemon.environ == (("DOCKER_CONTEXT", "mine"),)


def test_wrong_kind(docker_service: Service) -> None:
    """What answers as something else is not taken for it."""
    with pytest.raises(EngineUnavailable, match="that is docker, not podman"):
        connection.connect("podman", {"CONTAINER_HOST": docker_service.url})


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"DOCKER_HOST": "unix:///nowhere/socket"}, "there is no such socket"),
        ({"DOCKER_HOST": "tcp://127.0.0.1:1"}, "Connection refused"),
        ({"DOCKER_CONTEXT": "nowhere"}, "there is no docker context 'nowhere'"),
    ],
)
def test_nobody_answers(environ: dict[str, str], said: str) -> None:
    """What was tried and why it failed is said, and what to do."""
    with pytest.raises(EngineUnavailable) as caught:
        connection.connect("docker", environ)

    assert "docker does not answer: " in str(caught.value)
    assert said in str(caught.value)
    assert "Is the daemon running" in str(caught.value)


def test_socket_that_never_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A socket behind which nobody reads is given up on."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(connection, "PROBE_SECONDS", 1)
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind("silent")
        silent.listen()
        with pytest.raises(EngineUnavailable, match=r"(?i)timed out"):
            connection.connect("docker", {"DOCKER_HOST": f"unix://{tmp_path}/silent"})


def test_rootless(home: Path, roots: dict[str, Path], source: Path) -> None:
    """Podman of an ordinary user builds and runs the same; what it cannot limit is said."""
    with daemons.podman(uid=NOBODY) as service:
        bench = open_docker("podman", service, home=home, roots=roots, source=source)
        notes = " ".join(bench.engine.probe().notes)
        daemon = bench.engine._daemon  # type: ignore[attr-defined]
        first_version = daemon.client.info()["CgroupVersion"] == "1"
        image = bench.image(bench.plan())
        seen = bench.engine.smoke(image, SMOKE)
        dynamic = bench.run(bench.plan(link=LinkMode.DYNAMIC))
        bench.engine.close()

    assert (seen.started, seen.exit_code, seen.stdout) == (True, 0, GREETING)
    assert image.sizes.content == image.sizes.binary
    assert not dynamic.started
    said = "limits on memory and processes are not kept by this daemon" in notes
    assert said is first_version
