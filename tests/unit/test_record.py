"""Records: there and back, and their schema."""

from __future__ import annotations

import json
from dataclasses import replace

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from nox_variants.record import (
    SCHEMA,
    BudgetCheck,
    Record,
    Seconds,
    SmokeSeen,
    from_json,
    from_text,
    json_schema,
    to_text,
)
from nox_variants.results import ServiceSeen
from records import FULL, SKIPPED, values_of

NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
SERVICES = st.none() | st.builds(ServiceSeen, seconds=NUMBERS)
CHECKS = st.builds(BudgetCheck, value=NUMBERS, limit=NUMBERS, reference=st.none() | NUMBERS)
RECORDS = st.builds(
    Record,
    schema=st.just(SCHEMA),
    seconds=st.builds(Seconds, build=NUMBERS, smoke=NUMBERS),
    smoke=st.none() | st.builds(SmokeSeen, startup_ms=NUMBERS, service=SERVICES),
    budget=st.lists(CHECKS, max_size=2).map(tuple),
)


@given(record=RECORDS)
def test_round_trip(record: Record) -> None:
    """A record read back from its JSON is equal to the one written, whatever is in it."""
    text = to_text(record)

    assert "\n" not in text
    assert from_text(text.encode()) == record


@given(record=RECORDS)
def test_as_pydantic_writes_it(record: Record) -> None:
    """What is written is what pydantic would write, from whose types the schema is made."""
    adapter = TypeAdapter(Record)

    assert values_of(record) == json.loads(adapter.dump_json(record))
    assert list(values_of(record)) == list(adapter.dump_python(record))
    left_out = {"images": {"__all__": {"packages"}}}
    without = json.loads(to_text(record, packages=False))
    assert without == json.loads(adapter.dump_json(record, exclude=left_out))


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_no_number_of_json(number: float) -> None:
    """A number that JSON has not is refused, not written as something else."""
    with pytest.raises(ValueError, match="JSON"):
        to_text(replace(FULL, seconds=replace(FULL.seconds, smoke=number)))


@pytest.mark.parametrize("record", [FULL, SKIPPED])
def test_schema_accepts_what_is_written(record: Record) -> None:
    """What a run writes is valid against the schema that is shipped."""
    jsonschema.validate(values_of(record), json_schema())


@pytest.mark.parametrize(
    "change",
    [{"outcome": "great"}, {"sizes": {"binary": "big"}}, {"surprise": 1}, {"run_id": None}],
)
def test_schema_and_reader_refuse_the_same(change: dict[str, object]) -> None:
    """A wrong value is refused by the schema and by the reader."""
    values = {**values_of(FULL), **change}

    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(values, json_schema())
    with pytest.raises(ValueError, match=next(iter(change))):
        from_json(values)


def test_schema_version_comes_first() -> None:
    """Who reads a record sees its version before anything else."""
    assert next(iter(values_of(FULL))) == "schema"
    assert values_of(replace(FULL, schema=7))["schema"] == 7
