"""What a run shows: lines for logs, a bar on a terminal, the report of both."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from nox_variants import display
from nox_variants.errors import BuildFailed, ImageError, ImageUnavailable, StoreError
from nox_variants.graph import Failed
from nox_variants.model import LinkMode, Verdict
from nox_variants.plan import make_plans
from nox_variants.record import SmokeSeen
from nox_variants.results import Outcome, ServiceSeen
from nox_variants.runner import Step, Task
from records import FULL, SKIPPED
from samples import SETTINGS, variant

if TYPE_CHECKING:
    from nox_variants.errors import VariantsError
    from nox_variants.record import Record

(PLAN,) = make_plans(SETTINGS, [variant("scratch", LinkMode.STATIC)])
IMAGE = Task(Step.IMAGE, PLAN.build.image)
BUILD = Task(Step.BUILD, PLAN.build)
VARIANT = Task(Step.VARIANT, PLAN)


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        """Say yes."""
        return True


MEASURED = replace(
    FULL, smoke=FULL.smoke and replace(FULL.smoke, runs=3, startup_ms=1.234, peak_memory=704_000)
)


def test_plain_lines() -> None:
    """A log has a line per note and variant, with cause or verdict and size."""
    stream = io.StringIO()

    with display.display(stream, 2) as shown:
        shown.note("engine: fake")
        shown.started(IMAGE)
        shown.finished(IMAGE, object())
        shown.recorded(FULL)
        shown.recorded(MEASURED)
        shown.recorded(SKIPPED)

    assert stream.getvalue() == (
        "engine: fake\n"
        "failed    hello-c(scratch,static)  exit-code  767 kB*\n"
        "failed    hello-c(scratch,static)  exit-code  767 kB*  1.23 ms  704 kB\n"
        "skipped   hello-rust(scratch,musl)\n"
    )


@pytest.mark.parametrize(
    ("task", "error", "lines"),
    [
        (
            BUILD,
            BuildFailed("'cc' ended with exit code 1 in gcc", log="a.c:1: \x1b[31mno\x07\n\tb\n"),
            (
                "build failed: hello-c in gcc: 'cc' ended with exit code 1 in gcc",
                "  | a.c:1: \\x1b[31mno\\x07",
                "  | \tb",
            ),
        ),
        (IMAGE, ImageError("gcc: the mirror is down"), ("error: gcc: the mirror is down",)),
        (BUILD, ImageError("gcc: the mirror is down"), ()),
        (IMAGE, ImageUnavailable("gcc: no source"), ()),
        (BUILD, StoreError("disk full"), ("error: disk full",)),
    ],
)
def test_failures_are_said_once(task: Task, error: VariantsError, lines: tuple[str, ...]) -> None:
    """A build's output is shown, harmless; what follows from a failed image is not repeated."""
    assert display.failure_lines(task, Failed(error)) == lines


def test_success_says_nothing() -> None:
    """No news of a task that went well."""
    assert display.failure_lines(BUILD, object()) == ()


def test_terminal_shows_progress_and_cleans_up() -> None:
    """A terminal gets a bar with what runs now; failures stay, the bar goes."""
    stream = Terminal()

    with display.display(stream, 1) as shown:
        shown.note("engine: fake")
        shown.started(IMAGE)
        shown.finished(IMAGE, object())
        shown.started(BUILD)
        shown.finished(BUILD, Failed(BuildFailed("bad", log="oops")))
        shown.started(VARIANT)
        shown.recorded(replace(FULL, variant=PLAN.variant.id))

    text = stream.getvalue()
    assert "engine: fake" in text
    assert "build failed: hello-c in gcc: bad" in text
    assert "| oops" in text
    assert "1/1" in text


def test_report_has_table_notes_and_stand_ins() -> None:
    """The end of a run: every row, why something is bad or skipped, and the stand-ins."""
    stream = io.StringIO()

    display.print_report([FULL, SKIPPED], stream)

    lines = stream.getvalue().splitlines()
    assert lines[0].split() == [
        *("variant", "linkage", "binary", "content", "factor"),
        *("build", "smoke", "verdict", "cause", "outcome"),
    ]
    assert "failed: hello-c(scratch,static)" in lines
    assert "  expected to work" in lines
    assert "skipped: hello-rust(scratch,musl)" in lines
    assert "* made with stand-ins:" in lines
    assert "  gcc: apt packages gcc libc6-dev, not the image of that name" in lines


WORKS = replace(
    FULL,
    variant="hello-c(scratch,musl)",
    link=LinkMode.MUSL,
    verdict=Verdict.WORKS,
    cause=None,
    outcome=Outcome.PASSED,
    reason="",
    contradiction="predicted was works, seen was [b]x: a defect of nox-variants",
)


