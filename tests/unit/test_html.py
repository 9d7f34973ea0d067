"""The HTML page: what is on it, that nothing of it executes, and the form of its history."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import pagedata
from nox_variants.compare import Change, Difference, Moved, side
from nox_variants.limits import Level
from nox_variants.model import LinkMode, Verdict
from nox_variants.reports import changeview, factview, html, pageview, table
from nox_variants.results import Outcome, ServiceSeen, Sizes
from records import FULL, SKIPPED

VOID = {"meta", "link", "input", "br", "img"}


class Page(HTMLParser):
    """A page's elements: each with its name, attributes and the text in it."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[tuple[str, dict[str, str | None], list[str]]] = []
        self._open: list[int] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in {"dt", "dd", "td", "th", "h3", "pre", "summary"}:
            self.handle_data(" ")
        self.found.append((tag, dict(attrs), []))
        if tag not in VOID:
            self._open.append(len(self.found) - 1)

    def handle_endtag(self, tag: str) -> None:
        assert self.found[self._open.pop()][0] == tag

    def handle_data(self, data: str) -> None:
        for at in self._open:
            self.found[at][2].append(data)

    def texts(self, tag: str, **attributes: str) -> list[str]:
        """Return the texts of elements with some attributes, without superfluous blanks."""
        wanted = {name.rstrip("_"): value for name, value in attributes.items()}
        return [
            " ".join("".join(parts).split())
            for name, attrs, parts in self.found
            if name == tag and wanted.items() <= attrs.items()
        ]

    @property
    def data(self) -> dict[str, Any]:
        """The JSON that is in it."""
        (parts,) = [parts for tag, attrs, parts in self.found if attrs.get("id") == "data"]
        made: dict[str, Any] = json.loads("".join(parts))
        return made


@pytest.fixture(scope="module")
def example() -> Page:
    """The page of a project with some weeks of history."""
    return Page(html.page(*pagedata.shown(5), title="Examples & more"))


def test_heading(example: Page) -> None:
    """The heading says what was run, when, with what, and what came of it."""
    records, _, _ = pagedata.shown(5)
    text = " ".join(example.texts("body")[0].split())

    assert example.texts("h1") == ["Examples & more"]
    assert example.texts("h2", id="overview") == ["4 of 28 variants need attention"]
    assert example.texts("p", class_="summary") == [table.summary(records)]
    for said in (
        "29 September 2026, 04:00 UTC",
        "embedded 0.11.0",
        "linux/amd64",
        records[0].run_id,
        f"{records[0].git_commit}"[:12],
        "gcc: apt packages gcc libc6, not the image of that name",
    ):
        assert said in text


def test_matrix(example: Page) -> None:
    """Each program has a table: run images down, link modes across, a cell says what came of it."""
    records, _, _ = pagedata.shown(5)
    cells = [
        text
        for tag, attrs, parts in example.found
        if "data-entry" in attrs and tag == "a"
        for text in [" ".join("".join(parts).split())]
    ]

    assert len(cells) == len(records)
    assert "~xfailed 8.16 MB* missing-loader" in cells
    assert "✓passed 31.4 MB*" in cells
    assert example.texts("th", scope="col")[:5] == [
        "run image",
        "dynamic in gcc",
        "dynamic in alpine-gcc",
        "static in gcc",
        "musl in gcc",
    ]
    assert example.texts("h3")[1] == "web-go go, built in golang"


def test_columns_of_a_grid_stay_together() -> None:
    """Columns of one link mode are neighbours; what is not in the matrix is an empty cell."""
    records = [
        replace(FULL, run_image=run, link=link, build_image=build)
        for run, link, build in (
            ("a", LinkMode.STATIC, "gcc"),
            ("a", LinkMode.MUSL, "gcc"),
            ("b", LinkMode.STATIC, "other"),
        )
    ]
    (grid,) = pageview.grids(pageview.entries(records))

    assert [(each.link, each.build) for each in grid.columns] == [
        ("static", "gcc"),
        ("static", "other"),
        ("musl", "gcc"),
    ]
    assert [[len(cell) for cell in line.cells] for line in grid.lines] == [[1, 0, 1], [0, 1, 0]]


def test_table_of_all_variants(example: Page) -> None:
    """The table has the terminal's columns and texts, and those that were measured."""
    (text,) = example.texts("table", id="list")
    rows = table.rows(pagedata.shown(5)[0])
    first = "hello-c(ubuntu,dynamic) glibc-dynamic 17.4 kB 79.5 MB* 17.5x"

    assert text.startswith(f"{' '.join(html.COLUMNS)} {first} ")
    assert all(f" {row.variant} {row.linkage} {row.binary}".rstrip() in text for row in rows)


def test_unmeasured_columns_are_left_out() -> None:
    """Without transfer, start-up and memory there are no such columns."""
    heads = Page(html.page((FULL, SKIPPED), (), title="t")).texts("th", scope="col")

    assert {"content", "build", "outcome"} <= set(heads)
    assert not html.OPTIONAL & set(heads)


