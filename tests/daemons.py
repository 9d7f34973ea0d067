"""Daemons of the tests' own: private sockets, data and networks."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from conftest import require

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PATIENCE = 60.0
"""Seconds that a daemon gets to answer."""


_OWN_NETWORK = ("unshare", "--net", "sh", "-c", 'ip link set lo up; exec "$@"', "sh")


@dataclass(frozen=True)
class Service:
    """A daemon that runs.

    Attributes:
        url: Where it answers.
        process: Its process; a test may stop or end it.
        folder: Its folder.
    """

    url: str
    process: subprocess.Popen[bytes]
    folder: Path


@contextlib.contextmanager
def docker(data: str = "data", *, containerd: bool = False) -> Iterator[Service]:
    """Start Docker, with a bridge in a network namespace of its own.

    Args:
        data: Its folder.
        containerd: Whether its images are to be containerd's, where it can do that.
    """
    daemon = shutil.which("dockerd")
    if daemon is None or os.geteuid() != 0 or shutil.which("unshare") is None:
        require("docker", "dockerd and unshare are not installed, or the tests do not run as root")

    def command(folder: Path) -> list[str]:
        places = {"data-root": data, "exec-root": "exec", "pidfile": "pid"}
        flags = [f"--{name}={folder / place}" for name, place in places.items()]
        own = ["--iptables=false", "--ip6tables=false", f"--host=unix://{folder}/socket"]
        if containerd:
            features = '{"features": {"containerd-snapshotter": true}}'
            (folder / "daemon.json").write_text(features, encoding="utf-8")
            own.append(f"--config-file={folder}/daemon.json")
        return [*_OWN_NETWORK, daemon, *flags, *own]

    with _service("docker", command) as service:
        yield service


@contextlib.contextmanager
def podman(uid: int | None = None) -> Iterator[Service]:
    """Start Podman's service, as root or as an ordinary user.

    Args:
        uid: The user who runs it; None for the user of the tests.
    """
    program = shutil.which("podman")
    if program is None or os.geteuid() != 0:
        require("podman", "podman is not installed, or the tests do not run as root")

    def command(folder: Path) -> list[str]:
        (folder / "storage.conf").write_text(
            f'[storage]\ndriver = "{"overlay" if uid is None else "vfs"}"\n'
            f'graphroot = "{folder}/graph"\nrunroot = "{folder}/run"\n',
            encoding="utf-8",
        )
        service = [program, "system", "service", "--time=0", f"unix://{folder}/socket"]
        if uid is None:
            return [*_OWN_NETWORK, *service]
        os.chown(folder, uid, uid)
        return ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", *service]

    with _service("podman", command) as service:
        yield service


@contextlib.contextmanager
def registry(beside: Service, folder: Path, port: int = 5000) -> Iterator[str]:
    """Start Debian's registry where a daemon reaches it on its loopback; yields ``HOST:PORT``."""
    program = shutil.which("docker-registry")
    if program is None:
        require("registry", "docker-registry is not installed")
    config = folder / "registry.yml"
    config.write_text(
        "version: 0.1\n"
        f"storage: {{filesystem: {{rootdirectory: {folder}/registry}}}}\n"
        f"http: {{addr: '127.0.0.1:{port}'}}\n",
        encoding="utf-8",
    )
    inside = ["nsenter", f"--net=/proc/{beside.process.pid}/ns/net"]
    with (folder / "registry.log").open("wb") as log:
        process = subprocess.Popen(
            [*inside, program, "serve", config], stdout=log, stderr=log, cwd="/"
        )
    try:
        end = time.monotonic() + PATIENCE
        while subprocess.run(
            [*inside, "curl", "--silent", "--fail", f"http://127.0.0.1:{port}/v2/"],
            check=False,
            capture_output=True,
        ).returncode:
            assert time.monotonic() < end, (folder / "registry.log").read_text()
            time.sleep(0.1)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


@dataclass(frozen=True)
class Ssh:
    """A server of ssh before a daemon, and what its client needs.

    Attributes:
        url: Where the daemon answers.
        folder: Holds the client's `ssh`, for PATH, its `config`, and its keys.
    """

    url: str
    folder: Path


