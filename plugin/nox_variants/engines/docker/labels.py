"""Labels of what is made in a daemon: what has none of them is not ours to touch."""

from __future__ import annotations

import os
import socket
from pathlib import Path

LABEL = "nox-variants."
"""The beginning of every label of ours."""

OWNER = f"{LABEL}owner"
"""On containers, and images for one run: ``HOST:PID`` of the process that made it."""

FIXTURES = f"{LABEL}fixtures"
"""On containers whose network others join: they go last, as Podman demands."""


def owner() -> str:
    """Return this process, as its containers name it."""
    return f"{socket.gethostname()}:{os.getpid()}"


def ended(who: str, host: str, processes: Path = Path("/proc")) -> bool:
    """Tell whether the owner of a container is known to have ended.

    Args:
        who: What its label says.
        host: This machine's name: nothing is known of others.
        processes: ``/proc``.
    """
    where, _, process = who.rpartition(":")
    return where == host and process.isdecimal() and not (processes / process).exists()
