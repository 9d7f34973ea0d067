"""The graph of tasks: order, bounds, failures, the end."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from nox_variants.errors import VariantsError
from nox_variants.graph import Failed, Node, execute

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class Log:
    """Collects what the graph says."""

    def __init__(self, stop_at: str = "") -> None:
        self.started: list[str] = []
        self.results: dict[str, object] = {}
        self.cancelled = 0
        self._stop_at = stop_at

    def run(self, *nodes: Node[str], jobs: int = 2) -> frozenset[str]:
        return execute(
            nodes,
            jobs=jobs,
            started=self.started.append,
            settled=self.settled,
            finished=self.finished,
            cancel=self.cancel,
        )

    def settled(self, key: str, _: object) -> bool:
        return key != self._stop_at

    def finished(self, key: str, result: object) -> None:
        self.results[key] = result

    def cancel(self) -> None:
        self.cancelled += 1


def node(
    key: str, *needs: str, work: Callable[[Mapping[str, object]], object] | None = None
) -> Node[str]:
    return Node(key=key, needs=needs, work=work or (lambda _: key.upper()))


def test_results_reach_dependents() -> None:
    """A node is given the results of those it needs."""
    log = Log()

    never = log.run(node("c", "a", "b", work=lambda r: f"{r['a']}{r['b']}"), node("a"), node("b"))

    assert log.results == {"a": "A", "b": "B", "c": "AB"}
    assert never == frozenset()
    assert set(log.started) == {"a", "b", "c"}


def test_failure_is_a_result() -> None:
    """One of our errors becomes the result, and dependents still run."""
    error = VariantsError("broken")

    def fail(_: Mapping[str, object]) -> object:
        raise error

    log = Log()
    log.run(node("a", work=fail), node("b", "a", work=lambda r: r["a"]))

    assert log.results["b"] == Failed(error)
    assert log.cancelled == 0


def test_bug_ends_the_run() -> None:
    """Any other exception cancels what runs and comes out as it is."""

    def fail(_: Mapping[str, object]) -> object:
        raise ZeroDivisionError

    log = Log()
    with pytest.raises(ZeroDivisionError):
        log.run(node("a", work=fail), node("b", "a"))

    assert log.cancelled == 1
    assert "b" not in log.results


def test_interrupt_cancels() -> None:
    """Ctrl-C in the calling thread cancels what runs and is not swallowed."""
    log = Log()

    def interrupt(key: str, result: object) -> None:
        raise KeyboardInterrupt(key, result)

    with pytest.raises(KeyboardInterrupt):
        execute(
            [node("a")],
            jobs=1,
            started=log.started.append,
            settled=log.settled,
            finished=interrupt,
            cancel=log.cancel,
        )

    assert log.cancelled == 1


def test_stop_leaves_the_rest() -> None:
    """After `settled` says stop nothing begins, and the rest is returned."""
    log = Log(stop_at="a")

    never = log.run(node("a"), node("b"), node("c", "b"), jobs=1)

    assert list(log.results) == ["a"]
    assert never == {"b", "c"}


def test_next_begins_before_a_result_is_looked_at() -> None:
    """Who keeps results may take its time: nobody waits for it."""
    begun = threading.Event()
    log = Log()

    def finished(key: str, _: object) -> None:
        if key == "a":
            assert begun.wait(timeout=20)

    never = execute(
        [node("a"), node("b", "a", work=lambda _: begun.set())],
        jobs=1,
        started=log.started.append,
        settled=log.settled,
        finished=finished,
        cancel=log.cancel,
    )

    assert never == frozenset()
    assert log.cancelled == 0


def test_no_more_than_jobs_at_once() -> None:
    """The bound holds, and it is reached."""
    lock, both = threading.Lock(), threading.Barrier(2)
    running, most = 0, 0

    def work(_: Mapping[str, object]) -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        both.wait(timeout=20)
        with lock:
            running -= 1

    Log().run(*(node(str(number), work=work) for number in range(8)), jobs=2)

    assert most == 2
