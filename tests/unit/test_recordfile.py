"""Records in files: documents and JSON Lines, read as untrusted input, written whole."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from nox_variants import recordfile
from nox_variants.errors import HistoryError, UsageError
from nox_variants.record import SCHEMA
from ordinary import ordinary_user
from records import FULL, SKIPPED, values_of

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file of records."""
    return tmp_path / "records.json"


def test_a_document_round_trips(file: Path) -> None:
    """What --json writes names its run and gives the records back."""
    recordfile.write(file, recordfile.document([FULL, SKIPPED]), what="--json")

    values = json.loads(file.read_text("utf-8"))
    assert (values["schema"], values["run_id"]) == (SCHEMA, FULL.run_id)
    assert list(recordfile.read(file)) == [FULL, SKIPPED]
    assert file.stat().st_mode & 0o777 == 0o644


def test_a_document_of_several_runs() -> None:
    """It belongs to none of them."""
    text = "".join(recordfile.document([FULL, replace(FULL, run_id="other")]))

    assert json.loads(text)["run_id"] == ""


def test_lines_round_trip(file: Path) -> None:
    """A record is a line; empty lines are passed over."""
    text = "\n".join(recordfile.lines([FULL, SKIPPED]))
    file.write_text(f"\n{text}", encoding="utf-8")

    assert list(recordfile.read(file)) == [FULL, SKIPPED]


def test_documents_in_lines(file: Path) -> None:
    """A document in one line is one, too, also several of them."""
    documents = [json.dumps({"records": [values_of(each)]}) for each in (FULL, SKIPPED)]
    file.write_text("\n".join(documents), encoding="utf-8")

    assert list(recordfile.read(file)) == [FULL, SKIPPED]


def test_older_schema_is_migrated(file: Path) -> None:
    """Records of the first schema are read as today's."""
    values = values_of(FULL)
    del values["linkage"]["compiler"]
    file.write_text(json.dumps({**values, "schema": 1}), encoding="utf-8")

    assert list(recordfile.read(file)) == [FULL]


def test_older_documents_are_migrated(file: Path) -> None:
    """So are those in a document of ours, and one that another tool has formatted."""
    text = "".join(recordfile.document([FULL, SKIPPED])).replace('"schema":2', '"schema":1')
    for written in (text, json.dumps(json.loads(text), indent=4)):
        file.write_text(written, encoding="utf-8")

        assert list(recordfile.read(file)) == [FULL, SKIPPED]


@pytest.mark.parametrize(
    ("cut", "said"),
    [
        (-3, ": is no JSON: it ends before its records do"),
        (-400, ": records[1]: is no JSON: Unterminated string"),
        (40, ": is no JSON"),
    ],
)
def test_a_document_that_is_cut_off(file: Path, cut: int, said: str) -> None:
    """What is not whole is not taken for the whole."""
    file.write_text("".join(recordfile.document([FULL, SKIPPED]))[:cut], encoding="utf-8")

    with pytest.raises(HistoryError, match=re.escape(f"{file}{said}")):
        list(recordfile.read(file))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("no JSON", ": is no JSON: Expecting value"),
        ('{"a": 1}\nno JSON\n', ":1: is no record: run_id: Field required"),
        ("[" * 100_000, ": is no JSON: it is nested too deeply"),
        ("3", ":1: is no record"),
        ('{"records": [3]}', ":1: records[0]: is no record"),
        (
            f'{{"schema": {SCHEMA + 1}}}',
            f":1: the record is of a newer nox-variants (schema {SCHEMA + 1}; this one",
        ),
        (b"\xff\xfe\x00", ": is no JSON"),
    ],
)
def test_what_is_no_record(file: Path, text: str | bytes, said: str) -> None:
    """A file that is none says where and why, and shows nothing of its content."""
    file.write_bytes(text if isinstance(text, bytes) else text.encode())

    with pytest.raises(HistoryError, match=re.escape(f"{file}{said}")):
        list(recordfile.read(file))


def test_a_later_line_that_is_no_json(file: Path) -> None:
    """The line is named."""
    (line,) = recordfile.lines([FULL])
    file.write_text(f"{line}{line[:50]}\n", encoding="utf-8")

    with pytest.raises(HistoryError, match=r"records\.json:2: is no JSON"):
        list(recordfile.read(file))


def test_a_document_too_large(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bound keeps a hostile file out of memory."""
    monkeypatch.setattr(recordfile, "LARGEST_DOCUMENT", 1000)
    monkeypatch.setattr(recordfile, "LONGEST_LINE", 100)
    file.write_text(" " * 5000, encoding="utf-8")

    with pytest.raises(HistoryError, match="is larger than 1000 bytes"):
        list(recordfile.read(file))


def test_a_file_that_is_not_there(file: Path) -> None:
    """A missing file is one sentence."""
    with pytest.raises(HistoryError, match=r"cannot be read: No such file or directory\. Name"):
        list(recordfile.read(file))


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    """Nothing is left behind, and what asked for it is named."""
    with pytest.raises(UsageError, match=r"--json .*cannot be written.*Does its folder exist"):
        recordfile.write(tmp_path / "none" / "out.json", "x", what="--json")
    tmp_path.chmod(0o500)
    with ordinary_user(), pytest.raises(UsageError, match="Permission denied"):
        recordfile.write(tmp_path / "out.json", "x", what="--json")
    assert list(tmp_path.iterdir()) == []


def test_a_write_that_is_interrupted(tmp_path: Path) -> None:
    """The old file stays, and no draft."""
    file = tmp_path / "out.json"
    file.write_text("old", encoding="utf-8")

    def parts() -> object:
        yield "new"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        recordfile.write(file, parts(), what="--json")  # type: ignore[arg-type]
    assert [(each.name, each.read_text()) for each in tmp_path.iterdir()] == [("out.json", "old")]
