"""What the processes of a sandbox use: for limits that no rlimit holds.

RLIMIT_NPROC does not bind root, and RLIMIT_DATA is per process: only the sum says what a program
really takes. It is read from the sandbox's own /proc, which lists its PID namespace and nothing
else: nobody gets away by forking twice, and a busy machine costs nothing.

Of memory that no process has mapped, what lies in files is seen: in folders that can be written,
and in memory files that are open. The rest (System V segments, socket buffers, shared memory that
was unmapped) is not: without cgroups, only the limit on time bounds it, and the kernel, which is
told to end the program first when this machine runs out of memory.
"""

from __future__ import annotations

import functools
import os
import signal
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096

_THREADS, _RESIDENT = 17, 21
"""Fields of /proc/PID/stat, counted from the state, the first one after the name (proc(5))."""

_OWN, _SHARED = b"Pss_Anon:", b"Pss_Shmem:"
_SHARES = {_OWN, _SHARED}
_INODE = 1024
"""What an empty file takes in memory, rounded up."""

_BLOCK = 512
_PEAK = b"\nVmHWM:"


@dataclass(frozen=True, slots=True)
class Usage:
    """What a sandbox uses now.

    Attributes:
        memory: Bytes that its processes have mapped.
        processes: Processes and threads.
        shared: How many of those bytes files of memory may hold as well; 0 without a closer look.
    """

    memory: int
    processes: int
    shared: int = 0


def usage(proc: str, *, memory: int, processes: int) -> Usage:
    """Return what all processes of a sandbox use.

    Args:
        proc: The sandbox's own /proc.
        memory: Look closer when resident sets add up to more: they hold shared pages once for
            every process, and pages of files, which the kernel can drop.
        processes: Stop counting beyond so many.
    """
    resident: dict[str, int] = {}
    count = 0
    for name in _processes(proc):
        threads, resident[name] = _stat(f"{proc}/{name}")
        count += threads
        if count > processes:
            break
    taken = sum(resident.values())
    if taken <= memory:
        return Usage(taken, count)
    shares = [_share(f"{proc}/{name}", most) for name, most in resident.items()]
    shared = sum(size for _, size in shares)
    return Usage(shared + sum(size for size, _ in shares), count, shared)


def stored(folders: Iterable[int]) -> int:
    """Return the bytes of memory that file systems of memory take, with their inodes.

    Args:
        folders: A descriptor of a folder on each.
    """
    found = [os.fstatvfs(folder) for folder in folders]
    blocks = sum((facts.f_blocks - facts.f_bfree) * facts.f_frsize for facts in found)
    return blocks + sum(facts.f_files - facts.f_ffree for facts in found) * _INODE


def memory_files(proc: str) -> int:
    """Return the bytes of the memory files (memfd_create(2)) that a sandbox's processes have open.

    Args:
        proc: The sandbox's own /proc.
    """
    found = {}
    for name in _processes(proc):
        for file in _open_files(f"{proc}/{name}"):
            with suppress(OSError):  # it has just been closed
                facts = os.stat(file)  # noqa: PTH116  # many, and often
                if facts.st_dev == _device():
                    found[facts.st_ino] = facts.st_blocks * _BLOCK
    return sum(found.values())


@functools.cache
def _device() -> int:
    """Return the number of the device that the kernel keeps memory files on."""
    file = os.memfd_create("nox-variants")
    try:
        return os.fstat(file).st_dev
    finally:
        os.close(file)


def _open_files(folder: str) -> list[str]:
    """Return a process's open files; those of a thread where the main thread has ended."""
    for each in (folder, *_threads(folder)):
        try:
            names = os.listdir(f"{each}/fd")  # noqa: PTH208
        except OSError:
            return []
        if names:
            return [f"{each}/fd/{name}" for name in names]
    return []


def peaks(proc: str) -> int:
    """Return the most resident memory that one of a sandbox's processes has had so far.

    Args:
        proc: The sandbox's own /proc.
    """
    return max((peak(f"{proc}/{name}") for name in _processes(proc)), default=0)


def peak(folder: str) -> int:
    """Return the most resident memory that a process has had so far, in bytes; 0 when it is over.

    It counts from the process's last exec(2): VmHWM (proc_pid_status(5)).
    """
    _, found, rest = _read(f"{folder}/status").partition(_PEAK)
    return int(rest.split(maxsplit=1)[0]) * 1024 if found else 0


def kill(proc: str) -> None:
    """Kill all processes of a sandbox, each by itself.

    To kill PID 1 is not enough where root runs a fork bomb: it waits for locks that all others
    want, while they go on. What is about to be killed cannot fork any more.
    """
    for name in _processes(proc):
        with suppress(OSError):  # it has just ended
            descriptor = os.open(f"{proc}/{name}", os.O_RDONLY | os.O_DIRECTORY)
            try:
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
            finally:
                os.close(descriptor)


def _processes(proc: str) -> Iterator[str]:
    return filter(str.isdecimal, os.listdir(proc))  # noqa: PTH208  # every 10 ms


def _stat(folder: str) -> tuple[int, int]:
    """Return a process's threads and its resident memory; nothing when it has just ended."""
    fields = _read(f"{folder}/stat").rpartition(b")")[2].split()
    if not fields:
        return 0, 0
    threads, pages = int(fields[_THREADS]), int(fields[_RESIDENT])
    if not pages and threads > 1:  # the main thread has ended, and memory hangs on the others
        pages = max(map(_pages, _threads(folder)), default=0)
    return threads, pages * PAGE


def _pages(folder: str) -> int:
    fields = _read(f"{folder}/statm").split()
    return int(fields[1]) if fields else 0


def _share(folder: str, most: int) -> tuple[int, int]:
    """Return a process's share of memory that cannot be dropped: its own, and what is shared.

    Where that is hidden, `most` is its own.
    """
    for each in (folder, *_threads(folder)):
        try:
            text = _read(f"{each}/smaps_rollup")
        except PermissionError:
            return most, 0
        lines = (line.split() for line in text.splitlines())
        sizes = {fields[0]: int(fields[1]) * 1024 for fields in lines if fields[0] in _SHARES}
        if sizes:
            return sizes.get(_OWN, 0), sizes.get(_SHARED, 0)
    return 0, 0


def _threads(folder: str) -> Iterator[str]:
    try:
        names = os.listdir(f"{folder}/task")  # noqa: PTH208
    except (FileNotFoundError, ProcessLookupError):
        return
    yield from (f"{folder}/task/{name}" for name in names)


def _read(file: str) -> bytes:
    """Return what a file says; nothing when its process has just ended."""
    try:
        with open(file, "rb") as opened:  # noqa: PTH123  # every 10 ms, for every process
            return opened.read()
    except (FileNotFoundError, ProcessLookupError):
        return b""
