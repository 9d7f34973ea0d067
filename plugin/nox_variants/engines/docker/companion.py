"""Fixtures beside a container: a helper container, whose network the program's own joins.

A daemon may be anywhere: nothing of this machine is mounted, all goes through its API.
"""

from __future__ import annotations

import io
import socket
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nox_variants.engines.docker.answers import hang_up
from nox_variants.engines.docker.connection import DaemonError
from nox_variants.engines.docker.labels import FIXTURES
from nox_variants.oci.layer import BLOCK, plain_file
from nox_variants.results import EngineName
from nox_variants.sandbox import fixtures
from nox_variants.sandbox.bubblewrap import HOSTNAME
from nox_variants.sandbox.probes import FINISH, READY, RESOLV_CONF
from nox_variants.sandbox.program import OPEN_FILES

if TYPE_CHECKING:
    from docker.models.containers import Container
    from docker.models.images import Image

    from nox_variants.engines.docker.connection import Daemon
    from nox_variants.model import Pairs
    from nox_variants.sandbox.probes import Fixtures, Probe

POLL = 0.02
"""Seconds between two looks at what the fixtures have said."""

MEMORY = 256 * 1024 * 1024
PROCESSES = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Brought:
    """What is brought for one run.

    Attributes:
        fixtures: What is asked for.
        helper: An image with Python.
        files: Files that the run lays over the image's, each with its path and what it says.
    """

    fixtures: Fixtures
    helper: str
    files: tuple[tuple[str, bytes], ...] = ()


def create(daemon: Daemon, brought: Brought, labels: Pairs) -> Container:
    """Create the helper container."""
    from docker.types import LogConfig, Ulimit  # noqa: PLC0415  # with the SDK

    wanted = brought.fixtures
    return daemon.client.containers.create(
        brought.helper,
        entrypoint=["python3"],
        command=["-I", "-S", "-c", Path(fixtures.__file__).read_text(encoding="utf-8")],
        user="0",
        working_dir="/",
        labels={**dict(labels), FIXTURES: ""},
        stdin_open=True,
        network_mode="none",
        dns=[fixtures.ADDRESS] if wanted.names else None,
        extra_hosts={fixtures.HOST: fixtures.ADDRESS} if wanted.certificate else None,
        hostname=HOSTNAME,
        read_only=True,
        cap_drop=["ALL"],
        cap_add=["NET_BIND_SERVICE"],
        security_opt=["no-new-privileges"],
        mem_limit=MEMORY,
        memswap_limit=MEMORY,
        pids_limit=PROCESSES,
        ulimits=[
            Ulimit(name=name, soft=most, hard=most)  # Podman needs them
            for name, most in (("nofile", OPEN_FILES), ("nproc", PROCESSES))
        ],
        log_config=LogConfig(type="none"),
    )


class Companion:
    """One run's fixtures, from their start to their end.

    Args:
        container: The helper container; it is started.
        wanted: What is asked for.
        probe: Is told what they say.
    """

    def __init__(self, container: Container, wanted: Fixtures, probe: Probe) -> None:
        self._probe = probe
        self.begin = time.monotonic()
        """When the program began."""
        streams = {"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1}
        self._stream: Any = container.attach_socket(params=streams)
        self._socket: Any = getattr(self._stream, "_sock", self._stream)
        self._reader = threading.Thread(target=self._read, daemon=True)
        try:
            container.start()
        except BaseException:
            hang_up(self._stream)
            raise
        self._reader.start()
        self._send(wanted.orders())

    def wait(self, cancelled: threading.Event) -> None:
        """Wait until their ports are open.

        Raises:
            DaemonError: They could not be opened, or the run was cancelled.
        """
        until = time.monotonic() + READY
        while not self._probe.ready and self._reader.is_alive() and time.monotonic() < until:
            if cancelled.wait(POLL):
                raise DaemonError("cancelled")
        self.check()

    def check(self) -> None:
        """Raise when they have failed.

        Raises:
            DaemonError: They have.
        """
        if self._probe.failed or not (self._probe.ready and self._reader.is_alive()):
            words = self._probe.words or "they ended, or did nothing"
            raise DaemonError(f"the fixtures of the smoke run failed: {words}")

    def finish(self) -> None:
        """Let them say the last, when the program has ended.

        Raises:
            DaemonError: They have failed.
        """
        self.check()
        self._send(b"\n")
        self._reader.join(FINISH)

    def close(self) -> None:
        """Shut the connection down: its reader closes it."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def _send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def _read(self) -> None:
        from docker.utils.socket import frames_iter  # noqa: PLC0415  # with the SDK

        with suppress(Exception):  # its thread's end is what is looked at
            for _, data in frames_iter(self._stream, tty=False):  # type: ignore[no-untyped-call]
                self._probe.hear(data, time.monotonic() - self.begin)
        hang_up(self._stream)


def joined(daemon: Daemon, helper: Container, brought: Brought) -> dict[str, Any]:
    """Return what a container is made with that joins the helper's network.

    Docker gives it the helper's name, hosts and resolv.conf. Podman gives it hosts of its own, and
    no way to add others: it gets the helper's as a file.
    """
    network: dict[str, Any] = {"network_mode": f"container:{helper.id}"}
    if daemon.info.name is EngineName.DOCKER:
        return network
    network["hostname"] = HOSTNAME
    if brought.fixtures.certificate:
        helper.reload()
        # z: a file for several containers, where SELinux keeps them apart.
        network["volumes"] = {helper.attrs["HostsPath"]: {"bind": "/etc/hosts", "mode": "ro,z"}}
    return network


def files(daemon: Daemon, brought: Brought) -> tuple[tuple[str, bytes], ...]:
    """Return the files that an image needs for a run: Podman makes no resolv.conf without net."""
    if daemon.info.name is EngineName.DOCKER or not brought.fixtures.names:
        return brought.files
    return (*brought.files, ("/etc/resolv.conf", RESOLV_CONF.encode()))


def derive(
    daemon: Daemon, image: str, added: tuple[tuple[str, bytes], ...], labels: Pairs
) -> tuple[Container, Image]:
    """Make an image of another one, with files: a run's root is read-only from its start.

    Returns:
        The container that it was made of, and the image.
    """
    container = daemon.client.containers.create(image, command=["-"], labels=dict(labels))
    archive = io.BytesIO()
    for path, data in added:
        archive.write(plain_file(path[1:], data))
    archive.write(bytes(2 * BLOCK))
    archive.seek(0)
    container.put_archive("/", archive)
    return container, container.commit()
