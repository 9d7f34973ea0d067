"""Start-up time and peak memory of programs in the sandbox: what is seen of them, and at what cost.

Programs are measured as those of a repeated smoke run.
"""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING, Any

import pytest

from nox_variants.errors import SandboxError
from nox_variants.model import Smoke
from sandboxed import nothing_left, open_files, program_runs, token, wait_until

if TYPE_CHECKING:
    from sandboxed import User

pytestmark = pytest.mark.sandbox

MB = 1 << 20
REPEAT: dict[str, Any] = {"repeat": 2, "timeout": 20}


@pytest.mark.parametrize(
    ("argv", "least", "most"),
    [
        pytest.param(("/musl",), 1, MB, id="a millisecond, and no bwrap"),
        pytest.param(("take", "50"), 50 * MB, 80 * MB, id="one process"),
        pytest.param(("share", "50"), 50 * MB, 80 * MB, id="children with the same memory"),
    ],
)
def test_peak_memory(user: User, argv: tuple[str, ...], least: int, most: int) -> None:
    """What a program had at most is known when it is over; nothing else is in it."""
    seen = user.run(*argv, **REPEAT)

    assert seen.exit_code == 0
    assert seen.peak_memory is not None
    assert least <= seen.peak_memory <= most


@pytest.mark.parametrize(
    ("what", "amount", "least", "most"),
    [("hog", 50, 50 * MB, 80 * MB), ("hogs", 20, 160 * MB, 240 * MB)],
)
def test_peak_memory_of_what_is_ended(
    user: User, what: str, amount: int, least: int, most: int
) -> None:
    """What a program had until its time was over, and children had together, is known as well."""
    seen = user.run(what, str(amount), repeat=2, timeout=1)

    assert (seen.timed_out, seen.startup) == (True, None)
    assert seen.peak_memory is not None
    assert least <= seen.peak_memory <= most


@pytest.mark.parametrize(
    ("argv", "smoke"),
    [
        pytest.param(("take", "1"), {}, id="not asked for"),
        pytest.param(("abort",), REPEAT, id="a signal"),
        pytest.param(("bare",), REPEAT, id="exit without exit_group"),
        pytest.param(("/nothing",), REPEAT, id="not started"),
    ],
)
def test_unknown_peak(user: User, argv: tuple[str, ...], smoke: dict[str, Any]) -> None:
    """Nothing is said of a program that was not asked when it exited."""
    assert user.run(*argv, **smoke).peak_memory is None


def test_other_machines(me: User, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where exits cannot be watched, a program runs as ever."""
    monkeypatch.setattr(platform, "machine", lambda: "pdp11")
    seen = me.run("hello", **REPEAT)

    assert (seen.exit_code, seen.peak_memory) == (0, None)


@pytest.mark.parametrize("repeat", [1, 2])
def test_startup(user: User, repeat: int) -> None:
    """The start-up time of a program is that until it exits."""
    seen = user.run("nap", "200", repeat=repeat)

    assert seen.startup is not None
    assert 0.2 <= seen.startup <= seen.seconds


def test_what_is_told_does_not_change(user: User) -> None:
    """A program that is measured is seen as any other: its output, its exit code, its signal."""
    seen = user.run("exit", "42", **REPEAT)
    assert (seen.exit_code, seen.signal) == (42, None)
    assert user.run("crash", "0", **REPEAT).signal == 11
    assert user.run("cat", stdin="text", **REPEAT).stdout == "text"
    assert user.run("/nothing", **REPEAT) == user.run("/nothing")


def test_a_fork_bomb(user: User) -> None:
    """Limits hold for thousands that want to exit."""
    word = token()
    seen = user.run("bomb", "0", word, processes=50, **REPEAT)

    assert seen.process_limit
    assert nothing_left(word)


def test_nothing_is_left_open(me: User) -> None:
    """A sandbox that cannot be made, and a bwrap that cannot be executed, leave nothing behind."""
    me.run("hello", **REPEAT)
    before = open_files()
    for changes in ({"lower": (me.root, me.root / "nowhere")}, {"env": (("A", "x" * (1 << 20)),)}):
        with pytest.raises(SandboxError):
            me.observe(me.program("hello", **changes), Smoke(**REPEAT))
    me.run("hello", **REPEAT)

    assert open_files() == before


def test_cancelled(user: User) -> None:
    """A cancelled run ends the program."""
    word = token()
    with pytest.raises(SandboxError, match=r"^cancelled$"):
        user.run("outlive", word, repeat=2, timeout=600, cancel_on=word)

    assert nothing_left(word)


def test_killed_parent(user: User) -> None:
    """When the process that runs a program is killed, nothing of the program is left."""
    word = token()
    started = user.start(user.program("stubborn", word), Smoke(repeat=2, timeout=600))
    wait_until(lambda: program_runs(word), "the program runs")
    with started.process as process:
        process.kill()

    wait_until(lambda: nothing_left(word), "the program ends")
