"""A shell beside a variant's own files, as a container: made, attached, removed."""

from __future__ import annotations

import signal
import socket
import tempfile
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nox_variants import terminal
from nox_variants.engines.docker.answers import hang_up
from nox_variants.engines.docker.connection import explained
from nox_variants.oci.layer import write_tree
from nox_variants.sandbox import shell
from nox_variants.sandbox.program import OPEN_FILES, SHM_SIZE, SIGNALLED, TMP_SIZE

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable
    from pathlib import Path

    from docker.models.containers import Container

    from nox_variants.engines.docker.connection import Daemon
    from nox_variants.engines.docker.containers import Reaper
    from nox_variants.model import Pairs

_NO_DETACHING = "ctrl-@,ctrl-@,ctrl-@"
"""Keys that leave a container's terminal: Docker's own would take Ctrl-P from the shell."""

_LIMITS = {"nofile": OPEN_FILES, "nproc": 4096}


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """What is run.

    Attributes:
        image: The image's id.
        tools: A root with the tools; see :func:`nox_variants.sandbox.shell.tools`.
        command: A command and its arguments; empty for a shell.
        env: Environment of the image and of the smoke run.
        labels: Labels of the container.
        terminal: The kind of the user's terminal, as TERM has it; empty for none.
    """

    image: str
    tools: Path
    command: tuple[str, ...]
    env: Pairs
    labels: Pairs
    terminal: str


def run_session(daemon: Daemon, session: Session, reaper: Reaper) -> int:
    """Run a session to its end.

    The tools are put into the container before it starts: no image is made for them.

    Returns:
        The command's exit code; 128 and the number for a signal.

    Raises:
        DaemonError: The daemon failed.
    """
    with explained("making a container to debug in"):
        container = _create(daemon, session)
    try:
        with explained("putting the tools into a container"), tempfile.TemporaryFile() as archive:
            write_tree(session.tools, archive, mtime=0)
            archive.seek(0)
            container.put_archive("/", archive)
        return _attached(container, with_terminal=bool(session.terminal))
    finally:
        reaper.remove(container)


def _create(daemon: Daemon, session: Session) -> Container:
    from docker.types import LogConfig, Ulimit  # noqa: PLC0415  # with the SDK

    entrypoint, *command = shell.argv(session.command)
    return daemon.client.containers.create(
        session.image,
        entrypoint=[entrypoint],
        command=command,
        environment=shell.environment(session.env, session.terminal),
        labels=dict(session.labels),
        stdin_open=True,
        tty=bool(session.terminal),
        network_mode="none",
        cap_drop=["ALL"],
        security_opt=["no-new-privileges"],
        hostname="variant",
        shm_size=SHM_SIZE,
        tmpfs={"/tmp": f"rw,nosuid,nodev,size={TMP_SIZE},mode=1777"},  # noqa: S108
        # Podman's own are more than it may set, where it runs in a container itself.
        ulimits=[Ulimit(name=name, soft=most, hard=most) for name, most in _LIMITS.items()],
        log_config=LogConfig(type="none"),
    )


def _attached(container: Container, *, with_terminal: bool) -> int:
    with ExitStack() as stack:
        with explained("attaching to a container"):
            output = container.attach(stdout=True, stderr=True, stream=True, demux=True)
            stack.callback(hang_up, output)
            stdin = container.attach_socket(
                params={"stdin": 1, "stream": 1, "detachKeys": _NO_DETACHING}
            )
            stack.callback(hang_up, stdin)
        with explained("starting a container to debug in"):
            container.start()
        raw: Any = getattr(stdin, "_sock", stdin)
        with suppress(AttributeError):
            raw.settimeout(None)
        if with_terminal:
            with terminal.raw(lambda size: _resize(container, size)):
                terminal.feed(raw.sendall, lambda: None)
                return _followed(container, output)
        terminal.feed(raw.sendall, lambda: raw.shutdown(socket.SHUT_WR))
        return _followed(container, output)


def _resize(container: Container, size: os.terminal_size) -> None:
    from docker.errors import APIError  # noqa: PLC0415  # with the SDK

    with suppress(APIError):  # it ended by itself in this very moment
        container.resize(size.lines, size.columns)


def _followed(container: Container, output: Iterable[Any]) -> int:
    """Pass output on until its end, and return the exit code."""
    with explained("following a container"):
        for parts in output:
            for descriptor, data in zip((terminal.STDOUT, terminal.STDERR), parts, strict=True):
                try:
                    terminal.write(descriptor, data or b"")
                except BrokenPipeError:  # an OSError, but none of the daemon's
                    return SIGNALLED + signal.SIGPIPE
        return int(container.wait(timeout=None)["StatusCode"])
