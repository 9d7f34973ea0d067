"""The closing table: rows, factors, units, notes."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from nox_variants.reports import table
from nox_variants.results import Outcome, Sizes
from records import FULL, SKIPPED

if TYPE_CHECKING:
    from nox_variants.record import Record

BASELINE = replace(
    FULL,
    variant="hello-c(gcc,dynamic)",
    run_image="gcc",
    sizes=Sizes(binary=16_000, content=1_534_000, above_base=16_200),
    outcome=Outcome.PASSED,
    reason="",
)


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1 kB"),
        (94_208, "94.2 kB"),
        (999_499, "999 kB"),
        (999_500, "1 MB"),
        (1_140_000_000, "1.14 GB"),
        (5 * 10**15, "5e+03 TB"),
    ],
)
def test_size(number: int, text: str) -> None:
    """Bytes are shown in decimal units with three digits."""
    assert table.size(number) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0042, "4 ms"), (0.0996, "0.10 s"), (1.234, "1.23 s"), (61.04, "61.0 s")],
)
def test_duration(seconds: float, text: str) -> None:
    """Times are shown with a unit that fits."""
    assert table.duration(seconds) == text


def test_factor_is_against_the_single_stage() -> None:
    """The factor says how many times smaller than the program's single-stage image."""
    baseline, small, other = table.rows([BASELINE, FULL, replace(FULL, program="else")])

    assert (baseline.factor, small.factor, other.factor) == ("1x", "2x", "")


def test_row_of_a_skipped_variant_is_empty() -> None:
    """What is not known is left empty, never made up."""
    (row,) = table.rows([SKIPPED])

    assert row == table.Row(
        variant="hello-rust(scratch,musl)",
        linkage="",
        binary="",
        content="",
        factor="",
        build="",
        smoke="",
        startup="",
        memory="",
        verdict="",
        cause="",
        outcome=Outcome.SKIPPED,
    )


def test_cached_build_shows_no_time() -> None:
    """A compile that did not happen is `cached`, not a time of another run."""
    assert table.rows([replace(FULL, build_cached=True)])[0].build == "cached"
    assert table.rows([FULL])[0].build == "0.20 s"


def test_summary_counts_every_outcome() -> None:
    """The summary line counts in a fixed order and leaves out what did not happen."""
    assert table.summary([FULL, SKIPPED, BASELINE]) == "3 variants: 1 passed, 1 failed, 1 skipped"
    assert table.summary([FULL]) == "1 variant: 1 failed"
    assert table.summary([]) == "0 variants"


def test_stand_ins_are_named_once() -> None:
    """Each stand-in image has one note, however many variants used it."""
    assert table.stand_ins([FULL, BASELINE, SKIPPED]) == (
        "gcc: apt packages gcc libc6-dev, not the image of that name",
    )


def test_notes_say_equal_sentences_once() -> None:
    """Variants with the same reason share one note; a bad outcome without one gets its cause."""
    other = replace(SKIPPED, variant="b")
    silent = replace(FULL, reason="")

    assert table.notes([SKIPPED, other, silent, BASELINE]) == (
        (Outcome.SKIPPED, "no source", (SKIPPED.variant, "b")),
        (Outcome.FAILED, "ended with exit code 3, not 0", (FULL.variant,)),
    )


def test_table_shows_programs_apart_and_text_as_it_is() -> None:
    """Square brackets in an id are no markup, and an empty line parts programs."""
    made = table.lines([BASELINE, replace(SKIPPED, variant="x[red]y")], ("variant", "outcome"))

    assert made == [
        (("variant               outcome", "bold"),),
        (("hello-c(gcc,dynamic)  ", ""), ("passed", "green")),
        (),
        (("x[red]y               ", ""), ("skipped", "yellow")),
    ]
    assert table.width(made) == 29


@pytest.mark.parametrize("columns", table.LAYOUTS)
def test_layouts(columns: tuple[str, ...]) -> None:
    """Each layout has its columns, and a row per record."""
    ((header, _),), *lines = table.lines([FULL, BASELINE], columns)

    assert header.split() == list(columns)
    assert len(lines) == 2


def measured(startup_ms: float | None, peak_memory: int | None, runs: int = 5) -> Record:
    """Return the record of a smoke run that was repeated."""
    assert FULL.smoke is not None
    smoke = replace(FULL.smoke, runs=runs, startup_ms=startup_ms, peak_memory=peak_memory)
    return replace(FULL, smoke=smoke)


@pytest.mark.parametrize(
    ("record", "texts"),
    [
        (measured(0.9312, 716_800), ("0.931 ms", "717 kB")),
        (measured(12.34, None), ("12.3 ms", "")),
        (measured(1234.5, 53_000_000), ("1.23 s", "53 MB")),
        (measured(None, None), ("", "")),
        (measured(0.9312, None, runs=1), ("", "")),
        (SKIPPED, ("", "")),
    ],
)
def test_what_was_measured(record: Record, texts: tuple[str, str]) -> None:
    """Start-up time and peak memory of repeated runs are shown, as far as they are known."""
    (row,) = table.rows([record])

    assert (row.startup, row.memory) == texts


def test_columns_of_what_was_measured() -> None:
    """There are columns for it when some variant has it; the narrowest table does without."""
    assert table.layouts([FULL, SKIPPED, measured(1.0, None, runs=1)]) == table.LAYOUTS
    assert table.layouts([FULL, measured(1.0, None)]) == (
        (*table.LAYOUTS[0][:7], "startup", "memory", "verdict", "cause", "outcome"),
        (*table.LAYOUTS[1][:5], "startup", "memory", "verdict", "cause", "outcome"),
        ("variant", "content", "factor", "startup", "memory", "result"),
        table.LAYOUTS[2],
    )
