"""Records in SQLite: written as they come, read in order, in numbers, merged, kept when damaged."""

from __future__ import annotations

import json
import sqlite3
import threading
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nox_variants import recordfile
from nox_variants.errors import HistoryError
from nox_variants.history import History
from nox_variants.model import SourceKind, Verdict
from nox_variants.results import Outcome
from nox_variants.trend import point
from records import FULL, SKIPPED, values_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from nox_variants.record import Record

OLD_TABLES = """
CREATE TABLE records (
    run_id TEXT NOT NULL,
    variant TEXT NOT NULL,
    program TEXT NOT NULL,
    started_at TEXT NOT NULL,
    outcome TEXT NOT NULL,
    record TEXT NOT NULL,
    PRIMARY KEY (run_id, variant)
) WITHOUT ROWID;
CREATE INDEX records_by_variant ON records (variant, started_at);
CREATE TABLE images (digest TEXT PRIMARY KEY, packages TEXT NOT NULL) WITHOUT ROWID;
PRAGMA user_version = 1;
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where the tests' history is."""
    return tmp_path / "history.sqlite"


@pytest.fixture
def history(file: Path) -> Iterator[History]:
    """An empty history."""
    with History(file) as opened:
        yield opened


def run_at(day: int, **changes: object) -> Record:
    """Return a record of a day's run."""
    blank = replace(
        FULL,
        run_id=f"202611{day:02}T000000000000Z-00000000",
        started_at=f"2026-11-{day:02}T00:00:00.000Z",
    )
    return replace(blank, **changes)  # type: ignore[arg-type]


def works(day: int, **changes: object) -> Record:
    """Return a record of a day on which all was well."""
    good = {"verdict": Verdict.WORKS, "cause": None, "outcome": Outcome.PASSED, "reason": ""}
    return run_at(day, **{**good, **changes})


def test_records_of_a_run(history: History) -> None:
    """What was added is read back: one run at a time, as its variants began."""
    other = replace(FULL, run_id="20261124T000000000000Z-00000000")
    later = replace(SKIPPED, started_at="2026-11-23T20:00:01.000Z")
    for record in (later, FULL, other):
        history.add(record)

    assert history.run(FULL.run_id) == (FULL, later)
    assert history.last_run() == other.run_id
    assert history.runs() == (other.run_id, FULL.run_id)
    assert history.runs(program=SKIPPED.program) == (FULL.run_id,)
    assert history.programs() == ("hello-c", "hello-rust")


def test_the_same_variant_again_replaces(history: History) -> None:
    """A run has one record per variant, in words and in numbers."""
    history.add(FULL)
    history.add(replace(FULL, reason="again", started_at="2026-11-24T00:00:00.000Z"))

    assert [record.reason for record in history.run(FULL.run_id)] == ["again"]
    assert [each.started_at for each in history.points()] == ["2026-11-24T00:00:00.000Z"]


def test_empty_history(history: History) -> None:
    """Without records there is no last run, and nothing in any table."""
    assert (history.last_run(), history.run("x"), history.points(), history.last("x")) == (
        *(None, (), ()),
        None,
    )


def test_package_lists_are_kept_once(history: History, file: Path) -> None:
    """Records share the package list of an image; each is read back whole."""
    for number in range(3):
        history.add(replace(FULL, run_id=f"run-{number}"))

    assert history.run("run-2")[0].images == FULL.images
    with closing(sqlite3.connect(file)) as database:
        texts = database.execute("SELECT packages FROM images").fetchall()
    assert [json.loads(text) for (text,) in texts] == [list(FULL.images[0].packages)]


def test_packages_that_are_known_later(history: History) -> None:
    """An image whose packages nobody knew gets them from a record that does."""
    bare = replace(FULL, images=(replace(FULL.images[0], packages=()),))
    history.add(bare)

    assert history.merge([FULL]) == (0, 0)
    assert history.run(FULL.run_id) == (FULL,)


def test_newer_format_is_refused(file: Path) -> None:
    """A database of a newer version is left alone, with what to do."""
    database = sqlite3.connect(file)
    database.execute("PRAGMA user_version = 9")
    database.close()
    before = file.read_bytes()

    with pytest.raises(HistoryError, match=r"newer nox-variants \(format 9, not 2\)\. Upgrade"):
        History(file)
    assert file.read_bytes() == before


