"""Text of others, where it goes."""

from __future__ import annotations

import re
from xml.etree import ElementTree as ET

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from nox_variants.reports.escaping import colon, escaped, for_xml, visible
from rendered import HOSTILE, links, rendered

MARKS = st.text(alphabet="aG1 |`*_<>@#[]()!\\~$&;:/.-+=^\"'\n\r\t\x00\x1b\u202e\u200b\u00a0wH")
ANY = st.text(st.characters(exclude_categories=())) | MARKS | st.sampled_from(HOSTILE)


@given(ANY)
@example("a\n\n- b")
def test_visible_is_one_printable_line(text: str) -> None:
    """Nothing in a line steers a terminal, and what can be seen stays."""
    line = visible(text)

    assert line == "" or line.isprintable()
    if text.isprintable():
        assert line == " ".join(text.split())


def test_what_cannot_be_seen_is_written_out() -> None:
    """Control characters, lone surrogates and marks of direction are shown as escapes."""
    assert visible("a\x1b[31m\u202e\udc80\x00 \n é") == r"a\x1b[31m\u202e\udc80\x00 é"


@given(ANY)
def test_escaped_text_is_rendered_as_it_was(text: str) -> None:
    """A paragraph of escaped text is that text, and nothing else."""
    found = rendered(escaped(text))

    assert found.texts == ((visible(text),) if visible(text) else ())
    assert found.kinds <= {"paragraph_open", "inline", "text", "paragraph_close"}
    assert links(escaped(text)) == []


@given(ANY, ANY, ANY)
def test_escaped_text_stays_in_its_cell(one: str, two: str, three: str) -> None:
    """Escaped texts in a table are its cells."""
    cells = f"| {escaped(one)} | {escaped(two)} |"
    found = rendered(f"{cells}\n| --- | --- |\n{cells}\n| {escaped(three)} | |\n")
    pair = (visible(one), visible(two))

    assert found.tables == ((pair, pair, (visible(three), "")),)
    assert found.html == ()


@given(ANY)
def test_escaped_text_in_html(text: str) -> None:
    """Escaped text is that text in an HTML element, too, where Markdown does not count."""
    element = ET.fromstring(f"<summary>{escaped(text)}</summary>")  # noqa: S314  # our own

    assert (element.text or "").replace("\u200b", "") == visible(text)
    assert len(element) == 0


@given(ANY)
def test_escaped_text_in_headings_and_lists(text: str) -> None:
    """Escaped text begins nothing of its own in a heading or in an item, and ends none."""
    found = rendered(f"## {escaped(text)}\n\n- {escaped(text)}\n  - x{escaped(text)}")
    shown = visible(text)

    assert [each for each in found.texts if each] == [each for each in (shown, shown) if each] + [
        f"x{shown}"
    ]


@pytest.mark.parametrize(
    ("text", "markdown"),
    [
        ("hello-c(busybox:glibc,dynamic+libs)", "hello-c(busybox:glibc,dynamic+libs)"),
        ("94.2 kB", "94.2 kB"),
        ("+534 kB", "+534 kB"),
        ("-> x", "-&#62; x"),
        ("1. x", "1&#46; x"),
        ("--", "&#45;-"),
        ("a|b", "a&#124;b"),
        ("@user", "@&#8203;user"),
        ("#12", "&#35;&#8203;12"),
        ("see GH-1", "see GH&#8203;-1"),
        ("https://x", "https:&#8203;//x"),
        ("www.x.y", "www&#8203;.x.y"),
    ],
)
def test_what_is_escaped(text: str, markdown: str) -> None:
    """Only what means something is escaped: names and sizes stay as they are."""
    assert escaped(text) == markdown


@pytest.mark.parametrize(
    ("text", "markdown"),
    [(":bug", ":bug&#8203;: "), (":a_b", ":a&#95;b&#8203;: "), ("x(a:b)", "x(a:b): "), ("", ": ")],
)
def test_colon(text: str, markdown: str) -> None:
    """A colon behind a text completes no emoji."""
    assert colon(escaped(text)) == markdown


@given(ANY)
def test_xml_holds_everything(text: str) -> None:
    """Text made for XML is well-formed in it, and what XML has is not touched."""
    element = ET.Element("x")
    element.text = for_xml(text)
    read = ET.fromstring(ET.tostring(element)).text or ""  # noqa: S314  # our own

    assert read == re.sub("\r\n?", "\n", for_xml(text))
    if not re.search("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", text):
        assert for_xml(text) == text


def test_what_xml_has_not() -> None:
    """What XML cannot hold is written out."""
    assert for_xml("a\x1b[0m\ufffe\udc80\tb\n") == "a\\x1b[0m\\ufffe\\udc80\tb\n"
