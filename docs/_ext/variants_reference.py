"""The reference, written by the code that it describes: schemas, catalogue, causes and ``--help``.

A page names a part in a comment of its own, ``<!-- generated: record -->``, and gets it as Markdown
when Sphinx reads the page. Nothing generated is kept in a file.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any

from nox_variants import cli, config, options, schemas
from nox_variants.model import Cause

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from sphinx.application import Sphinx

_PLACE = re.compile(r"^<!-- generated: (\S+) -->$", re.MULTILINE)
_ATTRIBUTE = re.compile(r"^ {4}(\w+): (.+(?:\n {8}.+)*)", re.MULTILINE)
_TYPES = {
    "string": "text",
    "boolean": "true or false",
    "integer": "whole number",
    "number": "number",
}
_MEBIBYTE = 1 << 20


def variants() -> str:
    """Return every key of ``variants.yaml``, form by form."""
    return _document("variants", "The file")


def record() -> str:
    """Return every field of a record."""
    return _document("record", "A record")


def lock() -> str:
    """Return every key of ``variants.lock``."""
    return _document("lock", "The file")


def languages() -> str:
    """Return how the catalogue's languages are built, by link mode."""
    rows = [
        (f"`{name}`", f"`{mode}`", f"`{recipe['build']}`", _commands(recipe["commands"]))
        for name, language in config.catalogue()["languages"].items()
        for mode, recipe in language["link"].items()
    ]
    return _table(("language", "link mode", "build image", "commands"), rows)


def images() -> str:
    """Return the catalogue's images: what is pulled, and what stands in where nothing can be."""
    rows = [
        (f"`{name}`", _reference(image.get("registry")), _stand_in(image.get("apt")))
        for name, image in config.catalogue()["images"].items()
    ]
    return _table(("image", "registry", "stand-in: Debian or Ubuntu packages"), rows)


def causes() -> str:
    """Return the causes, each a link to its entry."""
    return "\n".join(f"- [`{cause}`](../causes.md#{cause})" for cause in Cause) + "\n"


def commands() -> str:
    """Return the help of `nox-variants`, of its subcommands, and of the session `matrix`."""
    helps = {"nox-variants": _help()}
    helps |= {f"nox-variants {name}": _help(name) for name in cli.COMMANDS}
    helps["nox -s matrix"] = str(options.parse(["--help"], {}, prog="nox -s matrix --"))
    return "\n".join(
        f"## {name}\n\n```text\n{text.rstrip()}\n```\n" for name, text in helps.items()
    )


PARTS: Mapping[str, Callable[[], str]] = {
    part.__name__: part for part in (variants, record, lock, languages, images, causes, commands)
}
"""What a page can ask for, by name."""


def filled(text: str) -> str:
    """Return a page with its generated parts.

    Raises:
        KeyError: It asks for a part that there is not.
    """
    return _PLACE.sub(lambda match: PARTS[match[1]](), text)


def setup(app: Sphinx) -> dict[str, bool]:
    """Fill pages when they are read; read those that have such parts at every build."""
    app.connect("source-read", _read)
    app.connect("env-get-outdated", _outdated)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _read(_app: Sphinx, _page: str, source: list[str]) -> None:
    source[0] = filled(source[0])


def _outdated(app: Sphinx, *_: object) -> list[str]:
    docs = app.env.found_docs
    return [page for page in docs if _PLACE.search(app.env.doc2path(page).read_text("utf-8"))]


# --- schemas ------------------------------------------------------------------------------------


def _document(name: str, title: str) -> str:
    """Return a schema: its root, and the forms that are used, those of the first keys first."""
    file = resources.files("nox_variants.schemas") / schemas.FILES[name]
    root = json.loads(file.read_text("utf-8"))
    forms = root.pop("$defs", {})
    used: dict[str, None] = {}

    def follow(schema: object) -> None:
        for form in _references(schema):
            if form not in used:
                used[form] = None
                follow(forms[form])

    follow(root)
    writer = _Writer(schema=name)
    sections = [writer.section("file", title, root)]
    sections += [writer.section(form, _heading(form), forms[form]) for form in used]
    return "\n".join(sections)


