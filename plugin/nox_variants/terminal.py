"""The user's terminal, and standard input, for a session somewhere else."""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

STDIN, STDOUT, STDERR = 0, 1, 2

_CHUNK = 65536


def is_terminal() -> bool:
    """Tell whether standard input is a terminal."""
    return sys.stdin is not None and os.isatty(STDIN)


@contextmanager
def raw(resized: Callable[[os.terminal_size], object]) -> Iterator[None]:
    """Let every key through, Ctrl-C too, and give the terminal back as it was.

    Args:
        resized: Told the terminal's size, now and when it changes.
    """
    import termios  # noqa: PLC0415  # not on Windows, where this module still has to load
    import tty  # noqa: PLC0415

    def look(*_: object) -> None:
        with suppress(OSError):  # it was closed
            resized(os.get_terminal_size(STDIN))

    saved = termios.tcgetattr(STDIN)
    before = signal.signal(signal.SIGWINCH, look)
    try:
        tty.setraw(STDIN)
        look()
        yield
    finally:
        signal.signal(signal.SIGWINCH, before)
        with suppress(termios.error):  # as above
            termios.tcsetattr(STDIN, termios.TCSADRAIN, saved)


def feed(send: Callable[[bytes], object], end: Callable[[], object]) -> None:
    """Pass standard input on, in a thread of its own that nobody waits for.

    Args:
        send: Takes what was read; an OSError or ValueError says that nobody reads any more.
        end: Called at the end of standard input.
    """

    def pump() -> None:
        with suppress(OSError, ValueError):
            while data := os.read(STDIN, _CHUNK):
                send(data)
            end()

    threading.Thread(target=pump, daemon=True).start()


def write(descriptor: int, data: bytes) -> None:
    """Write all of some data.

    Raises:
        BrokenPipeError: Nobody reads it any more, or the terminal was closed.
    """
    left = memoryview(data)
    try:
        while left:
            left = left[os.write(descriptor, left) :]
    except OSError as error:
        if error.errno == errno.EIO:
            raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE)) from error
        raise


@contextmanager
def ending() -> Iterator[None]:
    """Turn SIGTERM and SIGHUP into an exit that cleans up, with the code that a shell shows."""

    def end(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    numbers = (signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, end) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
