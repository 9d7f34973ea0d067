"""Join the shards of a run, or take records of other machines into this project's history."""

from __future__ import annotations

import gc
import os
import sys
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from nox_variants import commands, recordfile, sharding

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Iterator, Sequence

    from nox_variants.model import Settings
    from nox_variants.record import Record
    from nox_variants.sharding import Part


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "records",
        nargs="+",
        type=Path,
        metavar="RECORDS",
        help="what `--json` or `report --format jsonl` wrote; of shards, all of one matrix",
    )
    parser.add_argument(
        "--json",
        type=Path,
        metavar="OUT",
        help="write all records there; those of shards are taken into the history, too",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """What a file holds: records, and which shard it is, if it is one."""

    name: str
    records: tuple[Record, ...]
    part: Part | None


def run(args: argparse.Namespace) -> int:
    """Merge records.

    Returns:
        0; of shards, 1 when an outcome is failed, xpassed or error.
    """
    with _kept():
        return _merge(args)


@contextmanager
def _kept() -> Iterator[None]:
    """Spare the garbage collector hundreds of thousands of records, none of which is garbage."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _merge(args: argparse.Namespace) -> int:
    inputs = tuple(map(read, args.records))
    if any(each.part for each in inputs):
        return _join(commands.settings(args), inputs, args.json)
    if args.json:
        records = joined(inputs)
        recordfile.write(args.json, recordfile.document(records), what="--json")
        print(f"{args.json}: {len(records)} records")
        return 0
    from nox_variants import invocation  # noqa: PLC0415  # not for --help
    from nox_variants.history import History  # noqa: PLC0415

    file = invocation.history_file(commands.settings(args))
    with History(file, note=print) as history:
        for each in inputs:
            new, differing = history.merge(each.records)
            print(f"{each.name}: {new} new records")
            if differing:
                what = "records are not what is here of their run: left out"
                print(f"{each.name}: {differing} {what}")
    return 0


def read(file: Path) -> Input:
    """Return what a file holds.

    Raises:
        HistoryError: It cannot be read.
    """
    parts: list[Part] = []
    records = tuple(recordfile.read(file, parts.append))
    return Input(name=str(file), records=records, part=parts[0] if parts else None)


def joined(inputs: Iterable[Input]) -> tuple[Record, ...]:
    """Return the records of files, each run and variant once: the first that was read counts."""
    found: dict[tuple[str, str], Record] = {}
    for each in inputs:
        for record in each.records:
            found.setdefault((record.run_id, record.variant), record)
    return tuple(found.values())


def whole(inputs: Sequence[Input]) -> tuple[Record, ...]:
    """Return the records of all shards as those of one run: the id of its first shard is its own.

    Raises:
        UsageError: They are not all shards of one matrix, each once.
    """
    records = [record for each in inputs for record in each.records]
    parts = [(each.name, each.part) for each in inputs]
    sharding.check(parts, len({record.variant for record in records}))
    run_id = min((record.run_id for record in records), default="")
    return tuple(replace(record, run_id=run_id) for record in records)


def _join(settings: Settings, inputs: Sequence[Input], output: Path | None) -> int:
    """Make one run of shards: kept, shown, held against what was before."""
    from nox_variants import invocation, lockfile, matrix  # noqa: PLC0415  # not for --help
    from nox_variants.display import print_changes, print_report  # noqa: PLC0415
    from nox_variants.history import History  # noqa: PLC0415
    from nox_variants.reports import table  # noqa: PLC0415
    from nox_variants.standing import Standing  # noqa: PLC0415

    records = matrix.ordered(whole(inputs), matrix.expand(settings).variants)
    run_id = records[0].run_id
    with History(invocation.history_file(settings), note=_note) as history:
        history.merge(records)
        baseline = lockfile.read(settings.root, records[0].platform)
        changes = Standing(history, baseline, run_id).changes(records)
    print_report(records, sys.stdout)
    print_changes(changes, sys.stdout)
    print(f"{table.summary(records)}, {len(inputs)} shards, run {run_id}")
    if output:
        recordfile.write(output, recordfile.document(records), what="--json")
    invocation.summarize(records, changes, os.environ)
    return int(any(record.outcome.bad for record in records))


def _note(text: str) -> None:
    print(text, file=sys.stderr)