def report(*records: Record) -> str:
    """Return what is printed for records, without the table."""
    stream = io.StringIO()
    display.print_report(records, stream)
    return stream.getvalue().partition("\n\n")[2]


def test_report_says_what_to_do() -> None:
    """A defect comes first, whatever the outcome; then what works instead, and what to use."""
    assert report(FULL, WORKS).startswith(
        "DEFECT of nox-variants: hello-c(scratch,musl)\n"
        "  predicted was works, seen was [b]x: a defect of nox-variants\n"
        "\n"
        "failed: hello-c(scratch,static)\n"
        "  expected to work\n"
        "    hello-c(scratch,musl) works (767 kB*)\n"
        "\n"
        "hello-c: smallest that works: hello-c(scratch,musl), 767 kB*;"
        " smallest with a shell: none that works\n"
    )


def test_one_variant_that_fails_as_expected() -> None:
    """Who runs one variant is told why it fails; a whole matrix is not."""
    xfailed = replace(FULL, outcome=Outcome.XFAILED, reason="", explanation="needs [x]", images=())

    assert report(xfailed) == "xfailed: hello-c(scratch,static)\n  needs [x]\n\n"
    assert "xfailed" not in report(xfailed, SKIPPED)


def test_server_that_had_to_be_killed() -> None:
    """A server that ignores SIGTERM is told of, and of what to do; it is no failure."""
    smoke = SmokeSeen(
        exit_code=137,
        signal=9,
        stdout="",
        stderr="",
        truncated=False,
        timed_out=False,
        service=ServiceSeen(listened=True, status=200),
    )
    stopped = replace(smoke, service=ServiceSeen(listened=True, status=200, stopped=True))

    said = report(replace(WORKS, smoke=smoke, contradiction=""))

    assert said.startswith("note: hello-c(scratch,musl)\n  did not end on SIGTERM and was killed")
    assert "SIGTERM" not in report(replace(WORKS, smoke=stopped))


def test_a_defect_is_red(monkeypatch: pytest.MonkeyPatch) -> None:
    """A defect of ours is loud, and what was expected is quiet."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    stream = Terminal()

    display.print_report([replace(WORKS, outcome=Outcome.XFAILED)], stream)

    assert "\x1b[1;31mDEFECT of nox-variants: hello-c(scratch,musl)\x1b[0m\n" in stream.getvalue()
    assert "\x1b[2mxfailed: hello-c(scratch,musl)\x1b[0m\n" in stream.getvalue()


@pytest.mark.parametrize(("forced", "row"), [("1", "\x1b[1;31mfailed\x1b[0m\n"), ("", "failed\n")])
def test_a_pipe_has_colours_where_they_are_forced(
    forced: str, row: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CI shows the colours that FORCE_COLOR asks for; a colon in an id begins no emoji."""
    monkeypatch.setenv("FORCE_COLOR", forced)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    stream = io.StringIO()

    display.print_report([replace(FULL, variant="hello:bee:")], stream)

    assert "hello:bee:" in stream.getvalue()
    assert row in stream.getvalue()


def test_passed_rows_need_no_words() -> None:
    """A run in which all is well ends with the table."""
    stream = io.StringIO()

    display.print_report([replace(FULL, outcome=Outcome.PASSED, reason="", images=())], stream)

    assert "hello-c(scratch,static)\n" not in stream.getvalue()
    assert "stand-ins" not in stream.getvalue()


@pytest.mark.parametrize(
    ("width", "header"),
    [
        (
            200,
            "variant linkage binary content factor build smoke verdict cause outcome",
        ),
        (100, "variant linkage binary content factor verdict cause outcome"),
        (80, "variant content factor result"),
        (30, "variant content factor result"),
    ],
)
def test_table_fits_the_terminal(width: int, header: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A narrow terminal gets fewer columns; no cell is ever cut off."""
    monkeypatch.setenv("COLUMNS", str(width))
    stream = Terminal()

    display.print_report([FULL, SKIPPED], stream)

    plain = re.sub(r"\x1b\[[0-9;]*m", "", stream.getvalue())
    assert plain.splitlines()[0].split() == header.split()
    assert FULL.variant in plain
    assert "exit-code" in plain
    assert "\N{HORIZONTAL ELLIPSIS}" not in plain


def test_table_has_what_was_measured() -> None:
    """Where smoke runs are repeated, there are two columns more."""
    stream = io.StringIO()
    display.print_report([MEASURED, SKIPPED], stream)
    lines = stream.getvalue().splitlines()

    assert " ".join(lines[0].split()) == (
        "variant linkage binary content factor build smoke startup memory verdict cause outcome"
    )
    assert "4 ms 1.23 ms 704 kB fails" in " ".join(lines[1].split())
