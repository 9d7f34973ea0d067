"""The documentation's generated parts: nothing of the code is missing in them."""

from __future__ import annotations

import json
from importlib import resources
from typing import Any

import pytest

import measured
import variants_reference
from nox_variants import cli, config
from nox_variants.model import Cause
from nox_variants.schemas import FILES
from pages import unlike
from records import FULL, SKIPPED


def forms(name: str) -> dict[str, dict[str, Any]]:
    """Return a schema's forms by name, the root as an empty one."""
    text = (resources.files("nox_variants.schemas") / FILES[name]).read_text("utf-8")
    root = json.loads(text)
    return {"": root, **root["$defs"]}


@pytest.mark.parametrize("name", FILES)
def test_every_key_is_there(name: str) -> None:
    """Every form has a section, and every key an entry with its type and its words in it."""
    sections = variants_reference.PARTS[name]().split(f"({name}-")[1:]
    by_form = {section.partition(")=")[0]: section for section in sections}

    for form, schema in forms(name).items():
        section = by_form[form.lower() or "file"]
        for part in (schema, *schema.get("anyOf", ())):
            for key, field in part.get("properties", {}).items():
                assert f"\n`{key}`\n: " in section
                assert field.get("description", "").split("``")[0] in section
            for value in part.get("enum", ()):
                assert f"`{value}`" in section


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "boolean", "default": False}, "true or false; default: `false`"),
        ({"type": "integer", "minimum": 1, "maximum": 9}, "whole number from 1 to 9; optional"),
        (
            {"type": ["string", "integer"], "examples": ["64MB"], "default": 1 << 29},
            "text or whole number (`64MB`); default: `512MiB`",
        ),
        ({"type": ["string", "number"], "default": 10.0}, "text or number; default: `10`"),
        (
            {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None},
            "text or null; optional",
        ),
        (
            {"type": "array", "items": {"$ref": "#/$defs/FileForm"}, "default": []},
            "list of [file](#variants-fileform); default: empty",
        ),
        (
            {"type": "object", "additionalProperties": {"type": "string"}, "default": {}},
            "mapping of names to text; default: empty",
        ),
        ({"enum": ["a", "b"], "default": "a"}, "`a`, `b`; default: `a`"),
        ({"const": 1, "default": 0}, "`1`; default: `0`"),
    ],
)
def test_types_in_words(schema: dict[str, Any], words: str) -> None:
    """A type and its default are said as a reader of YAML knows them."""
    writer = variants_reference._Writer(schema="variants")

    section = writer.section("Form", "A form", {"properties": {"key": schema}})

    assert section == f"(variants-form)=\n## A form\n\n`key`\n: {words}\n"


def test_every_cause_is_linked() -> None:
    """The list of causes leads to each entry."""
    part = variants_reference.causes()

    assert [f"- [`{cause}`](../causes.md#{cause})" for cause in Cause] == part.splitlines()


@pytest.mark.parametrize("section", ["images", "languages"])
def test_the_whole_catalogue_is_there(section: str) -> None:
    """Each image has its references and packages; each language its build images."""
    part = variants_reference.PARTS[section]()

    for name, entry in config.catalogue()[section].items():
        row = next(line for line in part.splitlines() if line.startswith(f"| `{name}` |"))
        assert row.count(" | ") == part.splitlines()[0].count(" | ")
        match entry:
            case {"apt": {"unavailable": reason}}:
                assert reason in row
            case {"registry": str(reference)}:
                assert f"`{reference}`" in row
            case {"link": modes}:
                assert any(f"`{recipe['build']}`" in row for recipe in modes.values())
            case _:
                assert row


def test_every_command_is_there() -> None:
    """Each subcommand's help is shown, and the session's."""
    part = variants_reference.commands()

    for name in cli.COMMANDS:
        assert f"\n## nox-variants {name}\n\n```text\nusage: nox-variants {name} " in part
    assert "```text\nusage: nox -s matrix -- " in part


def test_pages_get_their_parts() -> None:
    """A part stands where the page names it; an unknown one is an error."""
    page = "# Causes\n\n<!-- generated: causes -->\n\nMore.\n"

    assert variants_reference.filled(page) == (
        f"# Causes\n\n{variants_reference.causes()}\n\nMore.\n"
    )
    with pytest.raises(KeyError):
        variants_reference.filled("<!-- generated: nothing -->")


def test_measured_figures() -> None:
    """The block says when and with what, has a row for each record, and names the stand-ins."""
    page = "Before.\n<!-- measured -->\nold\n<!-- /measured -->\nAfter.\n"

    made = measured.filled(page, [FULL, SKIPPED])

    assert "old" not in made
    assert made.startswith(
        "Before.\n<!-- measured -->\n\nMeasured on 2026-11-23 by nox-variants 0.1.0"
    )
    assert "| `hello-c(scratch,static)` | static | 767 kB | 767 kB\\* |" in made
    assert "- gcc: apt packages gcc libc6-dev, not the image of that name" in made
    assert "- `hello-rust(scratch,musl)`: no source" in made
    assert made.endswith("\n<!-- /measured -->\nAfter.\n")
    assert measured.filled(made, [FULL, SKIPPED]) == made
    with pytest.raises(ValueError, match="this one 0"):
        measured.filled("no block", [FULL])


@pytest.mark.parametrize(
    ("shown", "printed", "missed"),
    [
        ("a", "a", ""),
        ("a", "a\nb", "no end after 'a'"),
        ("a\n...", "a\nb", ""),
        ("...\nb", "a\nb", ""),
        ("b", "a\nb", "b"),
        ("a\nc", "a\nb\nc", "c"),
        ("a\n...\nc", "a\nb\nc", ""),
        ("a ... c", "a b c", ""),
        ("a ... d", "a b c", "a ... d"),
        ("16 kB  works", "1.7 MB   works", ""),
        ("16 kB  works", "1.7 MB   fails", "16 kB  works"),
        ("12 ms 101x", "cached 17,100x", ""),
        (
            "nox > Session matrix was successful.",
            "nox > Session matrix was successful in 2 seconds.",
            "",
        ),
        (
            "nox > Session matrix aborted: 1 variant: 1 failed.",
            "nox > Session matrix aborted: 1 variant: 1 failed (took a minute).",
            "",
        ),
        ("exit code 3", "exit code 4", "exit code 3"),
        ("a", "", "a"),
        ("", "whatever", ""),
    ],
)
def test_what_counts_as_shown(shown: str, printed: str, missed: str) -> None:
    """Pages are held to every word and every line; figures may be others."""
    assert unlike(tuple(shown.splitlines()), printed) == missed