def test_all_facts_are_there(example: Page) -> None:
    """Of every variant, there is all that is known, with what it printed."""
    (text,) = [
        text
        for text in example.texts("details", class_="facts")
        if "web-go(scratch,static)" in text
    ]

    for said in (
        "verdict works",
        "content 8.15 MB (8,153,400 bytes)",
        "above the base",
        "transfer 3.34 MB",
        "compiler GCC: (Debian 12.2.0-14) 12.2.0",
        "peak memory",
        f"{pagedata.digest('golang False')}",
        "stdout Hello, world!",
        "exceeded (warn)",
        "kept",
    ):
        assert said in text


def test_facts_of_a_service() -> None:
    """What a server did is among the facts."""
    assert FULL.smoke is not None
    seen = ServiceSeen(listened=True, seconds=0.2, status=500, body="no", error="e", stopped=False)
    smoke = replace(FULL.smoke, service=seen, signal=9, timed_out=True, truncated=True)
    record = replace(FULL, smoke=smoke)
    (entry,) = pageview.entries([record])
    facts = dict(factview.facts(entry))["Smoke run"]

    assert dict(facts) == {
        "exit code": "3",
        "signal": "9",
        "timed out": "yes",
        "output": "cut off",
        "listened": "after 0.20 s",
        "status": "500",
        "error": "e",
        "stopped by SIGTERM": "no",
    }
    assert factview.outputs(record) == (("stdout", "Hëllo\n"), ("answer", "no"))


def test_what_is_wrong_comes_first() -> None:
    """Equal sentences are said once, the worst first; what just passed is not mentioned."""
    passed = replace(FULL, outcome=Outcome.PASSED, reason="", explanation="", cause=None)
    found = pageview.troubles(pageview.entries([passed, SKIPPED, replace(FULL, variant="b"), FULL]))

    assert [(each.outcome, each.text, len(each.entries)) for each in found] == [
        (Outcome.FAILED, "expected to work: ended with exit code 3, not 0.", 2),
        (Outcome.SKIPPED, "no source.", 1),
    ]


def test_soft_budgets_are_notes(example: Page) -> None:
    """A limit that only warns is said although the variant passed."""
    assert (
        "✓passed web-go(scratch,static) size is 8.15 MB, 53.4 kB (0.7%) more than the 8.1 MB"
        in (" ".join(example.texts("ul", class_="cards")))
    )


def test_checks_of_budgets_as_rows() -> None:
    """Bytes and seconds are written as such, and what was not measured is no result."""
    content, _, startup = pagedata._budget(9_000_000)

    assert factview.checked(content) == ("content", "limit", "9 MB", "10 MB", "kept")
    assert factview.checked(replace(startup, exceeded=True, level=Level.FAIL)) == (
        "startup",
        "limit",
        "4 ms",
        "20 ms",
        "exceeded (fail)",
    )
    assert factview.checked(replace(content, value=None))[2:] == ("not measured", "10 MB", "")


def test_changes() -> None:
    """What broke is said with what moved; what grew is together, and says where."""
    old = replace(FULL, verdict=Verdict.WORKS, cause=None)
    broke = Difference(
        variant="a",
        change=Change.BROKE,
        before=side(old),
        after=side(FULL),
        moved=(
            Moved(what="package libc6", before="1", after="2"),
            Moved(what="package new", before="", after="2"),
            Moved(what="image gcc", before="sha256:" + "1" * 64, after="sha256:" + "2" * 64),
            Moved(what="compiler", before="x", after="y"),
        ),
    )
    sized = replace(old, sizes=Sizes(binary=1, content=1_000_000, above_base=500_000))
    grown = [
        Difference(
            variant=name,
            change=Change.BIGGER,
            before=side(sized),
            after=side(replace(old, sizes=Sizes(binary=1, content=more, above_base=own))),
            moved=(Moved(what=f"image {name}", before="1", after="2"),),
        )
        for name, more, own in (("b", 1_100_000, 500_000), ("c", 1_300_000, 700_000))
    ]
    gone = Difference(variant="d", change=Change.VANISHED, before=side(FULL), after=None)
    lost = Difference(
        variant="e", change=Change.APPEARED, before=None, after=side(replace(FULL, verdict=None))
    )
    first, second, third, last = changeview.changes([broke, *grown, gone, lost])

    assert first.variants == (("a", "works → fails: exit-code"),)
    assert first.named == "image gcc, compiler, package libc6 and 1 more"
    assert first.moved == (
        "image gcc: sha256:111111111111… → sha256:222222222222…",
        "compiler: x → y",
        "package libc6: 1 → 2",
        "package new: none → 2",
    )
    assert second.variants == (
        ("b", "1 MB → 1.1 MB (+100 kB, +10.0%): base image +100 kB"),
        ("c", "1 MB → 1.3 MB (+300 kB, +30.0%): base image +100 kB, own layer +200 kB"),
    )
    assert second.moved == ("image b: 1 → 2", "image c: 1 → 2")
    assert (third.tone, third.variants) == ("bad", (("d", "fails: exit-code"),))
    assert (last.tone, last.variants) == ("new", (("e", "not found out"),))


