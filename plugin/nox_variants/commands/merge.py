"""Take records of other machines into this project's history, or join them in one file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from nox_variants import commands, recordfile

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from nox_variants.record import Record


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "records",
        nargs="+",
        type=Path,
        metavar="RECORDS",
        help="what `--json` or `report --format jsonl` wrote",
    )
    parser.add_argument(
        "--json",
        type=Path,
        metavar="OUT",
        help="write all records there, in place of taking them into the history",
    )


def run(args: argparse.Namespace) -> int:
    """Merge records."""
    if args.json:
        records = joined(args.records)
        recordfile.write(args.json, recordfile.document(records), what="--json")
        print(f"{args.json}: {len(records)} records")
        return 0
    from nox_variants import invocation  # noqa: PLC0415  # not for --help
    from nox_variants.history import History  # noqa: PLC0415

    file = invocation.history_file(commands.settings(args))
    with History(file, note=print) as history:
        for name in args.records:
            new, differing = history.merge(recordfile.read(name))
            print(f"{name}: {new} new records")
            if differing:
                print(f"{name}: {differing} records are not what is here of their run: left out")
    return 0


def joined(files: Sequence[Path]) -> tuple[Record, ...]:
    """Return the records of files, each run and variant once: the first that was read counts.

    Raises:
        HistoryError: A file cannot be read.
    """
    found: dict[tuple[str, str], Record] = {}
    for file in files:
        for record in recordfile.read(file):
            found.setdefault((record.run_id, record.variant), record)
    return tuple(found.values())
