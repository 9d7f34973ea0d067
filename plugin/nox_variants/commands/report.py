"""Show recorded runs: a table, a page, what a CI system reads; trends; what changed between two."""

from __future__ import annotations

import datetime as dt
import io
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nox_variants import commands, compare, recordfile
from nox_variants.commands.clean import age
from nox_variants.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Iterator, Sequence

    from nox_variants.compare import Difference, Side
    from nox_variants.history import History
    from nox_variants.model import Settings
    from nox_variants.record import Record
    from nox_variants.standing import Changes
    from nox_variants.trend import Point

BASELINE = "BASELINE"
"""What `--compare` calls ``variants.lock``."""

FORMATS = ("table", "markdown", "junit", "json", "jsonl", "html")

_OF_COMPARISONS = ("table", "markdown", "json")
_ALL = "0"
"""The beginning of all time, as text that sorts before every date."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add = parser.add_argument
    add("--format", choices=FORMATS, default="table", help="default: %(default)s")
    add("--output", type=Path, metavar="PATH", help="where it goes (default: standard output)")
    add(
        "--run",
        dest="run_id",
        default="",
        metavar="ID",
        help="a run, by its id or how that begins (default: the last one)",
    )
    add(
        "--since",
        type=since,
        metavar="AGE",
        help="trends of the runs of so long: 30d, 12h, 2w, or all; with json and jsonl their"
        " records, with html what its charts show",
    )
    add("--program", default="", metavar="NAME", help="of one program only")
    add(
        "--compare",
        nargs="+",
        metavar="RUN",
        help="what is not the same in two runs, or in one and the last: ids, files that --json"
        f" wrote, or {BASELINE}",
    )


def since(text: str) -> str:
    """Return the time that was so long ago: UTC, ISO 8601.

    Raises:
        argparse.ArgumentTypeError: It is no age.
    """
    if text == "all":
        return _ALL
    ago = dt.timedelta(seconds=min(age(text), 1e9))
    return (dt.datetime.now(dt.UTC) - ago).isoformat()


def run(args: argparse.Namespace) -> int:
    """Print a report, or write it to a file."""
    text = _compared(args) if args.compare else _recorded(args)
    if args.output:
        recordfile.write(args.output, text, what="--output")
    else:
        sys.stdout.writelines([text] if isinstance(text, str) else text)
    return 0


def _history(settings: Settings) -> History:
    from nox_variants import invocation  # noqa: PLC0415  # not for --help
    from nox_variants.history import History  # noqa: PLC0415

    return History(
        invocation.history_file(settings), note=lambda text: print(text, file=sys.stderr)
    )


# --- runs ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What reports are made of: a project's records, or those of one program."""

    history: History
    settings: Settings
    run_id: str
    since: str
    program: str

    def records(self) -> tuple[Record, ...]:
        """Return the records of the run, in the order of the file."""
        from nox_variants import matrix  # noqa: PLC0415  # not for --help

        found = self.history.run(self.run_id)
        mine = [record for record in found if self.program in {"", record.program}]
        return matrix.ordered(mine, matrix.expand(self.settings).variants)

    def points(self) -> tuple[Point, ...]:
        """Return the records of the period in numbers."""
        return self.history.points(since=self.since, program=self.program)

    def period(self) -> Iterator[Record]:
        """Yield the records of the period."""
        return self.history.records(since=self.since, program=self.program)

    def changes(self, records: Sequence[Record]) -> Changes:
        """Return what was not what it had been, since the baseline and the last good run."""
        from nox_variants import lockfile  # noqa: PLC0415  # not for every format
        from nox_variants.standing import Changes, Standing  # noqa: PLC0415

        if not records:
            return Changes()
        baseline = lockfile.read(self.settings.root, records[0].platform)
        return Standing(self.history, baseline, self.run_id).changes(records)


def _recorded(args: argparse.Namespace) -> str | Iterable[str]:
    settings = commands.settings(args)
    with _history(settings) as history:
        source = Source(
            history=history,
            settings=settings,
            run_id=find_run(history, args.run_id, args.program),
            since=args.since or "",
            program=args.program,
        )
        if args.since and args.format != "html":
            return of_period(source, args.format)
        return of_run(source, args.format)


def find_run(history: History, begin: str, program: str = "") -> str:
    """Return the newest run whose id begins so, and which has records of a program.

    A run of the future, which a clock that was wrong has left, is the newest of all until then: it
    is found where there is no other.

    Raises:
        UsageError: There is none.
    """
    runs = history.runs(program=program)
    if found := [each for each in runs if each.startswith(begin)]:
        tomorrow = f"{dt.datetime.now(dt.UTC) + dt.timedelta(days=1):%Y%m%dT%H%M%S}"
        return next((each for each in found if each < tomorrow), found[0])
    if program and program not in (known := history.programs()):
        hint = did_you_mean(program, known).strip() or f"There are {', '.join(known)}."
        raise UsageError(f"--program {program!r}: there is no record of it", hint=hint)
    if not runs:
        raise UsageError("there is no record yet", hint="`nox -s matrix` makes some.")
    newest = ", ".join(runs[:3])
    raise UsageError(f"no run's id begins with {begin!r}", hint=f"The newest are {newest}.")


