"""The record database: kept, read back, shared, and honest when it cannot."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from nox_variants.errors import HistoryError
from nox_variants.history import History
from records import FULL, SKIPPED


def test_records_come_back(tmp_path: Path) -> None:
    """What was added is read back equal, packages included, after closing."""
    file = tmp_path / "new" / "history.sqlite"
    with History(file) as history:
        history.add(FULL)
        history.add(SKIPPED)

    with History(file) as history:
        assert history.last_run() == FULL.run_id
        assert history.run(FULL.run_id) == (SKIPPED, FULL) or history.run(FULL.run_id) == (
            FULL,
            SKIPPED,
        )
        assert history.run("other") == ()


def test_same_record_twice_is_one(tmp_path: Path) -> None:
    """The same run and variant again replaces the record."""
    with History(tmp_path / "history.sqlite") as history:
        history.add(FULL)
        history.add(replace(FULL, reason="again"))

        assert [record.reason for record in history.run(FULL.run_id)] == ["again"]


def test_empty_history_has_no_last_run(tmp_path: Path) -> None:
    """A new database has no run."""
    with History(tmp_path / "history.sqlite") as history:
        assert history.last_run() is None


def test_packages_are_kept_once(tmp_path: Path) -> None:
    """A hundred records of one image hold its package list once."""
    file = tmp_path / "history.sqlite"
    with History(file) as history:
        for number in range(100):
            history.add(replace(FULL, variant=f"hello-c({number})"))

    with sqlite3.connect(file) as database:
        assert database.execute("SELECT count(*) FROM images").fetchone() == (1,)
        assert "libc6=" not in database.execute("SELECT record FROM records").fetchone()[0]
    database.close()


def test_newer_format_is_refused(tmp_path: Path) -> None:
    """A database of a newer version is left alone, with what to do."""
    file = tmp_path / "history.sqlite"
    database = sqlite3.connect(file)
    database.execute("PRAGMA user_version = 9")
    database.close()

    with pytest.raises(HistoryError, match=r"newer nox-variants \(format 9, not 1\)\. Upgrade"):
        History(file)


def test_garbage_is_refused(tmp_path: Path) -> None:
    """A file that is no database is an error that names it, not a traceback."""
    file = tmp_path / "history.sqlite"
    file.write_bytes(b"not a database at all" * 100)

    with pytest.raises(HistoryError, match=r"history\.sqlite: file is not a database"):
        History(file)


def test_unreadable_record_is_named(tmp_path: Path) -> None:
    """A record that was tampered with is an error, not a traceback."""
    file = tmp_path / "history.sqlite"
    with History(file) as history:
        history.add(FULL)
        history._database.execute("UPDATE records SET record = '{\"images\": []}'")
        with pytest.raises(HistoryError, match="a record cannot be read"):
            history.run(FULL.run_id)


_WRITER = """
import sys
from dataclasses import replace
from pathlib import Path
from nox_variants.history import History
from records import FULL

with History(Path(sys.argv[1])) as history:
    for number in range(20):
        history.add(replace(FULL, run_id=sys.argv[2], variant=f"v{number}"))
"""


@pytest.mark.subprocess
def test_several_processes_write_at_once(tmp_path: Path) -> None:
    """Four processes that open and write one new database lose nothing."""
    file = tmp_path / "history.sqlite"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    workers = [
        subprocess.Popen([sys.executable, "-c", _WRITER, file, f"run-{number}"], env=environment)
        for number in range(4)
    ]

    assert [worker.wait() for worker in workers] == [0] * 4
    with History(file) as history:
        assert [len(history.run(f"run-{number}")) for number in range(4)] == [20] * 4


def test_the_last_record_of_a_variant(tmp_path: Path) -> None:
    """The newest of a variant's records, whichever run wrote it last; none when it never ran."""
    newer = replace(FULL, run_id="a", started_at="2026-11-24T20:00:00.000Z")
    with History(tmp_path / "history.sqlite") as history:
        for record in (newer, FULL, SKIPPED):
            history.add(record)

        assert history.last(FULL.variant) == newer
        assert history.last("other") is None
