"""The seccomp program, run by an interpreter of the tests' own."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nox_variants.sandbox import seccomp

ALLOWED, REFUSED, PRETENDED, ASKED = 0x7FFF0000, 0x00050001, 0x00050000, 0x7FC00000

X86_64, I386, AARCH64, ARM, RISCV64, S390X = (
    0xC000003E,
    0x40000003,
    0xC00000B7,
    0x40000028,
    0xC00000F3,
    0x80000016,
)
X32 = 0x40000000

KEYS = ("add_key", "request_key", "keyctl")
DEEP = ("bpf", "perf_event_open", "userfaultfd", "syslog")
IO_URING = ("io_uring_setup", "io_uring_enter", "io_uring_register")
REFUSALS = (*KEYS, *DEEP, *IO_URING)


def numbers(prctl: int, *others: int, **allowed: int) -> dict[str, int]:
    """Return the numbers of a machine's calls; those of io_uring are the same everywhere."""
    refused = dict(zip(REFUSALS, (*others, 425, 426, 427), strict=True))
    return {"prctl": prctl, **refused, **allowed}


NUMBERS = {
    X86_64: numbers(157, 248, 249, 250, 321, 298, 323, 103, fork=57),
    I386: numbers(172, 286, 287, 288, 357, 336, 374, 103, fork=2),
    AARCH64: numbers(167, 217, 218, 219, 280, 241, 282, 116, clone=220),
    ARM: numbers(172, 309, 310, 311, 386, 364, 388, 103, fork=2),
    RISCV64: numbers(167, 217, 218, 219, 280, 241, 282, 116, clone=220),
}
"""From the kernel's own headers."""

SET_PDEATHSIG, GET_PDEATHSIG, KILL, TERM = 1, 2, 9, 15


EXITS = {
    X86_64: (60, 231),
    I386: (1, 252),
    AARCH64: (93, 94),
    ARM: (1, 248),
    RISCV64: (93, 94),
}
"""exit and exit_group."""


def run(machine: int, number: int, *arguments: int, program: bytes | None = None) -> int:
    """Return what a program says to a call (linux/seccomp.h, struct seccomp_data)."""
    filled = [*arguments, *(0 for _ in range(6 - len(arguments)))]
    data = struct.pack("=IIQ6Q", number, machine, 0, *filled)
    code = list(struct.iter_unpack("=HBBI", program or seccomp.program()))
    at = value = 0
    while True:
        kind, true, false, operand = code[at]
        at += 1
        match kind:
            case 0x20:
                (value,) = struct.unpack_from("=I", data, operand)
            case 0x54:
                value &= operand
            case 0x15:
                at += true if value == operand else false
            case 0x06:
                return int(operand)
            case _:
                pytest.fail(f"an instruction that the program has no use for: {kind:#x}")


@pytest.mark.parametrize("machine", NUMBERS)
@pytest.mark.parametrize("call", REFUSALS)
def test_refused(machine: int, call: str) -> None:
    """Key rings, and calls that lead deep into the kernel, are refused on every machine."""
    assert run(machine, NUMBERS[machine][call], 1, 2) == REFUSED


@pytest.mark.parametrize("machine", NUMBERS)
def test_parent_death_signal(machine: int) -> None:
    """Only SIGKILL may be set; anything else is said to be done, and is not."""
    number = NUMBERS[machine]["prctl"]

    assert run(machine, number, SET_PDEATHSIG, KILL) == ALLOWED
    assert run(machine, number, SET_PDEATHSIG, 0) == PRETENDED
    assert run(machine, number, SET_PDEATHSIG, TERM) == PRETENDED
    assert run(machine, number, GET_PDEATHSIG, 0) == ALLOWED


def test_upper_halves_do_not_hide() -> None:
    """The kernel takes an int: bits above it make no other call."""
    high = 1 << 32

    assert run(X86_64, 157, high | SET_PDEATHSIG, 0) == PRETENDED


def test_x32() -> None:
    """The x32 form of a call is the same call."""
    assert run(X86_64, X32 | 250) == REFUSED
    assert run(X86_64, X32 | 157, SET_PDEATHSIG, 0) == PRETENDED


def test_unknown_machine() -> None:
    """On a machine that is not listed everything is allowed."""
    assert {run(S390X, number, 1) for number in (157, 172, 250, 280)} == {ALLOWED}


@given(
    st.sampled_from([*NUMBERS, S390X]),
    st.integers(0, 600) | st.integers(0, 2**32 - 1),
    st.integers(0, 3),
    st.integers(0, 64),
)
def test_all_else_is_allowed(machine: int, number: int, first: int, second: int) -> None:
    """Every call gets an answer, and no other call than those is stopped."""
    names = {value: name for name, value in NUMBERS.get(machine, {}).items()}
    name = names.get(number & ~X32, "")
    stopped = name == "prctl" and first == SET_PDEATHSIG and second != KILL
    expected = REFUSED if name in REFUSALS else PRETENDED if stopped else ALLOWED

    assert run(machine, number, first, second) == expected


@pytest.mark.parametrize("machine", EXITS)
def test_exits(machine: int) -> None:
    """The end of a process is asked about, that of a thread is not, nor is anything else."""
    thread, process = EXITS[machine]

    assert run(machine, process, program=seccomp.exits()) == ASKED
    assert run(machine, thread, program=seccomp.exits()) == ALLOWED
    assert run(S390X, process, program=seccomp.exits()) == ALLOWED


def test_exits_of_x32() -> None:
    """An x32 program's exit is one like any other."""
    assert run(X86_64, X32 | EXITS[X86_64][1], program=seccomp.exits()) == ASKED