@contextlib.contextmanager
def ssh(before: Service, folder: Path, *, path: str = "") -> Iterator[Ssh]:
    """Start a server of ssh on this machine, whose sessions reach a daemon.

    Args:
        before: The daemon.
        folder: An empty folder.
        path: Where sessions find programs; empty for the usual places.
    """
    server = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")
    client = shutil.which("ssh")
    if server is None or client is None or os.geteuid() != 0:
        require("ssh", "sshd and ssh are not installed, or the tests do not run as root")
    port = free_port()
    _write_ssh(folder, client, port)
    variables = [f"DOCKER_HOST={before.url}", *([f"PATH={path}"] if path else [])]
    (folder / "sshd_config").write_text(
        f"ListenAddress 127.0.0.1\nPort {port}\nHostKey {folder}/host\nPidFile none\n"
        f"AuthorizedKeysFile {folder}/user.pub\nPasswordAuthentication no\nStrictModes no\n"
        f"UsePAM no\nPermitRootLogin yes\nSetEnv {' '.join(variables)}\n",
        encoding="utf-8",
    )
    Path("/run/sshd").mkdir(exist_ok=True)  # where it locks itself in, which its package makes
    words = [server, "-D", "-e", "-f", str(folder / "sshd_config")]
    with (folder / "sshd.log").open("wb") as log:
        process = subprocess.Popen(words, stdout=log, stderr=log, start_new_session=True)
    try:
        _wait_for_port(port, process, folder / "sshd.log")
        yield Ssh(f"ssh://root@127.0.0.1:{port}", folder)
    finally:
        process.terminate()
        process.wait()


def _write_ssh(folder: Path, client: str, port: int) -> None:
    """Write keys, and an `ssh` that reads nothing of this machine's user."""
    for name in ("host", "user"):
        key = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
        subprocess.run(key, check=True, stdin=subprocess.DEVNULL)
    host = (folder / "host.pub").read_text(encoding="utf-8")
    (folder / "known").write_text(f"[127.0.0.1]:{port} {host}", encoding="utf-8")
    (folder / "config").write_text(
        f"UserKnownHostsFile {folder}/known\nGlobalKnownHostsFile /dev/null\n"
        f"IdentityFile {folder}/user\nIdentitiesOnly yes\nStrictHostKeyChecking yes\n",
        encoding="utf-8",
    )
    (folder / "ssh").write_text(
        f'#!/bin/sh\nexec {client} -F {folder}/config "$@"\n', encoding="utf-8"
    )
    (folder / "ssh").chmod(0o755)


def free_port() -> int:
    """Return a port where nobody listens."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _wait_for_port(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.05)
    process.kill()
    process.wait()
    require("ssh", log.read_text(encoding="utf-8", errors="replace")[-2000:])


@contextlib.contextmanager
def buildkit(inside: Service) -> Iterator[str]:
    """Give the BuildKit inside of a Docker daemon an address of its own, as buildkitd has one."""
    upgrade = b"POST /grpc HTTP/1.1\r\nHost: docker\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
    place = inside.folder / "buildkit.socket"

    def serve(client: socket.socket) -> None:
        with client, socket.socket(socket.AF_UNIX) as daemon:
            daemon.connect(inside.url.removeprefix("unix://"))
            daemon.sendall(upgrade)
            answer = b""
            while not answer.endswith(b"\r\n\r\n") and (data := daemon.recv(1)):
                answer += data
            there = threading.Thread(target=_pump, args=(client, daemon), daemon=True)
            there.start()
            _pump(daemon, client)
            there.join()

    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(place))
        listening.listen()
        accepting = threading.Thread(target=_accept, args=(listening, serve), daemon=True)
        accepting.start()
        try:
            yield f"unix://{place}"
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            accepting.join()
            place.unlink()


def _accept(listening: socket.socket, serve: Callable[[socket.socket], None]) -> None:
    with contextlib.suppress(OSError):  # it is closed
        while True:
            client, _ = listening.accept()
            threading.Thread(target=serve, args=(client,), daemon=True).start()


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def _service(name: str, command: object) -> Iterator[Service]:
    # A short path: a socket's has at most 107 bytes (unix(7)).
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as place:
        folder = Path(place)
        folder.chmod(0o755)
        assert callable(command)
        words: list[str] = command(folder)
        environ = {
            **os.environ,
            "CONTAINERS_STORAGE_CONF": f"{folder}/storage.conf",
            "XDG_RUNTIME_DIR": str(folder),
            "HOME": str(folder),
        }
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                words, stdout=log, stderr=log, env=environ, cwd="/", start_new_session=True
            )
        try:
            _wait(name, process, folder)
            yield Service(f"unix://{folder}/socket", process, folder)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGCONT)  # a test may have stopped it
                os.killpg(process.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(PATIENCE)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            _unmount_below(folder)


def _unmount_below(folder: Path) -> None:
    """Unmount what a killed daemon left: it would stay for ever, and slow every sandbox down."""
    mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    places = [line.split()[4] for line in mounts]
    for place in reversed([each for each in places if each.startswith(f"{folder}/")]):
        subprocess.run(["umount", "--lazy", place], check=False, capture_output=True)


def _wait(name: str, process: subprocess.Popen[bytes], folder: Path) -> None:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and process.poll() is None:
        if (folder / "socket").exists():
            done = subprocess.run(
                ["curl", "--silent", "--unix-socket", folder / "socket", "http://x/_ping"],
                capture_output=True,
                check=False,
            )
            if done.stdout.startswith(b"OK"):
                return
        time.sleep(0.1)
    process.kill()
    require(name, (folder / "log").read_text(encoding="utf-8", errors="replace")[-2000:])
