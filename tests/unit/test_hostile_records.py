"""Records of elsewhere that have the right form, and values that nobody can keep."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from nox_variants import recordfile
from nox_variants.errors import HistoryError
from nox_variants.history import History
from nox_variants.reports.packed import scaled
from records import FULL, values_of

if TYPE_CHECKING:
    from pathlib import Path

HALVES = (
    json.dumps({**values_of(FULL), "explanation": "half a character: \ud800"}),
    json.dumps({**values_of(FULL), "tools": {"half \udfff": "1"}}).replace("\\ud", "\\uD"),
)
WHOLE = json.dumps({**values_of(FULL), "explanation": "a whole one: \U0001f600"})
FORMS = {
    "a line": "{}",
    "a document in one line": '{{"records": [{}]}}',
    "a document of lines": '{{"schema": 2, "records": [\n{}\n]}}\n',
}


@pytest.mark.parametrize("half", HALVES, ids=["value", "key"])
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_half_a_character(form: str, half: str, tmp_path: Path) -> None:
    """What no file and no database can take is refused where it is read, with its place."""
    file = tmp_path / "records"
    file.write_text(form.format(half), encoding="ascii")
    with pytest.raises(HistoryError, match=r"half a character") as caught:
        list(recordfile.read(file))
    assert caught.value.message.startswith(str(file))

    file.write_text(form.format(WHOLE), encoding="ascii")
    (record,) = recordfile.read(file)
    assert record.explanation.endswith("\U0001f600")


@pytest.mark.parametrize("number", ["1e999", "-1e999", "NaN", "Infinity"])
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_numbers_that_json_does_not_have(form: str, number: str, tmp_path: Path) -> None:
    """A time without an end would be kept as null, and some of them could not be read again."""
    file = tmp_path / "records"
    text = json.dumps({**values_of(FULL), "seconds": {"build": 12345}}).replace("12345", number)
    file.write_text(form.format(text), encoding="ascii")

    with pytest.raises(HistoryError, match=r"seconds\.build: Input should be a finite number"):
        list(recordfile.read(file))


@pytest.mark.parametrize("number", [1 << 63, -(1 << 63) - 1, 10**30])
def test_numbers_that_no_database_has(number: int, tmp_path: Path) -> None:
    """A size beyond 64 bits is an error of the record, and nothing of its run is kept."""
    assert FULL.sizes is not None
    record = replace(FULL, sizes=replace(FULL.sizes, binary=number))
    with History(tmp_path / "history.sqlite") as history:
        with pytest.raises(HistoryError, match="number is too large"):
            history.merge([replace(FULL, variant="other"), record])
        with pytest.raises(HistoryError, match="number is too large"):
            history.add(record)
        assert list(history.records()) == []


@pytest.mark.parametrize("seconds", [1e308, -1e308, float("inf"), float("nan")])
def test_times_that_no_chart_has(seconds: float) -> None:
    """A time that is no number in the chart's unit is none."""
    assert scaled(seconds, 1000) is None
