"""Write a nightly workflow for GitHub or GitLab, or deal out the matrix to its jobs."""

from __future__ import annotations

import json
import shlex
import zlib
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from nox_variants import commands, recordfile
from nox_variants.errors import UsageError
from nox_variants.options import ENGINES

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

    from nox_variants.model import Settings

PROVIDERS = ("github", "gitlab")

INSTALL = "python -m pip install nox nox-variants"
"""What a job installs when nobody says otherwise."""

ACTIONS = {
    "checkout": ("actions/checkout", "8e8c483db84b4bee98b60c0593521ed34d9990e8", "v6.0.1"),
    "setup-python": ("actions/setup-python", "83679a892e2d95755f2dac6acb0bfd1e9ac5d548", "v6.1.0"),
    "cache/restore": (
        "actions/cache/restore",
        "9255dc7a253b0ccc959486e2bca901246202afeb",
        "v5.0.1",
    ),
    "cache/save": ("actions/cache/save", "9255dc7a253b0ccc959486e2bca901246202afeb", "v5.0.1"),
    "upload-artifact": (
        "actions/upload-artifact",
        "b7c566a772e6b6bfb58ed0dc250532a479d7789f",
        "v6.0.0",
    ),
    "download-artifact": (
        "actions/download-artifact",
        "37930b1c2abaa49bbe596cd826c3c89aef350131",
        "v7.0.0",
    ),
}
"""Actions by commit, which nobody can move, and the release that it is."""

_MOST = {"github": 256, "gitlab": 200}
"""Jobs of one matrix (GitHub, "Usage limits"; GitLab, "parallel")."""

_STORE = (
    "variants-store-${{ runner.os }}-${{ runner.arch }}-${{ strategy.job-index }}"
    "-${{ hashFiles('**/variants.yaml', '**/variants.lock') }}"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add = parser.add_argument
    add("--provider", choices=PROVIDERS, default="github", help="default: %(default)s")
    add(
        "--shards", type=int, metavar="N", help="how many jobs (default: one per 5 minutes of work)"
    )
    add(
        "--engine",
        choices=ENGINES,
        default="auto",
        help="what builds and runs in the workflow (default: %(default)s)",
    )
    add(
        "--install",
        default=INSTALL,
        metavar="COMMAND",
        help="what installs Nox and nox-variants there (default: %(default)s)",
    )
    add("--output", type=Path, metavar="PATH", help="where it goes (default: standard output)")
    add(
        "--emit-matrix",
        action="store_true",
        help="print the job matrix of GitHub Actions as JSON, balanced by recorded build times",
    )
    add("--only", action="append", default=[], metavar="GLOB", help="with --emit-matrix: these ids")
    add("--skip", action="append", default=[], metavar="GLOB", help="with it: not these")


def run(args: argparse.Namespace) -> int:
    """Write a workflow, or a job matrix."""
    check(args.provider, args.shards)
    settings = commands.settings(args)
    text = emitted(args, settings) if args.emit_matrix else workflow(args, settings)
    if args.output:
        with suppress(OSError):  # said when the file cannot be written
            args.output.parent.mkdir(parents=True, exist_ok=True)
        recordfile.write(args.output, text, what="--output")
    else:
        print(text, end="")
    return 0


def check(provider: str, shards: int | None) -> None:
    """Refuse more jobs than a provider makes.

    Raises:
        UsageError: There are too many, or none.
    """
    if shards is not None and not 1 <= shards <= _MOST[provider]:
        raise UsageError(
            f"--shards {shards}: {provider} makes from 1 to {_MOST[provider]} jobs of a matrix"
        )


def emitted(args: argparse.Namespace, settings: Settings) -> str:
    """Return the job matrix: a line of JSON.

    Raises:
        UsageError: It is for GitLab, which counts its jobs itself.
    """
    if args.provider != "github":
        raise UsageError(
            "--emit-matrix is for GitHub",
            hint='GitLab counts its jobs: --shard "$CI_NODE_INDEX/$CI_NODE_TOTAL".',
        )
    from nox_variants import matrix, sharding  # noqa: PLC0415  # not for --help
    from nox_variants.plan import make_plans  # noqa: PLC0415

    variants = matrix.expand(settings).variants
    chosen = matrix.select(variants, only=args.only, skip=args.skip)
    shards = sharding.include(make_plans(settings, chosen), builds(settings), args.shards)
    return json.dumps({"include": shards}, separators=(",", ":")) + "\n"


def builds(settings: Settings) -> Mapping[str, float]:
    """Return seconds of compiles by variant, as last recorded; empty where nothing is."""
    from nox_variants import invocation  # noqa: PLC0415  # not for --help
    from nox_variants.history import History  # noqa: PLC0415

    if not (settings.root / invocation.FOLDER / "history.sqlite").exists():
        return {}
    with History(invocation.history_file(settings)) as history:
        return {each.variant: each.build for each in history.points() if each.build is not None}


def workflow(args: argparse.Namespace, settings: Settings) -> str:
    """Return a provider's workflow."""
    from jinja2 import Environment, PackageLoader, StrictUndefined  # noqa: PLC0415  # as above

    if "\n" in args.install:
        raise UsageError("--install: is more than a line", hint="Join commands with `&&`.")
    environment = Environment(
        loader=PackageLoader("nox_variants", "workflows"),
        undefined=StrictUndefined,
        autoescape=False,  # noqa: S701  # YAML; what is filled in is this module's, or quoted
        keep_trailing_newline=True,
    )
    names = ",".join(program.name for program in settings.programs)
    return environment.get_template(f"{args.provider}.yml.jinja").render(
        name="variants",
        command=_command(args),
        minute=zlib.crc32(names.encode()) % 60,  # not all projects of the world at once
        engine=args.engine,
        install=json.dumps(args.install),
        shards=f" --shards {args.shards}" if args.shards else "",
        count=args.shards or 1,
        store=_STORE,
        actions={name: f"{path}@{sha} # {tag}" for name, (path, sha, tag) in ACTIONS.items()},
    )


def _command(args: argparse.Namespace) -> str:
    """Return the command line that makes this very workflow."""
    words = ["nox-variants", "ci", "--provider", args.provider]
    for file in args.file:
        words += ["--file", str(file)]
    if args.shards:
        words += ["--shards", str(args.shards)]
    if args.engine != "auto":
        words += ["--engine", args.engine]
    if args.install != INSTALL:
        words += ["--install", args.install]
    if args.output:
        words += ["--output", str(args.output)]
    return shlex.join(words)
