"""Remove what ended runs left; with options, what was not used for long, or is too much."""

from __future__ import annotations

import argparse
import os
import re
import time

_AGE = re.compile(r"(\d+(?:\.\d+)?)\s*([smhdw])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "--keep",
        type=size,
        metavar="SIZE",
        help="remove the store's images, builds, caches and downloads, those that were not used"
        " for the longest time first, until no more than that is there: 5GB, 500MiB, 0",
    )
    parser.add_argument(
        "--older-than",
        type=age,
        metavar="AGE",
        help="remove those that were not used for so long: 30d, 12h, 2w",
    )
    parser.add_argument(
        "--variants", action="store_true", help="remove the variants' own images from daemons, too"
    )
    parser.add_argument("--dry-run", action="store_true", help="only say what would be removed")


def run(args: argparse.Namespace) -> int:
    """Clean up.

    Returns:
        0, or 1 when something has to stay that should go.
    """
    from nox_variants import cleanup  # noqa: PLC0415  # not for --help
    from nox_variants.store import default_home  # noqa: PLC0415

    wishes = cleanup.Wishes(
        keep=args.keep,
        older_than=args.older_than,
        variants=args.variants,
        dry_run=args.dry_run,
    )
    kept, home = False, default_home(os.environ)
    none = True
    for result in cleanup.everything(os.environ, home, wishes, now=time.time()):
        print(cleanup.line(result, dry_run=args.dry_run), flush=True)
        kept |= isinstance(result, cleanup.Kept)
        none = False
    if none:
        print("nothing to remove")
    return int(kept)


def size(text: str) -> int:
    """Return bytes, written as in variants.yaml; 0 as well.

    Raises:
        argparse.ArgumentTypeError: It is no size.
    """
    from pydantic import TypeAdapter, ValidationError  # noqa: PLC0415  # not for --help

    from nox_variants.filevalues import Bytes  # noqa: PLC0415

    if text == "0":
        return 0
    try:
        return TypeAdapter(Bytes).validate_python(text)
    except ValidationError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no size. Write 5GB, 500MiB or a number of bytes."
        ) from None


def age(text: str) -> float:
    """Return seconds.

    Raises:
        argparse.ArgumentTypeError: It is no time.
    """
    if match := _AGE.fullmatch(text):
        return float(match[1]) * _SECONDS[match[2]]
    raise argparse.ArgumentTypeError(f"{text!r} is no time. Write 30d, 12h or 2w.")
