"""Say what works on this machine, why the rest does not, and what to do."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from nox_variants.commands import DEFAULT_FILE

if TYPE_CHECKING:
    import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("--offline", action="store_true", help="ask nothing beyond this machine")
    parser.add_argument(
        "--verify",
        action="store_true",
        help="read all of the store, and take out what is not what was written",
    )
    parser.add_argument("--json", action="store_true", help="print JSON, for machines")


def run(args: argparse.Namespace) -> int:
    """Check the machine.

    Returns:
        0, or 1 when no engine can be used or the store was damaged.
    """
    from nox_variants import checkup  # noqa: PLC0415  # not for --help
    from nox_variants.invocation import FOLDER  # noqa: PLC0415
    from nox_variants.store import default_home  # noqa: PLC0415

    folders = [file.absolute().parent for file in args.file or (DEFAULT_FILE,)]
    checks = checkup.everything(
        os.environ,
        home=default_home(os.environ),
        project=Path(os.path.commonpath(folders), FOLDER),
        offline=args.offline,
        verify=args.verify,
    )
    width = max(len(name) for name, _ in checks)
    found = []
    for check in checkup.run(checks):
        found.append(check)
        if not args.json:
            print(*checkup.lines(check, width), sep="\n", flush=True)
    if args.json:
        values = [dataclasses.asdict(check) for check in found]
        print(json.dumps(values, indent=1, ensure_ascii=False))
    damaged = any(check.name == checkup.VERIFIED and check.state.bad for check in found)
    return int(damaged or not checkup.healthy(found))
