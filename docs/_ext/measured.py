"""Write measured figures into a page: python docs/_ext/measured.py RECORDS PAGE.

RECORDS is a file of ``nox -s matrix -- --json RECORDS``. In the page, what stands between
``<!-- measured -->`` and ``<!-- /measured -->`` is replaced.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from nox_variants.record import Record, from_json
from nox_variants.reports import table

if TYPE_CHECKING:
    from collections.abc import Sequence

COLUMNS = ("variant", "linkage", "binary", "content", "factor", "verdict", "cause", "outcome")
ARTICLES = {
    "hello-c(gcc,dynamic)": "1.14 GB",
    "hello-c(ubuntu,dynamic)": "64.2 MB",
    "hello-c(alpine,static)": "6.5 MB",
    "hello-c(alpine,dynamic,alpine-gcc)": "5.6 MB",
    "hello-c(scratch,static)": "940 kB",
    "hello-c(scratch,musl)": "94 kB",
    "hello-go(golang,dynamic)": "805 MB",
    "hello-go(ubuntu,dynamic)": "66.2 MB",
    "hello-go(alpine,dynamic,golang:alpine)": "7.6 MB",
    "hello-go(scratch,dynamic)": "2 MB",
    "hello-java(jdk,dynamic)": "643 MB",
    "hello-java-jlink(ubuntu,dynamic)": "106 MB",
    "hello-java-jlink(alpine,dynamic,jdk:alpine)": "47 MB",
    "pyds(python,dynamic)": "1.26 GB",
    "pyds(python:slim,dynamic,python:slim)": "407 MB",
    "pyds(python:alpine-build,dynamic,python:alpine-build)": "523 MB",
    "pyds(python:alpine,dynamic,python:alpine-build)": "517 MB",
    "whatsmyip(golang,dynamic)": "810 MB",
    "whatsmyip(ubuntu,dynamic)": "71.2 MB",
    "whatsmyip(alpine,dynamic,golang:alpine)": "12.6 MB",
    "whatsmyip(busybox:glibc,dynamic)": "12.2 MB",
    "whatsmyip(scratch,static)": "7 MB",
}
"""What the articles said of a variant of examples/series in 2020: the size of its image."""

_NUMBERS = {"binary", "content", "factor", "in 2020"}
_BLOCK = re.compile(r"(<!-- measured -->\n).*?(<!-- /measured -->)", re.DOTALL)


def block(records: Sequence[Record]) -> str:
    """Return what was measured as Markdown: when and with what, the table, and the stand-ins."""
    first = records[0]
    engines = {f"{each.engine.name} {each.engine.version}" for each in records if each.engine}
    said = (
        f"Measured on {first.started_at[:10]} by nox-variants {first.tools['nox_variants']} with"
        f" the engine {', '.join(sorted(engines))} on {first.platform}: {table.summary(records)}."
    )
    parts = [said, _rows(records)]
    if notes := table.stand_ins(records):
        parts += ["`*`: made with stand-ins.", "\n".join(f"- {note}" for note in notes)]
    skipped = [(ids, text) for outcome, text, ids in table.notes(records) if outcome == "skipped"]
    if skipped:
        lines = (f"- {', '.join(f'`{one}`' for one in ids)}: {text}" for ids, text in skipped)
        parts += ["Skipped:", "\n".join(lines)]
    return "\n\n".join(parts) + "\n"


def filled(page: str, records: Sequence[Record]) -> str:
    """Return a page with the figures in its block.

    Raises:
        ValueError: It has no such block, or several.
    """
    made, count = _BLOCK.subn(lambda match: f"{match[1]}\n{block(records)}\n{match[2]}", page)
    if count != 1:
        raise ValueError(f"a page has one block of measured figures, this one {count}")
    return made


def _rows(records: Sequence[Record]) -> str:
    heads = [*COLUMNS, "in 2020"]
    lines: list[Sequence[str]] = [heads, ["--:" if name in _NUMBERS else "---" for name in heads]]
    lines += [
        [
            f"`{row.variant}`",
            *(str(getattr(row, name)) for name in COLUMNS[1:]),
            ARTICLES.get(row.variant, ""),
        ]
        for row in table.rows(records)
    ]
    return "\n".join(f"| {' | '.join(cells).replace('*', chr(92) + '*')} |" for cells in lines)


def main(records: str, page: str) -> None:
    """Fill a page's block."""
    values = json.loads(Path(records).read_text(encoding="utf-8"))["records"]
    file = Path(page)
    text = filled(file.read_text(encoding="utf-8"), [from_json(value) for value in values])
    file.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
