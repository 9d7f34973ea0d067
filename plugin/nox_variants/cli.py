"""The `nox-variants` command: one subcommand, one module under `commands/`."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import nox_variants
from nox_variants.errors import VariantsError

if TYPE_CHECKING:
    from collections.abc import Sequence

COMMANDS = (
    *("init", "list", "explain", "export", "report", "merge", "ci", "publish"),
    *("debug", "doctor", "clean", "schema"),
)
"""Subcommands in the order of the help; each is ``nox_variants.commands.NAME``."""

_RUNNING = ("debug",)
"""Those that take a command of the user's own behind ``--``."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a subcommand.

    Returns:
        0, what the subcommand returns, 2 for a mistake that was explained, or 130 after Ctrl-C.
    """
    parser = _parser()
    own, command = _split(sys.argv[1:] if arguments is None else arguments)
    namespace = parser.parse_args(own, argparse.Namespace(command=command))
    try:
        status = namespace.run(namespace)
        sys.stdout.flush()
    except VariantsError as error:
        print(f"nox-variants: {error}" if _one_line(error) else error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("nox-variants: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return int(status)


def _split(words: Sequence[str]) -> tuple[Sequence[str], tuple[str, ...]]:
    """Return what is ours, and the command behind ``--`` of a subcommand that runs one.

    With options before it, argparse does not take it for what it is.
    """
    if "--" not in words or words[0] not in _RUNNING:
        return words, ()
    at = words.index("--")
    return words[:at], tuple(words[at + 1 :])


def _one_line(error: VariantsError) -> bool:
    return "\n" not in str(error)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="nox-variants",
        description="The smallest image your program really runs in, and why not that one.",
        epilog="The matrix itself is run by Nox: nox -s matrix -- --help",
    )
    parser.add_argument("--version", action="version", version=nox_variants.__version__)
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND", title="commands")
    for name in COMMANDS:
        module = importlib.import_module(f"nox_variants.commands.{name}")
        help_text = (module.__doc__ or "").strip().splitlines()[0]
        subparser = subparsers.add_parser(name, help=help_text, description=help_text)
        subparser.add_argument(
            "--file",
            action="append",
            type=Path,
            default=[],
            metavar="FILE",
            help="a configuration file, repeatable (default: variants.yaml)",
        )
        module.add_arguments(subparser)
        subparser.set_defaults(run=module.run)
    return parser