def test_older_format_is_migrated(file: Path) -> None:
    """A database of the first format is read on, its records in numbers as well."""
    values = values_of(FULL)
    (image,) = values["images"]
    packages = json.dumps(image.pop("packages"))
    old = {**values, "schema": 1, "budget": []}
    del old["linkage"]["compiler"]
    database = sqlite3.connect(file)
    database.executescript(OLD_TABLES)
    database.execute("INSERT INTO images VALUES (?, ?)", (image["digest"], packages))
    row = (FULL.run_id, FULL.variant, "hello-c", FULL.started_at, "failed", json.dumps(old))
    database.execute("INSERT INTO records VALUES (?, ?, ?, ?, ?, ?)", row)
    database.commit()
    database.close()

    with History(file) as history:
        assert history.run(FULL.run_id) == (FULL,)
        assert history.points() == (point(FULL),)
    with History(file) as again:
        assert again.run(FULL.run_id) == (FULL,)


def test_concurrent_writers(file: Path) -> None:
    """Several writers at once lose nothing."""

    def write(number: int) -> None:
        with History(file) as mine:
            for at in range(25):
                mine.add(replace(FULL, run_id=f"run-{number}", variant=f"p({at},static)"))

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    with History(file) as history:
        assert [len(history.run(f"run-{number}")) for number in range(4)] == [25] * 4
        assert len(history.points()) == 100


def test_last_records(history: History) -> None:
    """The newest of a variant; the newest good one before a run, with images of the same source."""
    registry = (replace(FULL.images[0], source=SourceKind.REGISTRY),)
    good, other, failed = works(3), works(4, images=registry), run_at(5)
    expected = run_at(2, outcome=Outcome.XFAILED)
    for record in (failed, other, good, expected):
        history.add(record)

    def last_good(before: Record) -> tuple[Record | None, object]:
        key = (FULL.variant, FULL.platform, "apt", before.run_id)
        return history.last_good(*key), history.last_good_point(*key)

    assert history.last(FULL.variant) == failed
    assert last_good(failed) == (good, point(good))
    assert last_good(good) == (expected, point(expected))
    assert last_good(expected) == (None, None)


def test_periods_and_trends(history: History) -> None:
    """Since a time, of a program, of a variant: oldest first, in words and in numbers."""
    mine = [works(day) for day in (1, 2, 3)]
    other = replace(mine[2], program="hello-go", variant="hello-go(scratch,static)")
    for record in (*reversed(mine), other):
        history.add(record)

    assert list(history.records(since="2026-11-02", program="hello-c")) == mine[1:]
    assert history.points(since="2026-11-02") == tuple(map(point, (*mine[1:], other)))
    assert history.trend(FULL.variant) == tuple(map(point, mine))
    assert history.trend(FULL.variant, most=2) == tuple(map(point, mine[1:]))
    assert history.trend(FULL.variant, before=mine[2].run_id, most=1) == (point(mine[1]),)


# --- merging -------------------------------------------------------------------------------------


def test_merging_twice_changes_nothing(history: History) -> None:
    """Records that are here are counted as such; those of another content are left out."""
    assert history.merge([FULL, SKIPPED]) == (2, 0)
    assert history.merge([FULL, replace(SKIPPED, reason="other")]) == (0, 1)
    assert history.run(FULL.run_id) == (FULL, SKIPPED)


def test_merging_is_all_or_nothing(history: History) -> None:
    """A file that is damaged in the middle leaves the history as it was."""

    def broken() -> Iterator[Record]:
        yield FULL
        raise HistoryError("damaged")

    with pytest.raises(HistoryError, match="damaged"):
        history.merge(broken())

    assert history.runs() == ()
    assert history.merge([FULL]) == (1, 0)


KEYS = st.sets(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=12)


@settings(max_examples=25)
@given(st.lists(KEYS, min_size=1, max_size=4), st.randoms())
def test_exports_of_several_machines(
    tmp_path_factory: pytest.TempPathFactory, machines: list[set[tuple[int, int]]], random: object
) -> None:
    """Exports merge without loss, in any order, and however often."""
    folder = tmp_path_factory.mktemp("merge")
    records = {
        key: replace(works(1 + key[0]), variant=f"p({key[1]},static)")
        for key in set.union(*machines)
    }
    exports = []
    for number, keys in enumerate(machines):
        with History(folder / f"{number}.sqlite") as machine:
            machine.merge(records[key] for key in keys)
            export = folder / f"{number}.jsonl"
            recordfile.write(export, recordfile.lines(machine.records()), what="")
            exports += [export, export]
    random.shuffle(exports)  # type: ignore[attr-defined]

    with History(folder / "all.sqlite") as history:
        for export in exports:
            history.merge(recordfile.read(export))
        merged = list(history.records())

    assert sorted(merged, key=str) == sorted(records.values(), key=str)


