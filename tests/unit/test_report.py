"""`nox-variants report` and `merge`: what is shown of recorded runs, in every format."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from nox_variants import lockfile, recordfile
from nox_variants.baseline import Baseline
from nox_variants.cli import main
from nox_variants.history import History
from nox_variants.model import Cause, LinkMode, Verdict
from nox_variants.results import Outcome, Sizes
from records import FULL
from samples import variant

if TYPE_CHECKING:
    from nox_variants.record import Record

FILE = """\
version: 1
programs:
  hello-c: {language: c, source: ., run: [scratch, alpine], link: [static]}
  hello-go: {language: go, source: ., run: scratch, link: [static]}
"""
OLD, NEW = "20261101T000000000000Z-00000000", "20261102T000000000000Z-00000000"


def record(run_id: str, **changes: object) -> Record:
    """Return a record of a run that went well."""
    blank = replace(
        FULL,
        run_id=run_id,
        started_at=f"{run_id[:4]}-{run_id[4:6]}-{run_id[6:8]}T00:00:00.000Z",
        verdict=Verdict.WORKS,
        cause=None,
        outcome=Outcome.PASSED,
        reason="",
    )
    return replace(blank, **changes)  # type: ignore[arg-type]


ALPINE = {"variant": "hello-c(alpine,static)", "run_image": "alpine"}
GO = {"variant": "hello-go(scratch,static)", "program": "hello-go", "language": "go"}
BIG = Sizes(binary=767_000, content=867_000, above_base=867_000)
BEFORE = [record(OLD), record(OLD, **ALPINE), record(OLD, **GO)]
AFTER = [
    record(NEW, **ALPINE, verdict=Verdict.FAILS, cause=Cause.TIMEOUT, outcome=Outcome.FAILED),
    record(NEW, sizes=BIG),
]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with two recorded runs."""
    (tmp_path / "variants.yaml").write_text(FILE, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    with History(tmp_path / ".variants" / "history.sqlite") as history:
        history.merge([*BEFORE, *AFTER])
    return tmp_path


def shown(capsys: pytest.CaptureFixture[str], *words: str, status: int = 0) -> str:
    """Return what the command prints: its report, or why there is none."""
    assert main(["report", *words]) == status
    captured = capsys.readouterr()
    return captured.err if status else captured.out


@pytest.mark.usefixtures("folder")
def test_the_last_run_as_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    """As a run shows it, in the order of the file, with what changed since the last good one."""
    text = shown(capsys)

    rows = [line.split()[0] for line in text.splitlines() if line.startswith("hello-c(")]
    assert rows[:2] == ["hello-c(scratch,static)", "hello-c(alpine,static)"]
    assert "since the last good run: 1 broke, 1 bigger (+100 kB)" in text
    assert f"2 variants: 1 passed, 1 failed, run {NEW}" in text


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    "words", [["--run", OLD], ["--run", "20261101"], ["--program", "hello-go"]]
)
def test_an_earlier_run(capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    """By its id, by how that begins, or as the last that had a program."""
    text = shown(capsys, *words)

    assert f"run {OLD}" in text
    assert ("hello-c(" in text) == (words[0] == "--run")


def test_a_run_of_the_future(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A clock that was wrong once does not hide the runs since; its run can still be named."""
    future = "21000101T000000000000Z-00000000"
    with History(folder / ".variants" / "history.sqlite") as history:
        history.merge([record(future)])

    assert f"run {NEW}" in shown(capsys)
    assert f"run {future}" in shown(capsys, "--run", "2100")


@pytest.mark.usefixtures("folder")
def test_formats_of_a_run(capsys: pytest.CaptureFixture[str]) -> None:
    """Each is what its readers expect."""
    table = shown(capsys, "--format", "markdown")
    suites = ET.fromstring(shown(capsys, "--format", "junit"))  # noqa: S314  # our own
    values = json.loads(shown(capsys, "--format", "json"))
    lines = shown(capsys, "--format", "jsonl").splitlines()
    page = shown(capsys, "--format", "html")

    assert "| hello-c(scratch,static) |" in table
    assert [each.get("name") for each in suites.iter("testcase")] == [
        "hello-c(scratch,static)",
        "hello-c(alpine,static)",
    ]
    assert [each["variant"] for each in values["records"]] == [
        json.loads(line)["variant"] for line in lines
    ]
    assert values["run_id"] == NEW
    assert page[:15].lower() == "<!doctype html>"


@pytest.mark.usefixtures("folder")
def test_formats_of_a_period(capsys: pytest.CaptureFixture[str]) -> None:
    """Trends for people, all records for machines; JUnit is of one run."""
    assert "hello-c(scratch,static)" in shown(capsys, "--since", "all")
    text = shown(capsys, "--since", "all", "--program", "hello-go", "--format", "markdown")
    assert text.count("| hello-") == 1
    values = json.loads(shown(capsys, "--since", "all", "--format", "json"))
    assert (values["run_id"], len(values["records"])) == ("", 5)
    assert len(shown(capsys, "--since", "all", "--format", "jsonl").splitlines()) == 5
    assert json.loads(shown(capsys, "--since", "1s", "--format", "json"))["records"] == []
    said = shown(capsys, "--since", "all", "--format", "junit", status=2)
    assert said == "nox-variants: --format junit is for one run. Leave out --since.\n"


def test_output_goes_to_a_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is printed, and the file is whole."""
    assert shown(capsys, "--format", "jsonl", "--since", "all", "--output", "all.jsonl") == ""

    found = list(recordfile.read(folder / "all.jsonl"))
    assert sorted(found, key=str) == sorted([*BEFORE, *AFTER], key=str)


def test_two_files_are_compared(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The table of a pull request: without history, and without a file of variants."""
    for name, records in (("base", BEFORE), ("head", AFTER)):
        recordfile.write(folder / f"{name}.json", recordfile.document(records), what="")
    (folder / "variants.yaml").unlink()

    text = shown(capsys, "--compare", "base.json", "head.json", "--format", "markdown")

    rows = [line.split(" | ")[:2] for line in text.splitlines() if line.startswith("| hello-")]
    assert rows == [
        ["| hello-c(alpine,static)", "broke"],
        ["| hello-go(scratch,static)", "vanished"],
        ["| hello-c(scratch,static)", "bigger"],
    ]
    values = json.loads(shown(capsys, "--compare", "base.json", "head.json", "--format", "json"))
    assert [each["change"] for each in values] == ["broke", "vanished", "bigger"]


@pytest.mark.usefixtures("folder")
def test_two_runs_are_compared(capsys: pytest.CaptureFixture[str]) -> None:
    """One is compared with the last; a program can be picked out."""
    assert "hello-c(alpine,static)" in shown(capsys, "--compare", OLD)
    assert "vanished" not in shown(capsys, "--compare", OLD, "--program", "hello-c")
    assert "Nothing changed." in shown(capsys, "--compare", OLD, OLD)


def test_the_baseline_is_compared(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Only variants of the run are: those that have a row."""
    rows = [variant("scratch", LinkMode.STATIC), variant("alpine", LinkMode.STATIC)]
    lockfile.update(folder, FULL.platform, lambda _: Baseline().updated(BEFORE, rows))

    text = shown(capsys, "--compare", "BASELINE")

    assert text.startswith("1 broke, 1 bigger")
    said = shown(capsys, "--compare", OLD, "BASELINE", status=2)
    assert "name it first" in said


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--run", "x"], f"no run's id begins with 'x'. The newest are {NEW}, {OLD}."),
        (["--program", "helo-c"], "there is no record of it. Did you mean 'hello-c'?"),
        (["--compare", "a", "b", "c"], "--compare takes one run or two"),
        (["--compare", OLD, "--format", "junit"], "the formats table, markdown, json"),
        (["--compare", "none.json"], "none.json: cannot be read: No such file or directory"),
        (["--format", "json", "--output", "none/out.json"], "--output none/out.json: cannot be"),
    ],
)
def test_mistakes(capsys: pytest.CaptureFixture[str], words: list[str], said: str) -> None:
    """Each says what there is instead."""
    assert said in shown(capsys, *words, status=2)


def test_no_record_yet(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A project that never ran says how to begin."""
    (folder / ".variants" / "history.sqlite").unlink()

    assert "there is no record yet. `nox -s matrix` makes some." in shown(capsys, status=2)


def test_since_is_an_age(capsys: pytest.CaptureFixture[str]) -> None:
    """Anything else is a mistake of usage."""
    with pytest.raises(SystemExit):
        main(["report", "--since", "yesterday"])
    assert "'yesterday' is no time. Write 30d, 12h or 2w." in capsys.readouterr().err


# --- merge ---------------------------------------------------------------------------------------


def test_merge_into_the_history(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Records of elsewhere are taken once; those that differ are said and left out."""
    other = record(NEW, **GO)
    recordfile.write(folder / "a.jsonl", recordfile.lines([other, *AFTER]), what="")
    changed = recordfile.lines([replace(other, reason="changed")])
    recordfile.write(folder / "b.jsonl", changed, what="")

    assert main(["merge", "a.jsonl", "b.jsonl"]) == 0

    assert capsys.readouterr().out.splitlines() == [
        "a.jsonl: 1 new records",
        "b.jsonl: 0 new records",
        "b.jsonl: 1 records are not what is here of their run: left out",
    ]
    with History(folder / ".variants" / "history.sqlite") as history:
        assert other in history.run(NEW)


def test_merge_into_a_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All records, each once, as one document."""
    recordfile.write(folder / "a.json", recordfile.document(BEFORE[:2]), what="")
    recordfile.write(folder / "b.json", recordfile.document(BEFORE[1:]), what="")

    assert main(["merge", "a.json", "b.json", "--json", "out.json"]) == 0

    assert capsys.readouterr().out == "out.json: 3 records\n"
    assert list(recordfile.read(Path("out.json"))) == BEFORE
    assert json.loads(Path("out.json").read_text("utf-8"))["run_id"] == OLD


@pytest.mark.usefixtures("folder")
def test_merge_of_a_newer_record(capsys: pytest.CaptureFixture[str]) -> None:
    """It is refused, with what to do."""
    Path("new.jsonl").write_text('{"schema": 99}\n', encoding="utf-8")

    assert main(["merge", "new.jsonl"]) == 2
    assert "new.jsonl:1: the record is of a newer nox-variants" in capsys.readouterr().err
