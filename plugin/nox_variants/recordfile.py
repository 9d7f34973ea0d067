"""Records in files: one JSON document of a run, or JSON Lines of many. Read as untrusted input."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from nox_variants import jsontext
from nox_variants.errors import HistoryError, UsageError
from nox_variants.record import SCHEMA, Record, from_json, from_text, to_text
from nox_variants.sharding import Part
from nox_variants.wholefile import whole_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

JSON_LINES = ".jsonl"
"""The suffix of files with a record per line."""

LONGEST_LINE = 4 * 1024 * 1024
"""Bytes of one record, which keeps 12 kB of a program's output and the packages of two images."""

LARGEST_DOCUMENT = 512 * 1024 * 1024
"""Bytes of a document, which is read as a whole."""


_HEAD_END = b', "records": [\n'
"""Ends the first line of a document of ours, which has a record in each line that follows."""


def read(file: Path, part: Callable[[Part], object] = lambda _: None) -> Iterator[Record]:
    """Yield the records of a file: JSON Lines, or what ``--json`` writes.

    Args:
        file: The file.
        part: Told which shard of a matrix the file says it is.

    Raises:
        HistoryError: It cannot be read, a record is not of the form of ``record.schema.json``, or
            is of a newer one.
    """
    try:
        with file.open("rb") as opened:
            for place, values in _values(file, opened):
                if isinstance(values, _Shard):
                    part(_part(place, values.value))
                else:
                    yield _record(place, values)
    except OSError as error:
        raise HistoryError(
            f"{file}: cannot be read: {error.strerror}", hint="Name a file that --json wrote."
        ) from error


def _values(file: Path, opened: Any) -> Iterator[tuple[str, Any]]:
    """Yield what should be records, each with its place.

    A line that is a whole JSON value is a record, or a document in one line; a first line that is
    none begins a document in several.
    """
    for number, line in enumerate(iter(lambda: opened.readline(LONGEST_LINE + 1), b""), 1):
        place = f"{file}:{number}"
        if number == 1 and line.endswith(_HEAD_END):
            yield from _lines_of_document(file, line, opened)
            return
        if len(line) > LONGEST_LINE:
            yield from _document(file, line + opened.read(LARGEST_DOCUMENT))
            return
        if not line.strip():
            continue
        try:
            values = jsontext.parsed(line)
        except ValueError as error:
            if number > 1:
                raise _damaged(place, error) from error
            yield from _document(file, line + opened.read(LARGEST_DOCUMENT))
            return
        yield from _entries(place, values)


def _lines_of_document(file: Path, head: bytes, opened: Any) -> Iterator[tuple[str, Any]]:
    """Yield the records of a document as :func:`document` writes it, as texts."""
    try:
        yield from _entries(f"{file}", jsontext.parsed(head + b"]}"))
    except ValueError as error:
        raise _damaged(f"{file}:1", error) from error
    for number, line in enumerate(iter(lambda: opened.readline(LONGEST_LINE + 1), b"")):
        if line.startswith(b"]"):
            return
        yield f"{file}: records[{number}]", line.removeprefix(b",")
    raise _damaged(f"{file}", ValueError("it ends before its records do"))


def _document(file: Path, text: bytes) -> Iterator[tuple[str, Any]]:
    if len(text) > LARGEST_DOCUMENT:
        raise HistoryError(f"{file}: is larger than {LARGEST_DOCUMENT} bytes")
    try:
        values = jsontext.parsed(text)
    except ValueError as error:
        raise _damaged(f"{file}", error) from error
    yield from _entries(f"{file}", values)


def _entries(place: str, values: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(values, dict) and isinstance(values.get("records"), list):
        if "shard" in values:
            yield f"{place}: shard", _Shard(values["shard"])
        for number, each in enumerate(values["records"]):
            yield f"{place}: records[{number}]", each
    else:
        yield place, values


@dataclass(frozen=True, slots=True)
class _Shard:
    """What a document says of the shard that it is."""

    value: Any


def _part(place: str, values: Any) -> Part:
    fields = {"index": int, "count": int, "variants": int, "matrix": str}
    sound = isinstance(values, dict) and set(values) == set(fields)
    if not sound or any(type(values[name]) is not kind for name, kind in fields.items()):
        raise HistoryError(
            f"{place}: is not what --shard writes", hint="Was it made by another version?"
        )
    return Part(**values)


def _damaged(place: str, error: Exception) -> HistoryError:
    return HistoryError(
        f"{place}: is no JSON: {error}",
        hint="Expected is what --json or `report --format jsonl` writes.",
    )


def _record(place: str, values: Any) -> Record:
    try:
        record = from_text(values) if isinstance(values, bytes) else from_json(values)
        if not isinstance(values, bytes):
            _check_text(values)
        elif b"\\ud" in values.lower():
            _check_text(json.loads(values))
    except (json.JSONDecodeError, RecursionError) as error:
        raise _damaged(place, error) from error
    except ValueError as error:
        raise HistoryError(f"{place}: {_first(error)}") from error
    return record


def _check_text(values: Any) -> None:
    """Refuse half a character, a lone surrogate: Python reads it, and nobody can write it."""
    try:
        json.dumps(values, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise ValueError("is no record: it has half a character, a lone surrogate") from None


def _first(error: ValueError) -> str:
    """Return the first of pydantic's findings in one line, or the error's own words."""
    found: Callable[..., list[dict[str, Any]]] | None = getattr(error, "errors", None)
    if found is None:
        return str(error)
    detail = found(include_url=False, include_input=False, include_context=False)[0]
    where = ".".join(map(str, detail["loc"]))
    return f"is no record: {where}: {detail['msg']}" if where else "is no record"


def lines(records: Iterable[Record]) -> Iterator[str]:
    """Yield records as JSON Lines, each with its end of line."""
    for record in records:
        yield to_text(record) + "\n"


def document(records: Sequence[Record], part: Part | None = None) -> Iterator[str]:
    """Yield the records of one run as a JSON document, a line each; those of several have no run.

    Args:
        records: The records.
        part: Which shard of a matrix they are; None for no shard.
    """
    runs = {record.run_id for record in records}
    run_id = runs.pop() if len(runs) == 1 else ""
    shard = {"shard": asdict(part)} if part else {}
    head = json.dumps({"schema": SCHEMA, "run_id": run_id, **shard}, ensure_ascii=False)
    yield head.removesuffix("}") + _HEAD_END.decode()
    for number, record in enumerate(records):
        yield ("," if number else "") + to_text(record) + "\n"
    yield "]}\n"


def write(file: Path, text: str | Iterable[str], *, what: str) -> None:
    """Write a file: the whole of it or nothing.

    Args:
        file: The file.
        text: What it says; in parts, if it is much.
        what: What the user asked for it with: ``--json``.

    Raises:
        UsageError: It cannot be written.
    """
    try:
        with whole_file(file) as draft:
            for part in [text] if isinstance(text, str) else text:
                draft.write(part.encode())
    except OSError as error:
        raise UsageError(
            f"{what} {file}: cannot be written: {error.strerror}", hint="Does its folder exist?"
        ) from error
