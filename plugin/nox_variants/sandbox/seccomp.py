"""What namespaces do not contain, as a seccomp program (Linux, seccomp_filter.rst).

Three things: the kernel's key rings, which are the calling user's own; PR_SET_PDEATHSIG, with
which PID 1 could outlive a killed bwrap; and what Docker refuses a container, though the kernel
may let everyone use it, for it leads deep into the kernel or tells about the whole machine: bpf,
performance events, io_uring, userfaultfd, the kernel's log. All else is left to namespaces and
capabilities, so that a program sees here what it sees in a container.
"""

from __future__ import annotations

import errno
import functools
import signal
import struct

_LOAD, _AND, _EQUAL, _RETURN = 0x20, 0x54, 0x15, 0x06  # linux/bpf_common.h
_NUMBER, _MACHINE, _ARGUMENTS = 0, 4, (16, 24)  # struct seccomp_data, low words
_ALLOW, _ASK, _ERRNO = 0x7FFF0000, 0x7FC00000, 0x00050000
_NOT_X32 = 0xBFFFFFFF
"""An x32 call on x86_64 has the same number, and this bit."""

_PR_SET_PDEATHSIG = 1

_IO_URING = (425, 426, 427)
"""io_uring_setup, io_uring_enter, io_uring_register: the same on every machine."""

_CALLS = {
    0xC000003E: (157, 248, 249, 250, 321, 298, 323, 103),  # x86_64
    0x40000003: (172, 286, 287, 288, 357, 336, 374, 103),  # i386
    0xC00000B7: (167, 217, 218, 219, 280, 241, 282, 116),  # aarch64
    0x40000028: (172, 309, 310, 311, 386, 364, 388, 103),  # arm
    0xC00000F3: (167, 217, 218, 219, 280, 241, 282, 116),  # riscv64
}
"""AUDIT_ARCH (linux/audit.h) to the numbers of prctl, and of add_key, request_key, keyctl, bpf,
perf_event_open, userfaultfd, syslog."""

_EXIT_GROUP = {0xC000003E: 231, 0x40000003: 252, 0xC00000B7: 94, 0x40000028: 248, 0xC00000F3: 94}
"""AUDIT_ARCH to the number of exit_group."""

INSTRUCTION = 8
"""Bytes of one instruction."""


def exits() -> bytes:
    """Return a filter that lets exit_group(2) wait for an answer, and all else pass."""
    parts = []
    for machine, number in _EXIT_GROUP.items():
        body = [_op(_LOAD, _NUMBER), _op(_AND, _NOT_X32), _op(_EQUAL, number, 0, 1)]
        body += [_op(_RETURN, _ASK), _op(_RETURN, _ALLOW)]
        parts += [_op(_LOAD, _MACHINE), _op(_EQUAL, machine, 0, len(body)), *body]
    return b"".join([*parts, _op(_RETURN, _ALLOW)])


@functools.cache
def program() -> bytes:
    """Return the filter as bwrap's ``--seccomp`` reads it.

    Calls are refused as Docker does; a program that sets its parent-death signal is told that it
    did, and keeps SIGKILL. On machines that are not listed everything is allowed.
    """
    parts = [
        _calls(machine, prctl, *refused, *_IO_URING)
        for machine, (prctl, *refused) in _CALLS.items()
    ]
    return b"".join([*parts, _op(_RETURN, _ALLOW)])


def _calls(machine: int, prctl: int, *refused: int) -> bytes:
    """Return the part for one machine; jumps count instructions that are passed over."""
    body = [
        _op(_LOAD, _NUMBER),
        _op(_AND, _NOT_X32),
        *(_op(_EQUAL, call, len(refused) + 6 - at, 0) for at, call in enumerate(refused)),
        _op(_EQUAL, prctl, 0, 4),
        _op(_LOAD, _ARGUMENTS[0]),
        _op(_EQUAL, _PR_SET_PDEATHSIG, 0, 2),
        _op(_LOAD, _ARGUMENTS[1]),
        _op(_EQUAL, signal.SIGKILL, 0, 1),
        _op(_RETURN, _ALLOW),
        _op(_RETURN, _ERRNO),
        _op(_RETURN, _ERRNO | errno.EPERM),
    ]
    return b"".join([_op(_LOAD, _MACHINE), _op(_EQUAL, machine, 0, len(body)), *body])


def _op(code: int, value: int, true: int = 0, false: int = 0) -> bytes:
    """Return one instruction, a struct sock_filter (linux/filter.h)."""
    return struct.pack("=HBBI", code, true, false, value)
