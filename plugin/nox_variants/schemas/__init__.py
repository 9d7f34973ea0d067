"""The JSON Schemas that the package ships: generated from the models, checked for drift."""

from __future__ import annotations

import json
from typing import Any

DIALECT = "https://json-schema.org/draft/2020-12/schema"

FILES = {
    "variants": "variants.schema.json",
    "record": "record.schema.json",
    "lock": "lock.schema.json",
}
"""The shipped files, by what they describe."""


def documents() -> dict[str, str]:
    """Return every schema's text, generated anew, by file name."""
    from nox_variants import filemodel, lockfile, record  # noqa: PLC0415  # models are built when asked for

    return {
        FILES["variants"]: _text("variants.yaml", filemodel.File.model_json_schema()),
        FILES["record"]: _text("nox-variants record", record.json_schema()),
        FILES["lock"]: _text("variants.lock", lockfile.json_schema()),
    }


def _text(title: str, schema: dict[str, Any]) -> str:
    values = {"$schema": DIALECT, **schema, "title": title}
    return json.dumps(values, indent=2, ensure_ascii=False) + "\n"
