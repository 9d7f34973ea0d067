"""Write a first variants.yaml and noxfile.py for the sources found here."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nox_variants.commands import DEFAULT_FILE
from nox_variants.errors import UsageError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

NOXFILE = '''\
"""Sessions: nox -s matrix"""

import nox_variants

nox_variants.register("variants.yaml")
'''

_SUFFIXES = {
    "go": frozenset({".go"}),
    "rust": frozenset({".rs"}),
    "c++": frozenset({".cpp", ".cc", ".cxx"}),
    "c": frozenset({".c"}),
}
"""How sources are known, the first language that fits first."""

_RULES = {
    "c": """\
    link: [dynamic, static, musl]
    include:
      - {run: gcc, link: dynamic}  # single stage: what the others are compared with
    expect:  # dynamically linked with glibc, and there is none
      - {run: [alpine, scratch], link: dynamic, verdict: fails, cause: missing-loader}
""",
    "c++": """\
    link: [dynamic, static]
    include:
      - {run: gcc, link: dynamic}  # single stage: what the others are compared with
    expect:  # dynamically linked with glibc and libstdc++
      - {run: "busybox:glibc", link: dynamic, verdict: fails, cause: missing-library}
      - {run: [alpine, scratch], link: dynamic, verdict: fails, cause: missing-loader}
""",
    "go": """\
    link: [dynamic, static]
    include:
      - {run: golang, link: dynamic}  # single stage: what the others are compared with
""",
    "rust": """\
    link: [dynamic, static]
    include:
      - {run: rust, link: dynamic}  # single stage: what the others are compared with
    expect:  # dynamically linked with glibc and libgcc_s
      - {run: "busybox:glibc", link: dynamic, verdict: fails, cause: missing-library}
      - {run: [alpine, scratch], link: dynamic, verdict: fails, cause: missing-loader}
""",
}

_HEAD = """\
# What is built and run, and where: `nox -s matrix`, `nox -l`, `nox-variants list`.
version: 1

programs:
"""

_PROGRAM = """\
  {name}:
    language: {language}
    source: {source}
    run: [ubuntu, "busybox:glibc", alpine, scratch]
{rules}\
    smoke: {{timeout: 10s}}  # add what it prints: stdout: "Hello, world!\\n"
"""

_IGNORED = ".git\n.nox\n.venv\n__pycache__\nnoxfile.py\nvariants.yaml\n"
_NOT_LOOKED_AT = {"node_modules", "target", "build", "dist", "vendor", "__pycache__"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A folder with sources: the program it makes, its language, and the way to it."""

    name: str
    language: str
    source: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "program", nargs="?", metavar="PROGRAM", help="its name, where there is only one"
    )


def run(args: argparse.Namespace) -> int:
    """Write the files, and say what was written and what to do next."""
    if len(args.file) > 1:
        raise UsageError("--file: more than one file is given", hint="It writes one.")
    folder = Path.cwd()
    file = folder / (args.file[0] if args.file else DEFAULT_FILE)
    files = plan(folder, find(folder, args.program), file.name)
    if file.exists():
        raise UsageError(f"{file.name}: is there already", hint="`nox-variants list` shows it.")
    for name, text in files.items():
        path = folder / name
        if path.exists():
            _say(f"{name}: is there already, left as it is")
            if name == "noxfile.py":
                _say(f'  add to it: import nox_variants; nox_variants.register("{file.name}")')
            continue
        _write(path, text)
        print(f"wrote {name}")
    _say("next: nox -s matrix")
    return 0


def find(folder: Path, name: str | None) -> tuple[Found, ...]:
    """Return the programs whose sources are in a folder, or one or two levels below.

    Args:
        folder: Where to look.
        name: The name of the only program, or None for names of their folders.

    Raises:
        UsageError: There is none, or there are several for one name.
    """
    here = _language(folder)
    ways = {".": here} if here else _below(folder)
    if not ways:
        languages = ", ".join(_SUFFIXES)
        raise UsageError(
            f"{folder}: no sources of {languages} here, nor two levels below",
            hint="Run it in the folder of your sources, or above it.",
        )
    if name is None:
        return tuple(
            Found(name=_name((folder / way).resolve().name), language=language, source=way)
            for way, language in ways.items()
        )
    if len(ways) > 1:
        raise UsageError(
            f"{len(ways)} programs are here: {', '.join(ways)}", hint="Leave the name out."
        )
    ((way, language),) = ways.items()
    return (Found(name=_name(name), language=language, source=way),)


def plan(folder: Path, found: tuple[Found, ...], file: str) -> dict[str, str]:
    """Return the files to write: their texts by name."""
    programs = "\n".join(
        _PROGRAM.format(
            name=one.name, language=one.language, source=one.source, rules=_RULES[one.language]
        )
        for one in found
    )
    files = {file: _HEAD + programs, "noxfile.py": NOXFILE.replace("variants.yaml", file)}
    if any(one.source == "." for one in found) and not (folder / ".dockerignore").exists():
        files[".dockerignore"] = _IGNORED
    return files


def _below(folder: Path) -> Mapping[str, str]:
    ways = {}
    for way in sorted((*folder.glob("*/"), *folder.glob("*/*/"))):
        parts = way.relative_to(folder).parts
        if any(part.startswith(".") or part in _NOT_LOOKED_AT for part in parts):
            continue
        if way.is_dir() and not way.is_symlink() and (language := _language(way)):
            ways[way.relative_to(folder).as_posix()] = language
    return ways


def _language(folder: Path) -> str | None:
    try:
        suffixes = {path.suffix for path in folder.iterdir() if path.is_file()}
    except OSError:
        return None
    return next((name for name, mine in _SUFFIXES.items() if suffixes & mine), None)


def _name(text: str) -> str:
    """Return the nearest valid name of a program."""
    name = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "program"
    return f"{name}-program" if name == "matrix" else name


def _write(path: Path, text: str) -> None:
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise UsageError(f"{path.name}: cannot be written: {error.strerror}") from error


def _say(text: str) -> None:
    print(text, file=sys.stderr)
