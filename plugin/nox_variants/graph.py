"""Tasks that need each other, run by a bounded number of threads. Knows nothing of variants."""

from __future__ import annotations

import sys
from collections import defaultdict, deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from queue import SimpleQueue
from typing import TYPE_CHECKING, Generic, TypeVar

from nox_variants.errors import VariantsError

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping

Key = TypeVar("Key", bound="Hashable")

Results = dict[Key, object]

_TURN = 0.0005
"""Seconds that a thread computes while another one waits to."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The result of a task that raised one of our errors; what needs it still gets to run."""

    error: VariantsError


@dataclass(frozen=True, slots=True, kw_only=True)
class Node(Generic[Key]):
    """One task.

    Attributes:
        key: Its identity.
        needs: Keys of the tasks that must have finished, well or not.
        work: What to do, given the results of those it needs. A :class:`VariantsError` becomes
            its :class:`Failed` result; anything else is a bug, and ends the run.
    """

    key: Key
    needs: tuple[Key, ...]
    work: Callable[[Mapping[Key, object]], object]


def execute(
    nodes: Iterable[Node[Key]],
    *,
    jobs: int,
    started: Callable[[Key], None],
    settled: Callable[[Key, object], bool],
    finished: Callable[[Key, object], None],
    cancel: Callable[[], None],
) -> frozenset[Key]:
    """Run every node as soon as what it needs has finished.

    Args:
        nodes: The graph, in the order in which ready nodes should run.
        jobs: How many run at once.
        started: Called in this thread when a node begins.
        settled: Called in this thread with each result; false lets nothing new begin.
        finished: Called after that with the same, when the next nodes have begun.
        cancel: Called when the run has to end early (Ctrl-C, a bug): it ends what runs now.

    Returns:
        The keys of the nodes that never began.
    """
    schedule = _Schedule(nodes)
    inbox: SimpleQueue[tuple[Key, object]] = SimpleQueue()
    running = 0
    threads = ThreadPoolExecutor(max_workers=jobs, thread_name_prefix="nox-variants")
    with _turns(), threads as pool:

        def begin() -> int:
            taken = schedule.take(jobs - running)
            for node in taken:
                pool.submit(_work, node, schedule.results, inbox)
            for node in taken:
                started(node.key)
            return len(taken)

        try:
            running += begin()
            while running:
                key, result = inbox.get()
                running -= 1
                if isinstance(result, BaseException):
                    raise result  # noqa: TRY301  # a bug: it ends the run like Ctrl-C does
                schedule.done(key, result)
                if not settled(key, result):
                    schedule.close()
                running += begin()
                finished(key, result)
        except BaseException:
            cancel()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return schedule.remaining()


@contextmanager
def _turns() -> Iterator[None]:
    """Let threads take turns often: most of what they do is to wait for other processes.

    By default, who comes back from that waits up to 5 ms, as long as a whole smoke run takes.
    """
    before = sys.getswitchinterval()
    sys.setswitchinterval(_TURN)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def _work(
    node: Node[Key], results: Mapping[Key, object], inbox: SimpleQueue[tuple[Key, object]]
) -> None:
    result: object
    try:
        result = node.work(results)
    except VariantsError as error:
        result = Failed(error)
    except BaseException as error:  # noqa: BLE001  # handed to the thread that runs the graph
        result = error
    inbox.put((node.key, result))


class _Schedule(Generic[Key]):
    """Which nodes are ready: the bookkeeping of one run."""

    def __init__(self, nodes: Iterable[Node[Key]]) -> None:
        self._nodes = {node.key: node for node in nodes}
        self._missing = {key: set(node.needs) for key, node in self._nodes.items()}
        self._dependents: dict[Key, list[Key]] = defaultdict(list)
        for key, node in self._nodes.items():
            for need in node.needs:
                self._dependents[need].append(key)
        self.results: Results[Key] = {}
        self.ready = deque(key for key, missing in self._missing.items() if not missing)

    def take(self, most: int) -> list[Node[Key]]:
        """Hand out nodes that are ready, each once."""
        return [self._nodes.pop(self.ready.popleft()) for _ in range(min(most, len(self.ready)))]

    def done(self, key: Key, result: object) -> None:
        """Note a result; nodes that waited for it alone become ready."""
        self.results[key] = result
        for dependent in self._dependents.pop(key, ()):
            missing = self._missing[dependent]
            missing.discard(key)
            if not missing:
                self.ready.append(dependent)

    def close(self) -> None:
        """Let nothing new begin."""
        self.ready.clear()
        self._dependents.clear()

    def remaining(self) -> frozenset[Key]:
        """Return what was never handed out."""
        return frozenset(self._nodes)
