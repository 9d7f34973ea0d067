"""Work that is left when the run ends."""

from __future__ import annotations

import threading

import pytest

from nox_variants.errors import ImageError
from nox_variants.images.leaving import until_cancelled


def test_what_it_gives() -> None:
    """What work gives, or raises, is the caller's."""
    cancelled = threading.Event()

    def fail() -> None:
        raise KeyError("x")

    assert until_cancelled(cancelled, lambda: 1) == 1
    with pytest.raises(KeyError):
        until_cancelled(cancelled, fail)


def test_left() -> None:
    """Work that never ends is left when the run does, and keeps no process alive."""
    cancelled, never, began = threading.Event(), threading.Event(), threading.Event()
    threads: list[threading.Thread] = []

    def block() -> None:
        threads.append(threading.current_thread())
        began.set()
        never.wait()

    def cancel() -> None:
        began.wait()
        cancelled.set()

    threading.Thread(target=cancel).start()
    with pytest.raises(ImageError, match=r"^cancelled$"):
        until_cancelled(cancelled, block)

    assert threads[0].daemon
    assert threads[0].is_alive()
    never.set()
    threads[0].join()


def test_its_own_end() -> None:
    """Work that notices the end of the run by itself ends in its own way."""
    cancelled = threading.Event()

    def notice() -> str:
        cancelled.wait()
        return "tidied up"

    timer = threading.Timer(0.01, cancelled.set)
    timer.start()
    assert until_cancelled(cancelled, notice) == "tidied up"