# --- damage --------------------------------------------------------------------------------------


def test_garbage_is_set_aside(file: Path) -> None:
    """A file that is no database is kept under another name, and said; a new one begins."""
    file.write_bytes(b"not a database at all" * 100)
    said: list[str] = []

    with History(file, note=said.append) as history:
        history.add(FULL)
        assert history.run(FULL.run_id) == (FULL,)

    (aside,) = file.parent.glob("history.damaged-*.sqlite")
    assert aside.read_bytes() == b"not a database at all" * 100
    assert said[0] == (
        f"history: {file} is damaged (file is not a database): set aside as {aside.name};"
        " 0 of its records could still be read"
    )


def test_rebuilt_from_exports(file: Path) -> None:
    """What exports beside it hold is there again; one that is damaged is said and left out."""
    with History(file) as history:
        history.merge([FULL, SKIPPED])
        export = file.with_name("history.jsonl")
        recordfile.write(export, recordfile.lines(history.records()), what="")
    file.with_name("other.jsonl").write_text('{"schema": 9}\n', encoding="utf-8")
    for suffix in ("-wal", "-shm"):
        file.with_name(file.name + suffix).unlink(missing_ok=True)
    file.write_bytes(b"x" * 5000)
    said: list[str] = []

    with History(file, note=said.append) as history:
        assert history.run(FULL.run_id) == (FULL, SKIPPED)

    assert said[1] == "history: 2 more records from history.jsonl"
    assert "other.jsonl:1: the record is of a newer nox-variants (schema 9" in said[2]


def test_a_page_that_is_damaged_while_it_is_used(file: Path) -> None:
    """Damage in the middle is found when it is read; the rest of the records is saved."""
    with History(file) as history:
        history.merge(
            works(1 + number % 28, variant=f"p({number},static)") for number in range(400)
        )
    size = file.stat().st_size
    pages = size // 4096
    with file.open("r+b") as opened:
        for page in range(pages // 3, pages // 3 + 12):
            opened.seek(page * 4096)
            opened.write(b"\xff" * 4096)
    said: list[str] = []

    with History(file, note=said.append) as history:
        found = list(history.records())
        history.add(FULL)
        assert history.run(FULL.run_id)[-1] == FULL

    (aside,) = file.parent.glob("history.damaged-*.sqlite")
    assert aside.stat().st_size == size
    assert 0 < len(found) < 400
    assert f"{len(found)} of its records could still be read" in said[0]


def test_two_processes_meet_the_damage(file: Path) -> None:
    """The second finds the new database in place of the damaged one, and sets nothing aside."""
    with History(file) as first, History(file) as second:
        first.add(FULL)
        first.close()
        second._database.close()
        for suffix in ("-wal", "-shm"):
            file.with_name(file.name + suffix).unlink(missing_ok=True)
        file.write_bytes(b"y" * 5000)
        second._database = sqlite3.connect(file, isolation_level=None)
        second._inode = file.stat().st_ino
        with History(file) as third:
            third.add(SKIPPED)
        second.add(FULL)

        assert second.run(FULL.run_id) == (FULL, SKIPPED)
    assert len(list(file.parent.glob("history.damaged-*.sqlite"))) == 1


def test_a_full_disk_is_no_damage(file: Path) -> None:
    """Errors that say nothing of the file's content are errors; nothing is set aside."""
    file.mkdir()

    with pytest.raises(HistoryError, match=r"history\.sqlite: unable to open"):
        History(file)
    assert file.is_dir()


def test_record_that_is_not_one(file: Path) -> None:
    """A record of another form is an error that names the database."""
    with History(file) as history:
        history.add(replace(FULL, images=()))
        history._database.execute("""UPDATE records SET record = '{"images": []}'""")

        with pytest.raises(HistoryError, match=r"history\.sqlite: a record cannot be read"):
            history.run(FULL.run_id)
