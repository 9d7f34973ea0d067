"""What a run shows while it goes: a live bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, TextIO

from nox_variants import advice, budgets
from nox_variants.errors import BuildFailed, ImageError, ImageUnavailable
from nox_variants.graph import Failed
from nox_variants.limits import Measure
from nox_variants.reports import table
from nox_variants.reports.escaping import clean
from nox_variants.results import Outcome
from nox_variants.runner import Step

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

    from rich.console import Console
    from rich.progress import Progress, TaskID

    from nox_variants.record import Record
    from nox_variants.reports.table import Line
    from nox_variants.runner import Task
    from nox_variants.standing import Changes

    _Printer = Callable[[Line], object]

DEFECT = "DEFECT of nox-variants"
"""The heading of what must not be: a prediction that was wrong."""

PLAIN_WIDTH = 200
"""Columns of a table that goes to a file or a pipe."""


def display(stream: TextIO, variants: int) -> Plain | Live:
    """Return the display that fits a stream.

    Args:
        stream: Where everything is printed.
        variants: How many records there will be.
    """
    return Live(stream, variants) if stream.isatty() else Plain(stream)


class Plain:
    """Lines for logs and pipes: one per image and per variant, and what went wrong."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lock = threading.Lock()

    def __enter__(self) -> Plain:  # noqa: PYI034  # the union of both displays is the type
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.flush()

    def note(self, text: str) -> None:
        """Print a line; callable from any thread."""
        with self._lock:
            print(text, file=self._stream, flush=True)

    def started(self, task: Task) -> None:
        """Say nothing: the end of a task is the news."""

    def finished(self, task: Task, result: object) -> None:
        """Print a build's output when it failed."""
        for line in failure_lines(task, result):
            self.note(line)

    def recorded(self, record: Record) -> None:
        """Print a variant's line."""
        content = table.content(record)
        found = (record.cause or record.verdict or "", content, *table.measured(record))
        words = (record.outcome, record.variant, *found)
        self.note("  ".join(filter(None, (f"{words[0]:<8}", *words[1:]))))


class Live:
    """A bar with what is being done right now; lines only for what went wrong."""

    def __init__(self, stream: TextIO, variants: int) -> None:
        from rich.console import Console  # noqa: PLC0415  # only a terminal needs it
        from rich.progress import (  # noqa: PLC0415
            BarColumn,
            MofNCompleteColumn,
            Progress,
            SpinnerColumn,
            TextColumn,
            TimeElapsedColumn,
        )

        self._console: Console = Console(file=stream, emoji=False)
        self._running: dict[Task, None] = {}
        self._progress: Progress = Progress(
            SpinnerColumn(),
            MofNCompleteColumn(),
            BarColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.description}", markup=False),
            console=self._console,
            transient=True,
        )
        self._bar: TaskID = self._progress.add_task("", total=variants)

    def __enter__(self) -> Live:  # noqa: PYI034
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def note(self, text: str) -> None:
        """Print a line above the bar; callable from any thread."""
        self._console.print(text, style="dim", markup=False, highlight=False)

    def started(self, task: Task) -> None:
        """Show the task beside the bar."""
        self._running[task] = None
        self._describe()

    def finished(self, task: Task, result: object) -> None:
        """Take the task from the bar; print a build's output when it failed."""
        self._running.pop(task, None)
        self._describe()
        for line in failure_lines(task, result):
            self._console.print(line, markup=False, highlight=False)

    def recorded(self, record: Record) -> None:
        """Move the bar."""
        for task in [task for task in self._running if task.name == record.variant]:
            del self._running[task]
        self._progress.advance(self._bar)
        self._describe()

    def _describe(self) -> None:
        verbs = {Step.IMAGE: "preparing", Step.BUILD: "building", Step.VARIANT: "running"}
        words = (f"{verbs[task.step]} {task.name}" for task in self._running)
        self._progress.update(self._bar, description=", ".join(words))


