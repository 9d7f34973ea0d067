"""Subcommands of `nox-variants`: one module each, thin over functions that tests call."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from nox_variants.errors import UsageError
from nox_variants.options import ENGINES, IMAGES, Options, parse

if TYPE_CHECKING:
    import argparse

    from nox_variants.matrix import Expansion
    from nox_variants.model import Settings, Variant

DEFAULT_FILE = Path("variants.yaml")


def settings(args: argparse.Namespace) -> Settings:
    """Return the settings of the files that the command line names.

    Raises:
        ConfigError: A file is wrong.
    """
    from nox_variants import config  # noqa: PLC0415  # 100 ms that --help does without

    return config.load(*args.file or (DEFAULT_FILE,))


def add_engine_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that say what builds and runs a variant, and where images come from."""
    parser.add_argument(
        "--engine", choices=ENGINES, help="what builds and runs (NOX_VARIANTS_ENGINE)"
    )
    parser.add_argument(
        "--images",
        choices=IMAGES,
        help="the only source images may come from (NOX_VARIANTS_IMAGES)",
    )


def options(args: argparse.Namespace) -> Options:
    """Return how a variant is built and run, as the arguments and the environment say.

    Raises:
        UsageError: An environment variable is wrong.
    """
    given = []
    for name in ("engine", "images"):
        if value := getattr(args, name):
            given += [f"--{name}", value]
    parsed = parse(given, os.environ, prog="nox-variants")
    if isinstance(parsed, str):  # the help, which nobody asked for
        raise TypeError(parsed)
    return parsed


def find(expansion: Expansion, name: str) -> Variant:
    """Return the one variant that an id, or a glob, names.

    Raises:
        UsageError: There is none, a rule dropped it, or there are several.
    """
    from nox_variants import matrix  # noqa: PLC0415  # not for --help

    bare = re.sub(r"\s", "", name)
    for dropped in expansion.dropped:
        if dropped.id == bare:
            raise UsageError(
                f"{bare} is no variant: {dropped.rule.path} drops it ({dropped.rule})",
                hint="`nox-variants list` shows those that are left.",
            )
    found = matrix.select(expansion.variants, only=(bare,))
    if len(found) > 1:
        raise UsageError(
            f"{name!r} is {len(found)} variants: {', '.join(each.id for each in found)}",
            hint="Name one.",
        )
    return found[0]
