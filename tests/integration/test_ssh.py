"""A daemon behind ssh, and one that a docker context names: all of a variant goes through it."""

from __future__ import annotations

import os
import socket
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest

import daemons
from dockerbench import open_docker
from handmade import GREETING
from nox_variants.engines.docker import builders, connection
from nox_variants.engines.docker.engine import DockerEngine
from nox_variants.errors import EngineUnavailable
from nox_variants.model import LinkMode, Smoke
from sandboxed import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from daemons import Service, Ssh
    from handmade import Bench
    from nox_variants.plan import Plan

pytestmark = [pytest.mark.docker, pytest.mark.sandbox]


@pytest.fixture
def ssh(docker_service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ssh]:
    """Give a server of ssh before the daemon; `ssh` on PATH has its key."""
    folder = tmp_path / "ssh"
    folder.mkdir()
    with daemons.ssh(docker_service, folder) as made:
        monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
        yield made


def behind(ssh: Ssh, service: Service) -> Service:
    """Return a daemon as it is seen through ssh."""
    return replace(service, url=ssh.url)


def sessions(ssh: Ssh) -> int:
    """Return how many processes on this machine are connected to a server."""
    port = f"{int(ssh.url.rpartition(':')[2]):04X}"
    lines = Path("/proc/net/tcp").read_text(encoding="utf-8").splitlines()[1:]
    return sum(line.split()[1:4:2] == [f"0100007F:{port}", "01"] for line in lines)


@pytest.mark.parametrize("way", ["buildkit", "classic"])
def test_variant(
    way: str, ssh: Ssh, docker_service: Service, home: Path, roots: dict[str, Path], source: Path
) -> None:
    """A variant is built and run through ssh, input and limits of time included."""
    service = behind(ssh, docker_service)
    bench = open_docker(way, service, home=home, roots=roots, source=source)
    engine = bench.engine
    assert isinstance(engine, DockerEngine)
    assert isinstance(engine._builder, builders.Client) is (way == "buildkit")

    seen = bench.run(bench.plan())
    failed = bench.run(bench.plan(link=LinkMode.DYNAMIC))
    read = bench.run(shell(bench, "cat; echo end", Smoke(stdin="from outside\n")))
    late = bench.run(shell(bench, "echo begun; sleep 600", Smoke(timeout=2.0)))

    assert (seen.started, seen.exit_code, seen.stdout) == (True, 0, GREETING)
    assert not failed.started
    assert read.stdout == "from outside\nend\n"
    assert (late.timed_out, late.stdout) == (True, "begun\n")
    assert sessions(ssh) > 0
    engine.close()
    wait_until(lambda: sessions(ssh) == 0, "the end of ssh")


def shell(bench: Bench, script: str, smoke: Smoke) -> Plan:
    return bench.plan(run="alpine", smoke=smoke, run_cmd=("/bin/sh", "-c", script))


