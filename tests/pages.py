"""The pages of the documentation: what they show of files, commands and output.

A page is a scenario. Its blocks count in their order: one with a caption is a file, which is
written where the reader is; each line of a ``console`` block that begins with ``$`` is a command,
and the lines after it are what it prints. A block of class ``fails`` ends with a command that
fails; one of class ``not-run`` is only shown.
"""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from functools import cache
from itertools import count
from typing import TYPE_CHECKING

from markdown_it import MarkdownIt

from projects import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DOCS = REPOSITORY / "docs"
PAGES = tuple(
    sorted(
        path.relative_to(DOCS).as_posix()
        for path in DOCS.rglob("*.md")
        if "_build" not in path.parts
    )
)
"""All pages, by their paths."""

_KIND = re.compile(r"(?:\{code-block\}\s+)?(\w*)")
_OPTION = re.compile(r":(\w+):[ ]?(.*)\n")
_MARK = "--- page command"
_ANYTHING = "..."
_FIGURES = {
    "SIZE": r"\d[\d.,]* ?(?:B|kB|MB|GB)\b",
    "TIME": r"(?:\d[\d.,]* m?s|cached)\b",
    "FACTOR": r"\d[\d.,]*x(?!\w)",
}
"""What differs from machine to machine, and from day to day."""

_TOOK = re.compile(r"(?<=^nox > Session )(.*?)(?: in [\w ]+| \(took [\w ]+\))\.$")
"""Nox says how long a session took, if that was a second or more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A literal block of a page.

    Attributes:
        line: Where it begins, from 1.
        kind: Its language: ``console``, ``yaml``.
        file: The file that it is, or empty.
        classes: Its classes.
        text: What it shows.
    """

    line: int
    kind: str
    file: str
    classes: frozenset[str]
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A command of a page.

    Attributes:
        line: Where it stands.
        text: What the shell gets.
        shown: What the page shows of its output.
        fails: Whether it is shown to fail.
    """

    line: int
    text: str
    shown: tuple[str, ...]
    fails: bool = False


@cache
def blocks(page: str) -> tuple[Block, ...]:
    """Return a page's literal blocks."""
    found = []
    for token in MarkdownIt().parse((DOCS / page).read_text(encoding="utf-8")):
        if token.type == "fence" and (kind := _KIND.fullmatch(token.info.strip())):
            text, options = token.content, {}
            while token.info.startswith("{") and (option := _OPTION.match(text)):
                options[option[1]] = option[2]
                text = text[option.end() :]
            found.append(
                Block(
                    line=(token.map or [0])[0] + 1,
                    kind=kind[1],
                    file=options.get("caption", ""),
                    classes=frozenset(options.get("class", "").split()),
                    text=text.removeprefix("\n") if options else text,
                )
            )
    return tuple(found)


def commands(block: Block) -> Iterator[Command]:
    """Yield the commands of a console block."""
    lines = block.text.splitlines()
    starts = [at for at, line in enumerate(lines) if line.startswith("$ ")]
    for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
        yield Command(
            line=block.line + start + 1,
            text=lines[start][2:],
            shown=tuple(lines[start + 1 : end]),
            fails="fails" in block.classes and start == starts[-1],
        )


def play(page: str, folder: Path, environ: dict[str, str]) -> Iterator[tuple[Command, int, str]]:
    """Do what a page says, in one shell, and yield what became of each command.

    Args:
        page: The page.
        folder: Where its reader begins.
        environ: The environment.

    Yields:
        The command, its exit code and what it printed.
    """
    done, script, files = [], [], folder.with_name(f"{folder.name}-files")
    files.mkdir()
    numbers = count()
    for block in blocks(page):
        if block.file:
            kept = files / str(next(numbers))
            kept.write_text(block.text, encoding="utf-8")
            script.append(f"mkdir -p \"$(dirname '{block.file}')\" && cp '{kept}' '{block.file}'")
        elif block.kind == "console" and "not-run" not in block.classes:
            for command in commands(block):
                done.append(command)
                script += [command.text, f'printf "\\n{_MARK} %s\\n" $?']
    (files / "script").write_text("\n".join(script), encoding="utf-8")
    ended = subprocess.run(
        ["bash", files / "script"],
        cwd=folder,
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    outputs = re.split(rf"\n{_MARK} (\d+)\n", ended.stdout)
    assert len(outputs) == 2 * len(done) + 1, ended.stdout
    for command, output, status in zip(done, outputs[::2], outputs[1::2], strict=False):
        yield command, int(status), output


def unlike(shown: tuple[str, ...], output: str) -> str:
    """Return the first line that a page shows and that is not printed there; empty when all are.

    Lines follow one another as shown. ``...`` stands for any number of lines, or for anything in a
    line; sizes, times and factors for any other; spaces for any number of them.
    """
    printed = [_settled(line) for line in output.strip("\n").splitlines()]
    at, anywhere = 0, False
    for line in shown:
        if line.strip() == _ANYTHING:
            anywhere = True
            continue
        parts = _settled(line).split(_ANYTHING)
        pattern = re.compile(".*".join(map(re.escape, parts)))
        rest = range(at, len(printed) if anywhere else min(at + 1, len(printed)))
        found = next((each for each in rest if pattern.fullmatch(printed[each])), None)
        if found is None:
            return line
        at, anywhere = found + 1, False
    return "" if anywhere or not shown or at == len(printed) else f"no end after {shown[-1]!r}"


def _settled(line: str) -> str:
    """Return a line without what may differ."""
    line = _TOOK.sub(r"\1.", line)
    for name, figure in _FIGURES.items():
        line = re.sub(rf"(?<![\w.]){figure}", name, line)
    return " ".join(line.split())