def test_digests_that_begin_alike_are_shown_whole() -> None:
    """Two digests are never shown as one."""
    one, two = "sha256:" + "1" * 64, "sha256:" + "1" * 63 + "2"
    moved = (Moved(what="image a", before=one, after=two),)
    difference = Difference(
        variant="a", change=Change.BROKE, before=side(FULL), after=side(FULL), moved=moved
    )
    (changed,) = changeview.changes([difference])

    assert changed.moved == (f"image a: {one} → {two}",)


def test_times_as_people_write_them() -> None:
    """A time is shown in UTC, and what is none is shown as it is."""
    assert pageview.moment("2026-11-03T20:05:00.000Z") == "3 November 2026, 20:05 UTC"
    assert pageview.moment("2026-11-03T20:05:00+02:00") == "3 November 2026, 18:05 UTC"
    assert pageview.moment("soon") == "soon"


@pytest.mark.parametrize(
    ("records", "points", "said"),
    [
        ((), (), "There is nothing to show yet"),
        ((), pagedata.points(2, 2), "below is what earlier runs measured"),
        ((SKIPPED,), (), "All is as expected"),
    ],
)
def test_little_to_show(records: Any, points: Any, said: str) -> None:
    """Without records, and without history, the page says so."""
    page = Page(html.page(records, points, title="t"))

    assert said in page.texts("main")[0]
    assert bool(page.texts("section", id="history")) == bool(points)


# --- nothing executes -----------------------------------------------------------------------------


def test_hostile_text_is_text() -> None:
    """Whatever names, output and sentences say: the page has its own elements and no others."""
    made = html.page(*pagedata.hostile(), title=pagedata.HOSTILE[0])
    page = Page(made)
    handlers = [name for _, attrs, _ in page.found for name in attrs if name.startswith("on")]
    addresses = {
        attrs[name] for _, attrs, _ in page.found for name in ("href", "src") if name in attrs
    }

    assert [attrs for tag, attrs, _ in page.found if tag == "script"] == [
        {},
        {"type": "application/json", "id": "data"},
        {},
        {},
    ]
    assert (handlers, [tag for tag, *_ in page.found if tag in {"img", "iframe"}]) == ([], [])
    assert all(re.fullmatch(r"#[a-z][a-z0-9=-]*|data:,", f"{each}") for each in addresses)
    assert page.texts("h1") == page.texts("title") == [pagedata.HOSTILE[0]]
    assert "{{ 7*7 }}" in made
    assert not set("\x00\x1b\u202e\u2028") & set(made)


def test_hostile_text_stays_in_the_data() -> None:
    """The data is one element, and holds the texts as they were."""
    page = Page(html.page(*pagedata.hostile(), title="t"))
    names = [entry["variant"] for entry in page.data["entries"]]

    assert any(name.endswith("</script><script>window.pwned=1</script>") for name in names)
    assert set(names) == {name for name, *_ in page.data["variants"]}


@given(st.text())
def test_embedded_data_comes_back(text: str) -> None:
    """Any text is the same after JSON, and contains nothing that HTML would see."""
    made = html.embedded([text])

    assert json.loads(made) == [text]
    assert not set("<>&\u2028\u2029") & set(made)


def test_policy_names_each_script_and_style() -> None:
    """The page's policy allows its own scripts and styles by their hashes, and nothing else."""
    page = Page(html.page((FULL,), (), title="t"))
    (policy,) = [attrs["content"] for _, attrs, _ in page.found if "http-equiv" in attrs]

    def hashed(tag: str) -> str:
        texts = ["".join(parts) for name, attrs, parts in page.found if name == tag and not attrs]
        digests = [base64.b64encode(hashlib.sha256(text.encode()).digest()) for text in texts]
        return " ".join(f"'sha256-{each.decode()}'" for each in digests)

    assert policy == (
        f"default-src 'none'; script-src {hashed('script')}; style-src {hashed('style')};"
        " img-src data:; base-uri 'none'; form-action 'none'"
    )
    assert not any("style" in attrs for _, attrs, _ in page.found)


def test_assets_load_nothing() -> None:
    """No part of the page names an address that a browser would look up, nor ends its element."""
    for name in ("page.css", *html.SCRIPTS):
        text = html._asset(name)

        assert not re.search(r"sourceMappingURL|@import|url\(|\bimport\(|</script|<!--|\r", text)


def test_a_year_is_small() -> None:
    """73,000 points of 200 variants make a page of less than three megabytes."""
    records, points = pagedata.large()
    made = html.page(records, points, title="large")

    assert len(points) == 73_000
    assert len(made.encode()) < 3_000_000
