"""Print the JSON Schema of variants.yaml or of a record."""

from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING

from nox_variants.schemas import FILES

if TYPE_CHECKING:
    import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "what",
        nargs="?",
        choices=tuple(FILES),
        default="variants",
        help="what the schema describes (default: %(default)s)",
    )


def run(args: argparse.Namespace) -> int:
    """Print a schema that the package ships."""
    file = resources.files("nox_variants.schemas") / FILES[args.what]
    print(file.read_text("utf-8"), end="")
    return 0
