"""Records: there and back, and their schema."""

from __future__ import annotations

import json
from dataclasses import replace

import jsonschema
import pytest

from nox_variants.record import from_json, json_schema, to_json
from records import FULL, SKIPPED


@pytest.mark.parametrize("record", [FULL, SKIPPED])
def test_round_trip(record: object) -> None:
    """A record read back from its JSON is equal to the one written."""
    text = json.dumps(to_json(record))  # type: ignore[arg-type]

    assert from_json(json.loads(text)) == record


@pytest.mark.parametrize("record", [FULL, SKIPPED])
def test_schema_accepts_what_is_written(record: object) -> None:
    """What a run writes is valid against the schema that is shipped."""
    jsonschema.validate(json.loads(json.dumps(to_json(record))), json_schema())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "change",
    [{"outcome": "great"}, {"sizes": {"binary": "big"}}, {"surprise": 1}, {"run_id": None}],
)
def test_schema_and_reader_refuse_the_same(change: dict[str, object]) -> None:
    """A wrong value is refused by the schema and by the reader."""
    values = {**json.loads(json.dumps(to_json(FULL))), **change}

    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(values, json_schema())
    with pytest.raises(ValueError, match=next(iter(change))):
        from_json(values)


def test_schema_version_comes_first() -> None:
    """Who reads a record sees its version before anything else."""
    assert next(iter(to_json(FULL))) == "schema"
    assert to_json(replace(FULL, schema=7))["schema"] == 7
