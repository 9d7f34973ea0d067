"""Records, their history and what changed to one HTML page that loads nothing else. Pure.

Program output, names and sentences are untrusted: jinja2 escapes all of it, and a content security
policy runs no script but the page's own (by their hashes).
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections import Counter
from functools import partial
from importlib import resources
from typing import TYPE_CHECKING, Any

from nox_variants.reports import changeview, factview, packed, pageview, table
from nox_variants.reports.escaping import clean as written_out
from nox_variants.results import Outcome

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from jinja2 import Template

    from nox_variants.compare import Difference
    from nox_variants.record import Record
    from nox_variants.reports.pageview import Entry
    from nox_variants.trend import Point

COLUMNS = (
    *("variant", "linkage", "binary", "content", "factor", "transfer", "build", "smoke"),
    *("startup", "memory", "verdict", "cause", "outcome"),
)
"""Columns of the table; `transfer`, `startup` and `memory` where they were measured."""

OPTIONAL = {"transfer", "startup", "memory"}
NUMBERS = frozenset(COLUMNS[2:10])

SYMBOLS = {
    Outcome.PASSED: "✓",
    Outcome.FAILED: "✗",
    Outcome.XFAILED: "~",
    Outcome.XPASSED: "?",
    Outcome.ERROR: "!",
    Outcome.SKIPPED: "○",
}
"""What says an outcome besides its colour and its word."""

SCRIPTS = ("page.js", "chart.umd.min.js", "charts.js")
"""The first one is in the page's head: it knows the theme before anything is drawn."""

clean = partial(written_out, keep="\n\t")
"""Nothing on the page is invisible, or turns what follows it around."""

_UNSAFE = {ord(c): f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029"}


def page(
    records: Sequence[Record],
    points: Sequence[Point],
    differences: Sequence[Difference] = (),
    *,
    title: str,
) -> str:
    """Return the page of one run.

    Args:
        records: The run that is shown, in the order of the file.
        points: The history of all variants, this run included.
        differences: Against the baseline or an earlier run.
        title: The page's heading.
    """
    shown = pageview.entries(records)
    styles, scripts = _asset("page.css"), tuple(map(_asset, SCRIPTS))
    return _template().render(
        title=title,
        policy=_policy(styles, scripts),
        styles=styles,
        scripts=scripts,
        data=embedded({"entries": [_values(each) for each in shown], **packed.pack(points, clean)}),
        entries=shown,
        numbers={each.record.variant: each.number for each in shown},
        grids=pageview.grids(shown),
        troubles=pageview.troubles(shown),
        changes=changeview.changes(differences),
        columns=_columns(shown),
        history=bool(points),
        summary=table.summary(records),
        stand_ins=table.stand_ins(records),
        counts=Counter(record.outcome for record in records),
        **_choices(records),
    )


def _choices(records: Sequence[Record]) -> dict[str, tuple[str, ...]]:
    """Return what there is of each that a heading names, or that can be chosen."""

    def each(values: Iterable[str | None]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(filter(None, values)))

    return {
        "run_ids": each(record.run_id for record in records),
        "started": tuple(sorted(each(record.started_at for record in records))[:1]),
        "engines": each(
            f"{record.engine.name} {record.engine.version}" for record in records if record.engine
        ),
        "platforms": each(record.platform for record in records),
        "commits": each((record.git_commit or "")[:12] for record in records),
        "tools": each(record.tools.get("nox_variants") for record in records),
        "programs": each(record.program for record in records),
        "runs": each(record.run_image for record in records),
        "links": each(record.linking for record in records),
    }


def _columns(shown: Iterable[Entry]) -> tuple[str, ...]:
    """Return the table's columns: those that may be empty where something was measured."""
    had = {name for each in shown for name, value in each.orders.items() if value is not None}
    return tuple(name for name in COLUMNS if name not in OPTIONAL or name in had)


def _values(entry: Entry) -> dict[str, object]:
    """Return what filters and charts need of a variant."""
    record, row = entry.record, entry.row
    texts = {
        "variant": record.variant,
        "short": entry.short,
        "program": record.program,
        "run": record.run_image,
        "link": record.linking,
        "outcome": record.outcome.value,
        "cause": row.cause,
        "note": entry.note,
        "text": pageview.searched(entry),
        "shown": row.content,
        "factor": row.factor,
    }
    return {
        **{name: clean(text) for name, text in texts.items()},
        "content": record.sizes.content if record.sizes else None,
        "baseline": entry.baseline,
    }


def embedded(values: object) -> str:
    """Return JSON for a script element: nothing in it ends the element or starts another."""
    return json.dumps(values, separators=(",", ":"), allow_nan=False).translate(_UNSAFE)


def _policy(styles: str, scripts: Iterable[str]) -> str:
    hashes = " ".join(map(_hash, scripts))
    return (
        f"default-src 'none'; script-src {hashes}; style-src {_hash(styles)}; img-src data:;"
        " base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    """Return a source expression for an inline element (CSP, 2.3.1)."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _asset(name: str) -> str:
    folder = resources.files("nox_variants.reports") / "page"
    return (folder / name).read_text(encoding="utf-8")


def _template() -> Template:
    from jinja2 import Environment, PackageLoader, StrictUndefined  # noqa: PLC0415  # for pages
    from markupsafe import Markup  # noqa: PLC0415  # likewise

    def shown(value: Any) -> Any:
        return clean(value) if isinstance(value, str) and not isinstance(value, Markup) else value

    environment = Environment(
        loader=PackageLoader("nox_variants.reports", "page"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "trusted": Markup,  # styles, scripts and data of this module, and nothing else
        "symbol": SYMBOLS.__getitem__,
        "moment": pageview.moment,
        "facts": factview.facts,
        "outputs": factview.outputs,
        "checked": factview.checked,
    }
    environment.globals |= {"outcomes": tuple(Outcome), "numeric": NUMBERS}
    return environment.get_template("page.html.jinja")
