"""The JSON Schemas that the package ships: generated from the models, checked for drift."""

from __future__ import annotations

import json


def documents() -> dict[str, str]:
    """Return every schema's text by file name."""
    from nox_variants import record  # noqa: PLC0415  # pydantic's models are built only when asked for
    from nox_variants.commands import schema  # noqa: PLC0415

    return {
        "variants.schema.json": schema.schema_text(),
        "record.schema.json": json.dumps(record.json_schema(), indent=2) + "\n",
    }
