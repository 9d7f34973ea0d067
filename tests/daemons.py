"""Daemons of the tests' own: private sockets, data and networks."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from conftest import require

if TYPE_CHECKING:
    from collections.abc import Iterator

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
def docker(data: str = "data") -> Iterator[Service]:
    """Start Docker, with a bridge in a network namespace of its own."""
    daemon = shutil.which("dockerd")
    if daemon is None or os.geteuid() != 0 or shutil.which("unshare") is None:
        require("docker", "dockerd and unshare are not installed, or the tests do not run as root")

    def command(folder: Path) -> list[str]:
        places = {"data-root": data, "exec-root": "exec", "pidfile": "pid"}
        flags = [f"--{name}={folder / place}" for name, place in places.items()]
        own = ["--iptables=false", "--ip6tables=false", f"--host=unix://{folder}/socket"]
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
