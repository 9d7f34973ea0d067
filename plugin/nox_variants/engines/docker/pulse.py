"""Whether a daemon still answers while it builds: a build has no time limit of its own."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Self

from nox_variants.engines.docker.connection import DaemonError, explained

if TYPE_CHECKING:
    from nox_variants.engines.docker.connection import Daemon

EVERY = 30.0
"""Seconds between two questions; a daemon is given up that does not answer one in time."""


class Pulse(threading.Event):
    """What cancels a build: the user, or a daemon that is paused or hangs.

    Args:
        daemon: The daemon.
        cancelled: Ends the run.
    """

    def __init__(self, daemon: Daemon, cancelled: threading.Event) -> None:
        super().__init__()
        self._daemon = daemon
        self._cancelled = cancelled
        self._over = threading.Event()

    def __enter__(self) -> Self:
        threading.Thread(target=self._ask, name="nox-variants-pulse", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()

    def is_set(self) -> bool:
        """Tell whether the build has to end."""
        return self._cancelled.is_set() or super().is_set()

    def check(self) -> None:
        """Say why the build had to end, where that was the daemon's fault.

        Raises:
            DaemonError: It was.
        """
        if super().is_set():
            raise DaemonError(
                "the build could not be done: the daemon does not answer any more",
                hint="Is it paused, or short of memory? `docker info` shows when it is back.",
            )

    def _ask(self) -> None:
        from requests.exceptions import Timeout  # noqa: PLC0415  # with the SDK

        while not self._over.wait(EVERY):
            try:
                with explained("asking whether it is there"):
                    self._daemon.client.ping()
            except DaemonError as error:  # of one that is gone, the build tells itself
                if isinstance(error.__cause__, Timeout) and not self._over.is_set():
                    self.set()
                    return
