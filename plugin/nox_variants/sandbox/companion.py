"""Fixtures beside a sandbox: a process in its network namespace, and in nothing else of it."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING

from nox_variants.errors import SandboxError
from nox_variants.sandbox import fixtures
from nox_variants.sandbox.bubblewrap import stop_if, stream
from nox_variants.sandbox.probes import FINISH, READY

if TYPE_CHECKING:
    import threading

    from nox_variants.sandbox.probes import Fixtures, Probe

POLL_MS = 20

_CHUNK = 65536
_NS_GET_USERNS = 0xB701
"""ioctl_ns(2): the user namespace that owns another one."""


class Companion:
    """One run's fixtures, from their start to their end. It ends with the process that made it.

    Args:
        inner: The sandbox's first process, which waits.
        probe: Is told what they say.
        stack: Ends them.

    Raises:
        SandboxError: They cannot be started.
    """

    def __init__(self, inner: int, probe: Probe, stack: ExitStack) -> None:
        self._probe = probe
        self._over = False
        try:
            with ExitStack() as opened:
                self._namespaces = _namespaces(inner, opened)
                self._process = subprocess.Popen(
                    [sys.executable, "-I", "-S", str(Path(fixtures.__file__))],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    bufsize=0,  # nothing is left to be written when they are gone
                    pass_fds=self._namespaces,
                    env={},
                    cwd="/",
                    start_new_session=True,
                )
        except OSError as error:
            raise SandboxError(f"fixtures cannot be started: {error.strerror}") from error
        stack.enter_context(self._process)
        stack.callback(self._process.kill)
        self.output: IO[bytes] = stream(self._process.stdout)

    def begin(self, wanted: Fixtures, cancelled: threading.Event) -> None:
        """Let them open their ports, and wait until they have.

        Raises:
            SandboxError: They could not, or the run was cancelled.
        """
        with suppress(BrokenPipeError):
            stream(self._process.stdin).write(wanted.orders(self._namespaces))
        until = time.monotonic() + READY
        while not self._probe.ready and time.monotonic() < until:
            stop_if(cancelled)
            if self._poll() and not self.read(0.0):
                break
        self.check()

    def read(self, now: float) -> bool:
        """Take in what they have said; tells whether there may be more."""
        data = os.read(self.output.fileno(), _CHUNK)
        self._probe.hear(data, now)
        self._over |= not data
        return bool(data)

    def finish(self, begin: float) -> None:
        """Let them say the last, when the program has ended.

        Args:
            begin: When it began.

        Raises:
            SandboxError: They have failed.
        """
        self.check()
        with suppress(BrokenPipeError):
            stream(self._process.stdin).close()
        until = time.monotonic() + FINISH
        while time.monotonic() < until:
            if self._poll() and not self.read(time.monotonic() - begin):
                break

    def check(self) -> None:
        """Raise when they have failed.

        Raises:
            SandboxError: They have.
        """
        if self._over or self._probe.failed or not self._probe.ready:
            words = self._probe.words or "they ended, or did nothing"
            raise SandboxError(f"the fixtures of the smoke run failed: {words}")

    def _poll(self) -> bool:
        poller = select.poll()
        poller.register(self.output, select.POLLIN)
        return bool(poller.poll(POLL_MS))


def _namespaces(inner: int, opened: ExitStack) -> tuple[int, int]:
    """Open a process's network namespace, and the user namespace whose root may open ports in it.

    That is not the process's own: bwrap makes two.
    """
    import fcntl  # noqa: PLC0415  # not on Windows, where this module still has to load

    network = os.open(f"/proc/{inner}/ns/net", os.O_RDONLY)
    opened.callback(os.close, network)
    user = fcntl.ioctl(network, _NS_GET_USERNS)
    opened.callback(os.close, user)
    return user, network
