"""Records in SQLite: every run is kept, several processes may write at once (WAL).

A record is kept twice: as JSON, without its package lists, which are kept once per image digest;
and in numbers, in a narrow table that trends and reports of a year read in no time.
"""

from __future__ import annotations

import json
import sqlite3
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Self, TypeVar

from nox_variants import historytables, recordfile
from nox_variants.errors import HistoryError
from nox_variants.record import Record, from_json, to_text
from nox_variants.results import Outcome
from nox_variants.trend import Point, point

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

BUSY_SECONDS = 60
"""How long a writer waits for another process's transaction."""

_GOOD = (Outcome.PASSED.value, Outcome.XFAILED.value)
_PERIOD = "started_at >= ? AND (? = '' OR program = ?) ORDER BY run_id, started_at, variant"
_LAST_GOOD = (
    "variant = ? AND platform = ? AND source = ? AND outcome IN (?, ?) AND run_id < ?"
    " ORDER BY started_at DESC LIMIT 1"
)
_NEWEST = "variant = ? AND (? = '' OR run_id < ?) ORDER BY started_at DESC, run_id DESC LIMIT ?"
_T = TypeVar("_T")


class History:
    """The record database of one project.

    Use it as a context manager, from one thread. A file that turns out to be damaged is set aside,
    never deleted, and a new one is made of what can still be read of it and of the exports (JSON
    Lines) that lie beside it.

    Args:
        file: The database; made when it does not exist.
        note: Told what was done about a damaged file.
    """

    def __init__(self, file: Path, *, note: Callable[[str], object] = lambda _: None) -> None:
        self._file = file
        self._note = note
        self._packages_kept: set[str] = set()
        self._inode = 0
        with self._explained():
            try:
                self._open()
            except sqlite3.DatabaseError as error:
                self._replace(error)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the database. What was added is on disk already."""
        self._database.close()

    # --- writing ---------------------------------------------------------------------------------

    def add(self, record: Record) -> None:
        """Keep a record; the same run and variant again replaces it.

        Raises:
            HistoryError: When the database does not take it.
        """

        def work() -> None:
            key = (record.run_id, record.variant)
            with self._transaction():
                for table in ("records", "points"):
                    self._database.execute(
                        f"DELETE FROM {table} WHERE run_id = ? AND variant = ?",  # noqa: S608
                        key,
                    )
                self._insert(record)

        self._sound(work)

    def merge(self, records: Iterable[Record]) -> tuple[int, int]:
        """Take records of elsewhere, all or none.

        Returns:
            How many were new; how many of the others are not what is here under the same run and
            variant, which was left as it is.

        Raises:
            HistoryError: One cannot be read, or the database does not take them.
        """
        self._sound(lambda: self._database.execute("SELECT count(*) FROM images").fetchone())
        with self._explained(), self._transaction():
            return self._merge(records)

    def _merge(self, records: Iterable[Record]) -> tuple[int, int]:
        new = differing = 0
        for record in records:
            if self._insert(record):
                new += 1
            elif mine := self._find(record.run_id, record.variant):
                differing += _without_packages(mine) != _without_packages(record)
        return new, differing

    def _insert(self, record: Record) -> bool:
        """Keep a record, or only its package lists where there is one of its run and variant."""
        for image in record.images:
            self._keep_packages(image.digest, image.packages)
        values = (record.run_id, record.variant, to_text(record, packages=False))
        insert = "INSERT OR IGNORE INTO records VALUES (?, ?, ?)"
        if not self._database.execute(insert, values).rowcount:
            return False
        self._database.execute(historytables.INSERT, historytables.row(point(record)))
        return True

    def _keep_packages(self, digest: str, packages: Iterable[str]) -> None:
        if packages and digest not in self._packages_kept:
            text = json.dumps(packages)
            self._database.execute("INSERT OR REPLACE INTO images VALUES (?, ?)", (digest, text))
            self._packages_kept.add(digest)

    # --- whole records ---------------------------------------------------------------------------

    def run(self, run_id: str) -> tuple[Record, ...]:
        """Return the records of one run, in the order in which its variants began."""
        return tuple(self._records("run_id = ? ORDER BY started_at, variant", run_id))

    def records(self, *, since: str = "", program: str = "") -> Iterator[Record]:
        """Yield records, oldest first.

        Args:
            since: UTC, ISO 8601: those that began at that time or later.
            program: Of one program; of all when empty.
        """
        return self._records(_PERIOD, since, program, program)

    def last(self, variant: str) -> Record | None:
        """Return the newest record of a variant, or None when it never ran."""
        found = self._records("variant = ? ORDER BY started_at DESC, run_id DESC LIMIT 1", variant)
        return next(found, None)

    def last_good(self, variant: str, platform: str, source: str, before: str) -> Record | None:
        """Return the newest record of a variant that was as expected, of runs before some run.

        Args:
            variant: The variant's id.
            platform: ``linux/amd64``.
            source: Where its images came from (:attr:`Record.source`).
            before: Id of the run.
        """
        found = self._records(_LAST_GOOD, variant, platform, source, *_GOOD, before)
        return next(found, None)

    def _records(self, condition: str, *values: str) -> Iterator[Record]:
        """Yield the records whose points a condition selects."""
        query = f"SELECT run_id, variant FROM points WHERE {condition}"  # noqa: S608
        for run_id, variant in self._read(query, values):
            with self._explained():
                record = self._find(run_id, variant)
            if record is not None:
                yield record

    def _find(self, run_id: str, variant: str) -> Record | None:
        found = self._database.execute(
            "SELECT record FROM records WHERE run_id = ? AND variant = ?", (run_id, variant)
        ).fetchone()
        if found is None:
            return None
        values: dict[str, Any] = json.loads(found[0])
        for image in values["images"]:
            kept = self._database.execute(
                "SELECT packages FROM images WHERE digest = ?", (image["digest"],)
            ).fetchone()
            image["packages"] = json.loads(kept[0]) if kept else []
        return from_json(values)

    # --- in numbers ------------------------------------------------------------------------------

    def points(self, *, since: str = "", program: str = "") -> tuple[Point, ...]:
        """Return records in numbers, oldest first; see :meth:`records`."""
        return self._points(_PERIOD, since, program, program)

    def trend(self, variant: str, *, before: str = "", most: int = -1) -> tuple[Point, ...]:
        """Return a variant's records in numbers, oldest first.

        Args:
            variant: The variant's id.
            before: Only of runs before this one.
            most: The newest so many.
        """
        return self._points(_NEWEST, variant, before, before, most)[::-1]

    def last_good_point(
        self, variant: str, platform: str, source: str, before: str
    ) -> Point | None:
        """Return :meth:`last_good` in numbers."""
        found = self._points(_LAST_GOOD, variant, platform, source, *_GOOD, before)
        return found[0] if found else None

    def runs(self, *, program: str = "") -> tuple[str, ...]:
        """Return the ids of all runs, or of those that had a program, newest first."""
        query = "SELECT DISTINCT run_id FROM points WHERE ? IN ('', program) ORDER BY run_id DESC"
        return tuple(found[0] for found in self._read(query, (program,)))

    def last_run(self) -> str | None:
        """Return the id of the newest run, or None when there is no record."""
        found: str | None = self._read("SELECT max(run_id) FROM points", ())[0][0]
        return found

    def programs(self) -> tuple[str, ...]:
        """Return the names of all programs that there are records of."""
        query = "SELECT DISTINCT program FROM points ORDER BY program"
        return tuple(found[0] for found in self._read(query, ()))

    def _points(self, condition: str, *values: str | int) -> tuple[Point, ...]:
        found = self._read(f"{historytables.SELECT} WHERE {condition}", values)
        with self._explained():
            return tuple(map(historytables.point_of, found))

    def _read(self, query: str, values: tuple[str | int, ...]) -> list[tuple[Any, ...]]:
        return self._sound(lambda: self._database.execute(query, values).fetchall())

    # --- the file --------------------------------------------------------------------------------

    def _open(self) -> None:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        self._database = sqlite3.connect(self._file, timeout=BUSY_SECONDS, isolation_level=None)
        self._inode = self._file.stat().st_ino
        try:
            historytables.prepare(self._database, self._file)
        except BaseException:
            self._database.close()
            raise

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._packages_kept.clear()
            if self._database.in_transaction:
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
        except OverflowError as error:
            raise HistoryError(f"{self._file}: a record's number is too large") from error
        except ValueError as error:
            raise HistoryError(f"{self._file}: a record cannot be read: {error}") from error

    # --- damage ----------------------------------------------------------------------------------

    def _sound(self, work: Callable[[], _T]) -> _T:
        """Return what work returns: done again with a new database where this one is damaged."""
        with self._explained():
            try:
                return work()
            except sqlite3.DatabaseError as error:
                self._replace(error)
            return work()

    def _replace(self, error: sqlite3.DatabaseError) -> None:
        """Open a new database where an error says that this one is damaged."""
        if not historytables.is_damage(error):
            raise error
        from filelock import FileLock  # noqa: PLC0415  # for a damaged file only

        self._database.close()
        self._packages_kept.clear()
        with FileLock(f"{self._file}.lock"):
            aside = self._set_aside()
            self._open()
            if aside:
                self._rebuild(aside, error)

    def _set_aside(self) -> Path | None:
        """Rename the file; return its new name, or None where another process was faster."""
        if not self._file.exists() or self._file.stat().st_ino != self._inode:
            return None
        now = f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}"
        aside = self._file.with_name(f"{self._file.stem}.damaged-{now}.sqlite")
        for suffix in ("", "-wal", "-shm"):
            part = self._file.with_name(self._file.name + suffix)
            if part.exists():
                part.rename(aside.with_name(aside.name + suffix))
        return aside

    def _rebuild(self, aside: Path, error: sqlite3.DatabaseError) -> None:
        with self._transaction():
            saved, _ = self._merge(historytables.readable(aside))
        self._note(
            f"history: {self._file} is damaged ({error}): set aside as {aside.name};"
            f" {saved} of its records could still be read"
        )
        for export in sorted(self._file.parent.glob(f"*{recordfile.JSON_LINES}")):
            try:
                with self._transaction():
                    new, _ = self._merge(recordfile.read(export))
            except HistoryError as unread:
                self._note(f"history: {unread}")
            else:
                self._note(f"history: {new} more records from {export.name}")


def _without_packages(record: Record) -> Record:
    return replace(record, images=tuple(replace(each, packages=()) for each in record.images))