def failure_lines(task: Task, result: object) -> tuple[str, ...]:
    """Return a failed task in lines: a build's with its output, once for the stage."""
    if not isinstance(result, Failed):
        return ()
    error = result.error
    if isinstance(error, BuildFailed):
        lines = (clean(line, keep="\t") for line in error.log.splitlines())
        log = tuple(f"  | {line}" for line in lines)
        return (f"build failed: {task.name}: {error}", *log)
    # What is skipped, and what a failed image stops, the notes of the report say.
    quiet = isinstance(error, ImageUnavailable) or (
        isinstance(error, ImageError) and task.step is Step.BUILD
    )
    return () if quiet else (f"error: {error}",)


def _printer(stream: TextIO) -> tuple[_Printer, int]:
    """Return what prints a line, in colour where rich would, and how wide a table may be."""
    terminal = stream.isatty()
    if not terminal and not os.environ.get("FORCE_COLOR"):
        return lambda line: print(*(text for text, _ in line), sep="", file=stream), PLAIN_WIDTH
    from rich.console import Console  # noqa: PLC0415  # 30 ms, and only colours need it
    from rich.text import Text  # noqa: PLC0415

    width = None if terminal else PLAIN_WIDTH
    console = Console(file=stream, width=width, highlight=False, emoji=False)
    return lambda line: console.print(Text.assemble(*line), soft_wrap=True), console.width


def _table(records: Sequence[Record], room: int) -> list[Line]:
    """Return as many columns as there is room for; too long lines wrap, they are never cut off."""
    made: list[Line] = []
    for columns in table.layouts(records):
        made = table.lines(records, columns)
        if table.width(made) <= room:
            break
    return made


IGNORED = (
    "did not end on SIGTERM and was killed: PID 1 of a container has no default handlers. Handle"
    " SIGTERM, or start it with an init (docker run --init)."
)
"""What is said of servers that have to be killed; it is no failure."""


def print_report(records: Sequence[Record], stream: TextIO) -> None:
    """Print the table, what needs words, which image to use, and the stand-ins that were used."""
    show, room = _printer(stream)
    for line in _table(records, room):
        show(line)
    _say_what_needs_words(records, show)
    if len(records) == 1 and records[0].outcome is Outcome.XFAILED:
        heading = f"{records[0].outcome}: {records[0].variant}"
        _say(show, heading, records[0].explanation, style="dim", rest="dim")
    if advices := advice.advise(records):
        show(())
        for advised in advices:
            show(((str(advised), ""),))
    if names := table.stand_ins(records):
        _say(show, f"{table.STAND_IN} made with stand-ins:", *names)
    show(())


def _say_what_needs_words(records: Sequence[Record], show: _Printer) -> None:
    for name, sentence in budgets.warnings(records):
        _say(show, f"budget: {name}", sentence)
    for record in records:
        if record.contradiction:
            _say(show, f"{DEFECT}: {record.variant}", record.contradiction, style="bold red")
    remedies = advice.Remedies(records)
    for outcome, text, ids in table.notes(records):
        instead = (f"  {line}" for line in remedies.of(*ids))
        _say(show, f"{outcome}: {', '.join(ids)}", text, *instead)
    if names := table.deaf(records):
        _say(show, f"note: {', '.join(names)}", IGNORED)


def print_changes(changes: Changes, stream: TextIO) -> None:
    """Print what is not what it was, if there is anything."""
    show, _ = _printer(stream)
    for words, found in (("baseline", changes.baseline), ("last good run", changes.last)):
        if found:
            from nox_variants.reports import comparison  # noqa: PLC0415  # most runs are the same

            show(((f"since the {words}: {comparison.headline(found)}", "bold"),))
            for line in comparison.lines(found):
                show((("  ", ""), *line))
            show(())
    for name, timing in changes.slower:
        what = "build" if timing.measure is Measure.BUILD else "start-up"
        now, usual = table.duration(timing.value), table.duration(timing.median)
        usually = f"usually {usual}, the median of {timing.samples} runs"
        _say(show, f"slower: {name}", f"{what} took {now}, {usually}", rest="dim")


def _say(show: _Printer, heading: str, *lines: str, style: str = "bold", rest: str = "") -> None:
    """Print a heading and lines below it, each as long as it is."""
    for line in ((), ((heading, style),), *(((f"  {text}", rest),) for text in lines)):
        show(line)
