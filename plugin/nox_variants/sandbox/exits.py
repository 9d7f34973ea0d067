"""What processes used when they end: each is asked for at its exit, before its memory is gone.

A program that lives for a millisecond is over before anyone looks, and what the kernel keeps of it
(ru_maxrss) holds bubblewrap as well, and the process that started that one. So exit_group(2) waits
for a word of ours (seccomp_unotify(2)), and /proc says what the process had at most.

Not seen are processes that end otherwise: killed, or by exit(2) alone, as in hand-written assembly.
"""

from __future__ import annotations

import ctypes
import os
import platform
import select
import struct
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Self

from nox_variants.sandbox import seccomp, watchdog
from nox_variants.sandbox.bubblewrap import find_bwrap

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from types import TracebackType

_CALLS = {"x86_64": 317, "aarch64": 277, "riscv64": 277}
"""The number of seccomp(2), by machine."""

_SET_MODE_FILTER, _NEW_LISTENER = 1, 8
_PR_SET_NO_NEW_PRIVS = 38
_RECEIVE, _SEND, _VALID = 0xC0502100, 0xC0182101, 0x40082102  # linux/seccomp.h
_PROGRAM = struct.Struct("@HP")  # struct sock_fprog, linux/filter.h
_NOTIFICATION, _ANSWER = struct.Struct("=QI68x"), struct.Struct("=QqiI")
_CONTINUE = 1

_SETUID = 0o4000
_POLL = 0.005
"""Seconds between two looks for exits while bwrap is being started."""


class Exits:
    """Watches what bwrap starts; its own thread does, and with that thread bwrap would end.

    Where the kernel, or what contains us, does not let it, nothing is seen and all else works.

    Args:
        start: Starts bwrap.

    Raises:
        SandboxError: What `start` raises.
        EngineUnavailable: Likewise.

    Attributes:
        process: What `start` returned.
    """

    process: subprocess.Popen[bytes]

    def __init__(self, start: Callable[[], subprocess.Popen[bytes]]) -> None:
        self._start = start
        self._peaks: dict[int, int] = {}
        self._held: dict[int, float] = {}
        self._listener = -1
        self._error: BaseException | None = None
        self._over, self._end = os.pipe()
        self._started, self._lock = threading.Event(), threading.Lock()
        self._thread = threading.Thread(target=self._run, name="nox-variants-exits")
        self._thread.start()
        while not self._started.wait(_POLL):
            self._answer()  # a bwrap that cannot be executed exits before `start` returns
        if self._error is not None:
            self.close()
            raise self._error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop watching: to be called when bwrap has ended."""
        os.close(self._end)
        self._thread.join()
        os.close(self._over)
        if self._listener >= 0:
            os.close(self._listener)

    def saw(self, number: int) -> bool:
        """Tell whether a process was seen to exit by itself."""
        return number in self._peaks

    def held(self, number: int) -> float:
        """Return the seconds that a process's exit waited for us."""
        return self._held.get(number, 0.0)

    def peak(self) -> int:
        """Return the most resident memory that one process, other than bwrap, had, in bytes."""
        sizes = (size for number, size in self._peaks.items() if number != self.process.pid)
        return max(sizes, default=0)

    def _run(self) -> None:
        try:
            self._listener = _listen()
            self.process = self._start()
        except BaseException as error:  # noqa: BLE001  # it is raised in the other thread
            self._error = error
        self._started.set()
        poller = select.poll()
        poller.register(self._over, 0)  # that the other end is closed is always told
        if self._listener >= 0:
            poller.register(self._listener, select.POLLIN)
        while self._over not in dict(poller.poll()):
            self._answer()

    def _answer(self) -> None:
        """Let all that wait for it exit."""
        poller = select.poll()
        with self._lock:
            if self._listener >= 0:
                poller.register(self._listener, select.POLLIN)
            while poller.poll(0):
                self._answer_one()

    def _answer_one(self) -> None:
        """Note what a process had at most, and let it exit."""
        import fcntl  # noqa: PLC0415  # not on Windows, where this module still has to load

        begin, asked = time.monotonic(), bytearray(_NOTIFICATION.size)
        with suppress(OSError):  # it was killed in this very moment
            fcntl.ioctl(self._listener, _RECEIVE, asked)
            call, number = _NOTIFICATION.unpack(asked)
            with suppress(OSError):
                self._note(number, call)
            self._held[number] = time.monotonic() - begin
            fcntl.ioctl(self._listener, _SEND, _ANSWER.pack(call, 0, 0, _CONTINUE))

    def _note(self, number: int, call: int) -> None:
        import fcntl  # noqa: PLC0415

        size = watchdog.peak(f"/proc/{number}")
        fcntl.ioctl(self._listener, _VALID, struct.pack("=Q", call))  # or it is another's number
        if size:
            self._peaks[number] = max(size, self._peaks.get(number, 0))


def _listen() -> int:
    """Let this thread, and all that it starts from now on, ask before it exits.

    Returns:
        The descriptor that says who asks; -1 where that cannot be had. A bubblewrap that is
        set-user-ID would lose its rights by it.
    """
    number = _CALLS.get(platform.machine())
    if number is None or find_bwrap().stat().st_mode & _SETUID:
        return -1
    library, code = ctypes.CDLL(None), seccomp.exits()
    kept = ctypes.create_string_buffer(code, len(code))
    wanted = _PROGRAM.pack(len(code) // seccomp.INSTRUCTION, ctypes.addressof(kept))
    library.prctl(_PR_SET_NO_NEW_PRIVS, *map(ctypes.c_ulong, (1, 0, 0, 0)))
    return int(library.syscall(number, _SET_MODE_FILTER, _NEW_LISTENER, wanted))
