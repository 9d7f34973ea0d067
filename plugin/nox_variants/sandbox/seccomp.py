"""What namespaces do not contain, as a seccomp program (Linux, seccomp_filter.rst).

Two things: the kernel's key rings, which are the calling user's own, and PR_SET_PDEATHSIG, with
which PID 1 could outlive a killed bwrap. All else is left to namespaces and capabilities, so that
a program sees here what it sees in a container.
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

_CALLS = {
    0xC000003E: (157, 248, 249, 250),  # x86_64
    0x40000003: (172, 286, 287, 288),  # i386
    0xC00000B7: (167, 217, 218, 219),  # aarch64
    0x40000028: (172, 309, 310, 311),  # arm
    0xC00000F3: (167, 217, 218, 219),  # riscv64
}
"""AUDIT_ARCH (linux/audit.h) to the numbers of prctl, add_key, request_key, keyctl."""

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

    Key rings are refused, as Docker does; a program that sets its parent-death signal is told
    that it did, and keeps SIGKILL. On machines that are not listed everything is allowed.
    """
    return b"".join(_calls(machine, *numbers) for machine, numbers in _CALLS.items()) + _op(
        _RETURN, _ALLOW
    )


def _calls(machine: int, prctl: int, *keys: int) -> bytes:
    """Return the part for one machine; jumps count instructions that are passed over."""
    body = [
        _op(_LOAD, _NUMBER),
        _op(_AND, _NOT_X32),
        *(_op(_EQUAL, key, 9 - at, 0) for at, key in enumerate(keys)),
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