def of_run(source: Source, form: str) -> str | Iterable[str]:
    """Return the report of one run."""
    records = source.records()
    title = f"nox-variants: {source.program or source.settings.root.name}"
    match form:
        case "table":
            return _table(records, source.changes(records))
        case "markdown":
            from nox_variants.reports import markdown  # noqa: PLC0415  # one format is loaded

            return markdown.document(records, source.changes(records).all, title=title)
        case "junit":
            from nox_variants.reports import junit  # noqa: PLC0415

            return junit.document(records, name=title)
        case "html":
            from nox_variants.reports import html  # noqa: PLC0415

            return html.page(records, source.points(), source.changes(records).all, title=title)
        case "jsonl":
            return recordfile.lines(records)
        case _:
            return recordfile.document(records)


def of_period(source: Source, form: str) -> str | Iterable[str]:
    """Return the report of a period: trends, or all of its records.

    Raises:
        UsageError: The format is for one run.
    """
    from nox_variants.reports import trends  # noqa: PLC0415  # one format is loaded

    match form:
        case "table":
            return _plain(trends.lines(source.points()))
        case "markdown":
            return trends.markdown(source.points())
        case "json":
            return recordfile.document(tuple(source.period()))
        case "jsonl":
            return list(recordfile.lines(source.period()))
        case _:
            raise UsageError(f"--format {form} is for one run", hint="Leave out --since.")


def _table(records: Sequence[Record], changes: Changes) -> str:
    from nox_variants.display import print_changes, print_report  # noqa: PLC0415  # one format
    from nox_variants.reports import table  # noqa: PLC0415

    stream = io.StringIO()
    print_report(records, stream)
    print_changes(changes, stream)
    print(f"{table.summary(records)}, run {records[0].run_id}", file=stream)
    return stream.getvalue()


def _plain(lines: Iterable[Sequence[tuple[str, str]]]) -> str:
    return "".join(f"{''.join(text for text, _ in line)}\n" for line in lines)


# --- comparisons --------------------------------------------------------------------------------


def _compared(args: argparse.Namespace) -> str:
    names = [*args.compare, ""][:2]
    if len(args.compare) > len(names) or args.format not in _OF_COMPARISONS:
        raise UsageError(
            f"--compare takes one run or two, and the formats {', '.join(_OF_COMPARISONS)}",
            hint="nox-variants report --compare BASE.json HEAD.json --format markdown",
        )
    after = _records(names[1], args)
    before = _baseline(after, args) if names[0] == BASELINE else sides(_records(names[0], args))
    return of_comparison(compare.differences(before, sides(after)), args.format)


def of_comparison(differences: Sequence[Difference], form: str) -> str:
    """Return what is not the same."""
    from nox_variants.reports import comparison  # noqa: PLC0415  # one format is loaded

    match form:
        case "table":
            headline = f"{comparison.headline(differences)}\n" if differences else ""
            return headline + _plain(comparison.lines(differences))
        case "markdown":
            return comparison.markdown(differences)
        case _:
            values = [asdict(each) for each in differences]
            return json.dumps(values, indent=1, ensure_ascii=False) + "\n"


def sides(records: Iterable[Record]) -> tuple[Side, ...]:
    """Return what records say; of several of a variant, the newest."""
    newest = {each.variant: each for each in sorted(records, key=lambda each: each.run_id)}
    return tuple(map(compare.side, newest.values()))


def _records(name: str, args: argparse.Namespace) -> tuple[Record, ...]:
    """Return the records of a file or a run, those of one program if that is asked for."""
    if name == BASELINE:
        raise UsageError(f"{BASELINE} is what runs are compared with: name it first")
    if name and (Path(name).is_file() or Path(name).suffix in {".json", recordfile.JSON_LINES}):
        found = tuple(recordfile.read(Path(name)))
    else:
        with _history(commands.settings(args)) as history:
            found = history.run(find_run(history, name, args.program))
    return tuple(each for each in found if args.program in {"", each.program})


def _baseline(records: Sequence[Record], args: argparse.Namespace) -> tuple[Side, ...]:
    from nox_variants import lockfile  # noqa: PLC0415  # not for every comparison

    if not records:
        return ()
    found = lockfile.read(commands.settings(args).root, records[0].platform)
    return tuple(side for each in records if (side := found.side(each)))