@pytest.mark.parametrize("through", ["ssh", "socket"])
def test_context(
    through: str,
    ssh: Ssh,
    docker_service: Service,
    home: Path,
    roots: dict[str, Path],
    source: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A docker context leads all of a variant to its daemon, the client that builds included."""
    url = ssh.url if through == "ssh" else docker_service.url
    config = tmp_path / "config"
    for name, value in (("DOCKER_CONFIG", str(config)), ("DOCKER_CONTEXT", "mine")):
        monkeypatch.setenv(name, value)
    create = ["docker", "context", "create", "mine", "--docker", f"host={url}"]
    subprocess.run(
        create, check=True, capture_output=True, env=without(os.environ, "DOCKER_CONTEXT")
    )

    bench = open_docker("buildkit", None, home=home, roots=roots, source=source)
    engine = bench.engine
    assert isinstance(engine, DockerEngine)
    assert isinstance(engine._builder, builders.Client)
    seen = bench.run(bench.plan(run="alpine"))
    engine.close()

    assert engine._daemon.why == "docker context 'mine'"
    assert (seen.started, seen.exit_code, seen.stdout) == (True, 0, GREETING)


def without(environ: Mapping[str, str], name: str) -> dict[str, str]:
    return {key: value for key, value in environ.items() if key != name}


# --- what goes wrong ----------------------------------------------------------------------------


def no_key(ssh: Ssh) -> str:
    """Give the client a key that the server does not know."""
    (ssh.folder / "user").unlink()
    key = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(ssh.folder / "user")]
    (ssh.folder / "user.pub").rename(ssh.folder / "kept")
    subprocess.run(key, check=True, stdin=subprocess.DEVNULL)
    (ssh.folder / "user.pub").unlink()
    (ssh.folder / "kept").rename(ssh.folder / "user.pub")
    return ssh.url


def another_host(ssh: Ssh) -> str:
    """Let the client know another server by that name."""
    known = ssh.folder / "known"
    name = known.read_text(encoding="utf-8").partition(" ")[0]
    known.write_text(f"{name} {(ssh.folder / 'user.pub').read_text('utf-8')}", encoding="utf-8")
    return ssh.url


def nobody(_: Ssh) -> str:
    """Name a port where nobody listens."""
    return f"ssh://root@127.0.0.1:{daemons.free_port()}"


def no_socket(ssh: Ssh) -> str:
    """Name a socket that is not there, on the other side."""
    return f"{ssh.url}/nowhere/socket"


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (no_key, "ssh says: root@127.0.0.1: Permission denied ("),
        (another_host, "ssh says: Host key verification failed."),
        (nobody, "Connection refused"),
        (no_socket, "/nowhere/socket"),
    ],
)
def test_refused(broken: Callable[[Ssh], str], said: str, ssh: Ssh) -> None:
    """Who does not get through is told why, in ssh's own words, and asked for no password."""
    with pytest.raises(EngineUnavailable) as caught:
        connection.connect("docker", {**os.environ, "DOCKER_HOST": broken(ssh)})

    assert said in caught.value.message
    assert "(DOCKER_HOST)" in caught.value.message


def test_no_ssh_here(ssh: Ssh) -> None:
    """A machine without ssh says what is missing."""
    with pytest.raises(EngineUnavailable, match="No such file or directory: 'ssh'"):
        connection.connect("docker", {"PATH": "/nowhere", "DOCKER_HOST": ssh.url})


def test_no_docker_there(
    docker_service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine without docker says that it has none."""
    with daemons.ssh(docker_service, tmp_path, path="/nowhere") as ssh:
        monkeypatch.setenv("PATH", f"{ssh.folder}:{os.environ['PATH']}")
        with pytest.raises(EngineUnavailable, match="docker: command not found"):
            connection.connect("docker", {**os.environ, "DOCKER_HOST": ssh.url})


@pytest.mark.usefixtures("ssh")
def test_server_that_never_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that takes a connection and says nothing is given up on."""
    monkeypatch.setattr(connection, "PROBE_SECONDS", 3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"ssh://root@127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(EngineUnavailable, match=r"(?i)timed out"):
            connection.connect("docker", {**os.environ, "DOCKER_HOST": url})


def test_daemon_that_never_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A daemon that says nothing is given up on, although ssh is well."""
    monkeypatch.setattr(connection, "PROBE_SECONDS", 3)
    with tempfile.TemporaryDirectory() as name, socket.socket(socket.AF_UNIX) as silent:
        silent.bind(f"{name}/socket")
        silent.listen()
        mute = SimpleNamespace(url=f"unix://{name}/socket")
        with daemons.ssh(cast("Service", mute), tmp_path) as ssh:
            monkeypatch.setenv("PATH", f"{ssh.folder}:{os.environ['PATH']}")
            with pytest.raises(EngineUnavailable, match=r"(?i)timed out"):
                connection.connect("docker", {**os.environ, "DOCKER_HOST": ssh.url})
            wait_until(lambda: sessions(ssh) == 0, "the end of ssh")
