"""Records in SQLite: every run is kept, several processes may write at once (WAL).

A record's JSON is stored without its package lists: those are kept once per image digest.
"""

from __future__ import annotations

import json
import sqlite3
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self

from nox_variants.errors import HistoryError
from nox_variants.record import Record, from_json, to_json

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

VERSION = 1
"""Version of the tables, in SQLite's ``user_version``."""

BUSY_SECONDS = 60
"""How long a writer waits for another process's transaction."""

_TABLES = """
CREATE TABLE IF NOT EXISTS records (
    run_id TEXT NOT NULL,
    variant TEXT NOT NULL,
    program TEXT NOT NULL,
    started_at TEXT NOT NULL,
    outcome TEXT NOT NULL,
    record TEXT NOT NULL,
    PRIMARY KEY (run_id, variant)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS records_by_variant ON records (variant, started_at);
CREATE TABLE IF NOT EXISTS images (
    digest TEXT PRIMARY KEY,
    packages TEXT NOT NULL
) WITHOUT ROWID;
"""


class History:
    """The record database of one project.

    Use it as a context manager, from one thread.

    Args:
        file: The database; made when it does not exist.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._known: set[str] = set()
        with self._explained():
            file.parent.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(file, timeout=BUSY_SECONDS, isolation_level=None)
            try:
                self._open()
            except BaseException:
                self._database.close()
                raise

    def _open(self) -> None:
        version = self._database.execute("PRAGMA user_version").fetchone()[0]
        if version > VERSION:
            raise HistoryError(
                f"{self._file}: written by a newer nox-variants (format {version}, not {VERSION})",
                hint="Upgrade nox-variants, or move the file away to start a new history.",
            )
        self._database.execute("PRAGMA synchronous = NORMAL")
        if version < VERSION:
            self._database.execute("PRAGMA journal_mode = WAL")
            self._database.executescript(
                f"BEGIN IMMEDIATE; {_TABLES} PRAGMA user_version = {VERSION}; COMMIT;"
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the database. What was added is on disk already."""
        self._database.close()

    def add(self, record: Record) -> None:
        """Keep a record; the same run and variant again replaces it.

        Raises:
            HistoryError: When the database does not take it.
        """
        values = to_json(record)
        with self._explained(), self._transaction():
            for image in values["images"]:
                self._keep_packages(image["digest"], image.pop("packages"))
            self._database.execute(
                "INSERT OR REPLACE INTO records VALUES (?, ?, ?, ?, ?, ?)",
                (
                    record.run_id,
                    record.variant,
                    record.program,
                    record.started_at,
                    record.outcome.value,
                    json.dumps(values, ensure_ascii=False, separators=(",", ":")),
                ),
            )

    def run(self, run_id: str) -> tuple[Record, ...]:
        """Return the records of one run, by variant id."""
        query = "SELECT record FROM records WHERE run_id = ? ORDER BY variant"
        with self._explained():
            rows = self._database.execute(query, (run_id,)).fetchall()
            return tuple(self._record(row[0]) for row in rows)

    def last(self, variant: str) -> Record | None:
        """Return the newest record of a variant, or None when it never ran."""
        query = "SELECT record FROM records WHERE variant = ? ORDER BY started_at DESC LIMIT 1"
        with self._explained():
            row = self._database.execute(query, (variant,)).fetchone()
            return None if row is None else self._record(row[0])

    def last_run(self) -> str | None:
        """Return the id of the newest run, or None when there is no record."""
        with self._explained():
            row = self._database.execute("SELECT max(run_id) FROM records").fetchone()
        return None if row[0] is None else str(row[0])

    def _record(self, text: str) -> Record:
        values: dict[str, Any] = json.loads(text)
        for image in values["images"]:
            row = self._database.execute(
                "SELECT packages FROM images WHERE digest = ?", (image["digest"],)
            ).fetchone()
            image["packages"] = json.loads(row[0]) if row else []
        return from_json(values)

    def _keep_packages(self, digest: str, packages: list[str]) -> None:
        if digest not in self._known:
            self._database.execute(
                "INSERT OR IGNORE INTO images VALUES (?, ?)", (digest, json.dumps(packages))
            )
            self._known.add(digest)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._known.clear()
            self._database.execute("ROLLBACK")
            raise
        self._database.execute("COMMIT")

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise HistoryError(
                f"{self._file}: {error}",
                hint="Is the disk full or read-only? Move the file away to start a new history.",
            ) from error
        except ValueError as error:
            raise HistoryError(f"{self._file}: a record cannot be read: {error}") from error