def _references(schema: object) -> Iterator[str]:
    if isinstance(schema, dict):
        if "$ref" in schema:
            yield _form(schema["$ref"])
        for value in schema.values():
            yield from _references(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from _references(value)


def _form(reference: str) -> str:
    return reference.rpartition("/")[2]


def _heading(form: str) -> str:
    """Return a form's name as words: ``Engine used`` of EngineUsed, ``File`` of FileForm."""
    return re.sub(r"(?<=[a-z])[A-Z]", lambda m: f" {m[0].lower()}", form.removesuffix("Form"))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Writer:
    """Writes the forms of one schema, whose headings are distinct from another's.

    Attributes:
        schema: The schema's name.
    """

    schema: str

    def section(self, form: str, title: str, schema: Mapping[str, Any]) -> str:
        """Return a form under its heading: what it is, its short way to write, its keys."""
        several = schema.get("anyOf", [])
        long = next((each for each in several if "properties" in each), schema)
        about, _, attributes = long.get("description", "").partition("\n\nAttributes:\n")
        said = dict(_ATTRIBUTE.findall(attributes))
        parts = [f"({self._label(form)})=\n## {title}", _plain(about)]
        if several:
            short = [each for each in several if each is not long]
            parts.append(f"A short way to write it: {self._kind({'anyOf': short})}.")
        if "enum" in long:
            parts.append(f"One of {self._kind(long)}.")
        required = long.get("required", ())
        for name, field in long.get("properties", {}).items():
            fact = "required" if name in required else _default(field)
            words = _plain(field.get("description") or said.get(name, ""))
            parts.append(f"`{name}`\n: {self._kind(field)}; {fact}\n\n  {words}".rstrip())
        return "\n\n".join(filter(None, parts)) + "\n"

    def _label(self, form: str) -> str:
        return f"{self.schema}-{form}".lower()

    def _kind(self, schema: Mapping[str, Any]) -> str:
        """Return what a value has to be, in words."""
        match schema:
            case {"$ref": reference}:
                form = _form(reference)
                words = f"[{_heading(form).lower()}](#{self._label(form)})"
            case {"anyOf": list(several)}:
                words = " or ".join(self._kind(each) for each in several)
            case {"enum": list(values)}:
                words = ", ".join(f"`{value}`" for value in values)
            case {"const": value}:
                words = f"`{value}`"
            case {"type": "array", "items": items}:
                words = f"list of {self._kind(items)}"
            case {"type": "object", "additionalProperties": values}:
                words = f"mapping of names to {self._kind(values)}"
            case _:
                words = _scalar(schema)
        return words


def _scalar(schema: Mapping[str, Any]) -> str:
    names = schema["type"]
    words = " or ".join(_TYPES.get(each, each) for each in _listed(names))
    match schema:
        case {"minimum": least, "maximum": most}:
            return f"{words} from {least} to {most}"
        case {"examples": examples}:
            return f"{words} ({', '.join(f'`{each}`' for each in examples)})"
        case _:
            return words


def _default(field: Mapping[str, Any]) -> str:
    """Return what a key that is left out stands for; a form says that of its own keys."""
    match field.get("default"):
        case None:
            return "optional"
        case [] | {} | "":
            words = "empty"
        case dict():
            return "optional"
        case list(values):
            words = ", ".join(f"`{value}`" for value in values)
        case bool(value):
            words = f"`{str(value).lower()}`"
        case int(number) if number and not number % _MEBIBYTE:
            words = f"`{number // _MEBIBYTE}MiB`"
        case float(number):
            words = f"`{number:g}`"
        case value:
            words = f"`{value}`"
    return f"default: {words}"


def _plain(text: str) -> str:
    """Return a docstring's or a field's words as one paragraph of Markdown."""
    return " ".join(text.replace("``", "`").split())


# --- catalogue and commands ---------------------------------------------------------------------


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _commands(value: str | Sequence[str]) -> str:
    return "<br>".join(f"`{command}`" for command in _listed(value))


def _reference(registry: str | Mapping[str, Any] | None) -> str:
    match registry:
        case None:
            return "none"
        case str(reference):
            return f"`{reference}`"
        case _:
            setup = ["then " + _commands(registry["setup"])] if registry.get("setup") else []
            return ", ".join([f"`{registry['reference']}`", *setup])


def _stand_in(apt: str | Sequence[str] | Mapping[str, Any] | None) -> str:
    match apt:
        case None:
            return "none"
        case {"unavailable": str(reason)}:
            return f"none: {reason}"
        case {"packages": packages}:
            return _stand_in(packages)
        case _:
            return " ".join(f"`{name}`" for name in _listed(apt))


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table; a bar inside a cell is escaped, as GitHub's Markdown has it."""
    lines = [
        head,
        ["---"] * len(head),
        *([cell.replace("|", r"\|") for cell in row] for row in rows),
    ]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _help(*command: str) -> str:
    with contextlib.redirect_stdout(io.StringIO()) as output, contextlib.suppress(SystemExit):
        cli.main([*command, "--help"])
    return output.getvalue()
