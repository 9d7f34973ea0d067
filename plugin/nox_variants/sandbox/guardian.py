"""What ends sandboxes whose process was killed, where bwrap's ``--die-with-parent`` comes too late.

Bwrap asks the kernel for that when namespaces are made, and again in the sandbox when that is: a
process that is killed in the milliseconds before leaves a sandbox that nobody would end. So all of
them are started in one group, whose leader waits for the end of this process, and ends the group.
"""

from __future__ import annotations

import functools
import os
import sys
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Callable

_SHELL = "/bin/sh"
_SCRIPT = """
live=
while read -r sign number; do
    case $sign in
        +) live="$live $number" ;;
        -)
            kept=
            for each in $live; do [ $each = $number ] || kept="$kept $each"; done
            live=$kept
            ;;
    esac
done
for each in $live; do
    while read -r name _ inner _; do
        case $name$inner in NSpid:?*) kill -9 $each ;; esac
    done </proc/$each/status
done
kill -9 0
"""
"""Keeps numbers of sandboxes until the end of this process; what is in no namespace is none."""

_PIECE = 8
"""Bytes of one instruction (linux/filter.h), which alone is no program that the kernel takes."""

_LOOK = 0.0005
"""Seconds between two looks whether a sandbox has come so far; it takes milliseconds."""

_lock = threading.Lock()


def group() -> int:
    """Return the process group that ends with this process.

    Raises:
        OSError: Its leader cannot be started.
    """
    with _lock:
        return _guardian(os.getpid())[0]


def _tell(sign: str, number: int) -> None:
    """Tell the guardian that a sandbox begins, or that it is over."""
    with _lock, suppress(OSError):  # it was killed
        os.write(_guardian(os.getpid())[1], f"{sign} {number}\n".encode())


@functools.cache
def _guardian(_: int) -> tuple[int, int]:
    """Start the guardian, once in each process: one that was forked has no part in the pipe.

    Returns:
        Its number, which is that of its group, and what it reads from: inherited by nobody.
    """
    reading, writing = os.pipe()
    try:
        number = os.posix_spawn(
            _SHELL,
            [_SHELL, "-c", _SCRIPT],
            {},
            file_actions=[
                (os.POSIX_SPAWN_DUP2, reading, 0),
                (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ],
            setpgroup=0,
        )
    except BaseException:
        os.close(writing)
        raise
    finally:
        os.close(reading)
    return number, writing


class Entrance:
    """What a sandbox waits for before its command begins: the seccomp program, read after all else.

    When this process is killed before, there is no program, and bwrap gives up. From then on a
    sandbox is no more of the guardian's group, which is told its number instead.

    Args:
        program: The program.
    """

    def __init__(self, program: bytes) -> None:
        self._program = program
        self.reading, writing = os.pipe()
        self._writing = os.fdopen(writing, "wb", buffering=0)
        self._inside = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        self.started()
        if self._inside:
            _tell("-", self._inside)

    def started(self) -> None:
        """Leave the other end to bwrap, which has been started with it."""
        if self.reading >= 0:
            os.close(self.reading)
            self.reading = -1

    def reached(self, gone: Callable[[], bool]) -> None:
        """Wait until all else is made.

        Args:
            gone: Tells that there is nobody to wait for.
        """
        first, self._program = self._program[:_PIECE], self._program[_PIECE:]
        self._write(first)
        while _unread(self._writing.fileno()) and not gone():
            time.sleep(_LOOK)

    def open(self, inside: int | None) -> None:
        """Let the command begin.

        Args:
            inside: The number of the sandbox's first process; None when there is none.
        """
        if inside is not None:
            self._inside = inside
            _tell("+", inside)
        self._write(self._program)
        self.close()

    def close(self) -> None:
        """Let nobody in any more."""
        self._writing.close()

    def _write(self, data: bytes) -> None:
        with suppress(BrokenPipeError):  # it has ended
            self._writing.write(data)


def _unread(pipe: int) -> int:
    """Return how many bytes of a pipe are still to be read (pipe(7))."""
    import fcntl  # noqa: PLC0415  # not on Windows, where this module still has to load
    import termios  # noqa: PLC0415

    return int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)), sys.byteorder)
