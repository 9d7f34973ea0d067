"""A file of any bytes is records, or a `HistoryError` that names the place."""

from __future__ import annotations

import tempfile
from pathlib import Path

from nox_variants import recordfile
from nox_variants.errors import HistoryError


def target(data: bytes) -> None:
    """Read a file of records; what is read can be written and read again."""
    with tempfile.TemporaryDirectory() as name:
        file = Path(name) / "records"
        file.write_bytes(data)
        records, refusal = [], str(file)
        try:
            records = list(recordfile.read(file))
        except HistoryError as error:
            refusal = error.message
        assert refusal.startswith(str(file))
        file.write_text("".join(recordfile.lines(records)), encoding="utf-8")
        assert [*map(repr, recordfile.read(file))] == [*map(repr, records)]
