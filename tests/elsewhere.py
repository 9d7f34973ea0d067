"""Sockets of this process where a daemon of the tests has its own network."""

from __future__ import annotations

import contextlib
import ctypes
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from daemons import Service

_NETWORK = 0x40000000  # CLONE_NEWNET (setns(2))


@contextlib.contextmanager
def network_of(service: Service) -> Iterator[None]:
    """Let this thread, and those that it starts, make their sockets in a daemon's network."""
    with (
        open("/proc/thread-self/ns/net", "rb") as ours,  # noqa: PTH123  # no path to join
        open(f"/proc/{service.process.pid}/ns/net", "rb") as theirs,  # noqa: PTH123
    ):
        _enter(theirs.fileno())
        try:
            yield
        finally:
            _enter(ours.fileno())


def _enter(network: int) -> None:
    # os.setns is newer than the oldest Python.
    if ctypes.CDLL(None, use_errno=True).setns(network, _NETWORK):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
