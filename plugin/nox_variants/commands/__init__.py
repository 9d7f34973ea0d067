"""Subcommands of `nox-variants`: one module each, thin over functions that tests call."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from nox_variants.errors import UsageError

if TYPE_CHECKING:
    import argparse

    from nox_variants.model import Settings

DEFAULT_FILE = Path("variants.yaml")


def settings(args: argparse.Namespace) -> Settings:
    """Return the settings of the file that the command line names.

    Raises:
        ConfigError: The file is wrong.
        UsageError: More than one file is named.
    """
    from nox_variants import config  # noqa: PLC0415  # 100 ms that --help does without

    if len(args.file) > 1:
        raise UsageError("--file: more than one file is given", hint="Name one file at a time.")
    return config.load(*args.file or (DEFAULT_FILE,))
