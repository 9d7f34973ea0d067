"""The tables of the history: how records lie in SQLite, how older formats become today's."""

from __future__ import annotations

import dataclasses
import json
import os
import sqlite3
from typing import TYPE_CHECKING, Any

from nox_variants.errors import HistoryError
from nox_variants.model import Cause, Verdict
from nox_variants.record import Record, from_json
from nox_variants.results import EngineName, Outcome
from nox_variants.trend import Point, point

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

VERSION = 2
"""Version of the tables, in SQLite's ``user_version``."""

_TABLES = """CREATE TABLE IF NOT EXISTS records (
    run_id TEXT NOT NULL,
    variant TEXT NOT NULL,
    record TEXT NOT NULL,
    PRIMARY KEY (run_id, variant)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS images (
    digest TEXT PRIMARY KEY,
    packages TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS points (
    run_id TEXT NOT NULL,
    variant TEXT NOT NULL,
    program TEXT NOT NULL,
    started_at TEXT NOT NULL,
    platform TEXT NOT NULL,
    source TEXT NOT NULL,
    engine TEXT,
    outcome TEXT NOT NULL,
    verdict TEXT,
    cause TEXT,
    content INTEGER,
    above_base INTEGER,
    transfer INTEGER,
    binary INTEGER,
    build REAL,
    build_cached INTEGER,
    startup REAL,
    memory INTEGER,
    PRIMARY KEY (variant, started_at, run_id)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS points_by_run ON points (run_id, started_at);
"""

_COLUMNS = tuple(each.name for each in dataclasses.fields(Point))

SELECT = f"SELECT {', '.join(_COLUMNS)} FROM points"  # noqa: S608  # names of our own
INSERT = f"INSERT INTO points ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))})"  # noqa: S608

_CORRUPT = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
"""Primary result codes (sqlite.org/rescode.html) of a file that is no sound database."""


def is_damage(error: sqlite3.Error) -> bool:
    """Tell whether an error says that the file itself is not sound."""
    code: int = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF in _CORRUPT


def prepare(database: sqlite3.Connection, file: Path) -> None:
    """Make the tables where there are none, and migrate those of an older format.

    Raises:
        HistoryError: They are of a newer format.
    """
    version = _version(database)
    if version > VERSION:
        raise HistoryError(
            f"{file}: written by a newer nox-variants (format {version}, not {VERSION})",
            hint="Upgrade nox-variants, or move the file away to start a new history.",
        )
    database.execute("PRAGMA synchronous = NORMAL")
    if version < VERSION:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("BEGIN IMMEDIATE")
        _migrate(database, _version(database))  # read again: another process may have been faster
        database.execute("COMMIT")


def _version(database: sqlite3.Connection) -> int:
    return int(database.execute("PRAGMA user_version").fetchone()[0])


def _migrate(database: sqlite3.Connection, version: int) -> None:
    if version == VERSION:
        return
    if version == 1:
        database.execute("ALTER TABLE records RENAME TO records_1")
    for statement in filter(str.strip, _TABLES.split(";")):
        database.execute(statement)
    if version == 1:
        database.execute("INSERT INTO records SELECT run_id, variant, record FROM records_1")
        for (text,) in database.execute("SELECT record FROM records_1"):
            database.execute(INSERT, row(point(bare(text))))
        database.execute("DROP TABLE records_1")
    database.execute(f"PRAGMA user_version = {VERSION}")


def readable(file: Path) -> Iterator[Record]:
    """Yield the records of a damaged database, from both of its ends, as far as they can be read.

    Package lists are kept apart and left out: they come with exports.
    """
    from urllib.parse import quote  # noqa: PLC0415  # of a damaged file only

    try:
        database = sqlite3.connect(f"file:{quote(os.fspath(file.absolute()))}?mode=ro", uri=True)
    except sqlite3.Error:
        return
    try:
        for direction in ("ASC", "DESC"):
            yield from _readable_rows(database, direction)
    finally:
        database.close()


def _readable_rows(database: sqlite3.Connection, direction: str) -> Iterator[Record]:
    query = f"SELECT record FROM records ORDER BY run_id {direction}, variant {direction}"  # noqa: S608
    rows = database.cursor()
    try:
        rows.execute(query)
        while found := rows.fetchone():
            try:
                yield bare(found[0])
            except (ValueError, LookupError, TypeError):
                continue
    except sqlite3.Error:
        return


def bare(text: str) -> Record:
    """Return a record as its table has it, without package lists."""
    values: dict[str, Any] = json.loads(text)
    for image in values["images"]:
        image["packages"] = []
    return from_json(values)


def row(point: Point) -> tuple[Any, ...]:
    """Return the row of a point."""
    return tuple(getattr(point, name) for name in _COLUMNS)


def point_of(row: tuple[Any, ...]) -> Point:
    """Return the point of a row."""
    values = dict(zip(_COLUMNS, row, strict=True))
    cached = values["build_cached"]
    return Point(
        **{
            **values,
            "engine": values["engine"] and EngineName(values["engine"]),
            "outcome": Outcome(values["outcome"]),
            "verdict": values["verdict"] and Verdict(values["verdict"]),
            "cause": values["cause"] and Cause(values["cause"]),
            "build_cached": None if cached is None else bool(cached),
        }
    )
