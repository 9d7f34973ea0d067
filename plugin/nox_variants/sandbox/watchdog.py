"""What a process tree uses, read from /proc: for limits that no rlimit holds.

RLIMIT_NPROC does not bind root, and RLIMIT_DATA is per process: only the sum over the tree says
what a program really takes.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Usage:
    """What a tree uses now: resident memory in bytes, and processes and threads."""

    memory: int
    processes: int


def usage(root: int, *, enough: int) -> Usage:
    """Return what a process and all its descendants use.

    Args:
        root: The process id of the tree's root. Orphans of a PID namespace hang below its init,
            so nothing gets away by forking twice.
        enough: Stop counting beyond so many processes.
    """
    memory = count = 0
    pending = [root]
    while pending and count <= enough:
        pid = pending.pop()
        try:
            threads = os.listdir(f"/proc/{pid}/task")  # noqa: PTH208  # every 10 ms, for every process
            memory += _resident(pid)
        except OSError:
            continue
        count += len(threads)
        for thread in threads:
            pending.extend(_children(pid, thread))
    return Usage(memory, count)


def _resident(pid: int) -> int:
    with open(f"/proc/{pid}/statm", "rb") as file:  # noqa: PTH123
        fields = file.read().split()
    return int(fields[1]) * PAGE


def _children(pid: int, thread: str) -> list[int]:
    try:
        with open(f"/proc/{pid}/task/{thread}/children", "rb") as file:  # noqa: PTH123
            return [int(child) for child in file.read().split()]
    except OSError:
        return []
