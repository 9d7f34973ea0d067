"""The options of `matrix` and of variant sessions: command line first, then environment."""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from nox_variants.errors import UsageError
from nox_variants.model import SourceKind
from nox_variants.results import EngineName
from nox_variants.sharding import parse as parse_shard

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from nox_variants.sharding import Shard

ENGINES = ("auto", *(name.value for name in EngineName))
IMAGES = ("auto", SourceKind.REGISTRY.value, SourceKind.APT.value, SourceKind.ARCHIVE.value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How a run is done.

    Attributes:
        engine: ``auto`` or an engine's name.
        images: ``auto``, or the one source that images may come from.
        jobs: How many tasks run at once; None leaves it to the engine.
        only: Globs on ids: run these.
        skip: Globs on ids: leave these out.
        json: Where the records go as JSON, or None.
        use_cache: Whether images and builds of earlier runs are good.
        fail_fast: Whether nothing new begins after the first bad outcome.
        strict: Whether a skipped variant is an error.
        transfer: Whether the compressed size of every image is worked out.
        locked: Whether images have to be those of ``variants.lock``.
        update_baseline: Whether ``variants.lock`` takes what the run measured.
        shard: Which part of the selection is run; None for all of it.
        builder: The buildx builder that builds; empty for the one that ``BUILDX_BUILDER`` names, or
            the best that there is.
    """

    engine: str = "auto"
    images: str = "auto"
    jobs: int | None = None
    only: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()
    json: Path | None = None
    use_cache: bool = True
    fail_fast: bool = False
    strict: bool = False
    transfer: bool = False
    locked: bool = False
    update_baseline: bool = False
    shard: Shard | None = None
    builder: str = ""


class _Parser(argparse.ArgumentParser):
    """A parser that raises: `SystemExit` inside a session would end the whole Nox run."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{self.prog}: {message}", hint=f"{self.prog} --help lists the options.")


def parse(arguments: Sequence[str], environ: Mapping[str, str], *, prog: str) -> Options | str:
    """Return the options, or the help text when ``--help`` asks for it.

    Args:
        arguments: What follows ``--`` on the command line.
        environ: The environment, for ``NOX_VARIANTS_*``.
        prog: The command as the user knows it.

    Raises:
        UsageError: When an option or an environment variable is wrong.
    """
    parser = _parser(prog, environ)
    namespace = parser.parse_args(list(arguments))
    if namespace.help:
        return parser.format_help()
    return Options(
        engine=namespace.engine,
        images=namespace.images,
        jobs=namespace.jobs,
        only=tuple(namespace.only),
        skip=tuple(namespace.skip),
        json=namespace.json,
        use_cache=not namespace.no_cache,
        fail_fast=namespace.fail_fast,
        strict=namespace.strict,
        transfer=namespace.transfer,
        locked=namespace.locked,
        update_baseline=namespace.update_baseline,
        shard=namespace.shard,
        builder=namespace.builder,
    )


def _parser(prog: str, environ: Mapping[str, str]) -> _Parser:
    parser = _Parser(prog=prog, add_help=False, allow_abbrev=False)
    add = parser.add_argument
    add("--help", action="store_true", help="show this text")
    add(
        "--only",
        action="append",
        default=[],
        metavar="GLOB",
        help="run only ids that match; again for more",
    )
    add(
        "--skip",
        action="append",
        default=[],
        metavar="GLOB",
        help="leave out ids that match; again for more",
    )
    add(
        "--engine",
        choices=ENGINES,
        default=_variable(environ, "ENGINE", "auto", ENGINES),
        help="what builds and runs (NOX_VARIANTS_ENGINE; default: %(default)s)",
    )
    add(
        "--images",
        choices=IMAGES,
        default=_variable(environ, "IMAGES", "auto", IMAGES),
        help="the only source images may come from (NOX_VARIANTS_IMAGES; default: %(default)s)",
    )
    add(
        "--jobs",
        type=_jobs,
        default=_default_jobs(environ),
        metavar="N",
        help="how many tasks run at once (NOX_VARIANTS_JOBS; default: cores and one more, twice the"
        " cores with a daemon)",
    )
    add("--json", type=Path, metavar="FILE", help="write the records there as JSON")
    add("--no-cache", action="store_true", help="prepare images and compile anew")
    add("--fail-fast", action="store_true", help="begin nothing new after the first bad outcome")
    add("--strict", action="store_true", help="a variant that has to be skipped is an error")
    add("--transfer", action="store_true", help="work out compressed sizes, too")
    add("--locked", action="store_true", help="use exactly the images that variants.lock names")
    add(
        "--update-baseline",
        action="store_true",
        help="keep verdicts, sizes and image digests of this run in variants.lock",
    )
    add(
        "--shard",
        type=_shard,
        metavar="I/N",
        help="run part I of N; `nox-variants merge` joins what --json writes of each",
    )
    add(
        "--builder",
        default="",
        metavar="NAME",
        help="the buildx builder that builds, for the docker engine (BUILDX_BUILDER, which is"
        " buildx's own)",
    )
    return parser


def _shard(text: str) -> Shard:
    try:
        return parse_shard(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _jobs(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) <= 1024:  # noqa: PLR2004  # threads, not a setting
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of jobs from 1 to 1024")
    return int(text)


def _default_jobs(environ: Mapping[str, str]) -> int | None:
    text = environ.get("NOX_VARIANTS_JOBS")
    if not text:
        return None
    try:
        return _jobs(text)
    except argparse.ArgumentTypeError as error:
        raise UsageError(f"NOX_VARIANTS_JOBS: {error}") from error


def cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _variable(environ: Mapping[str, str], name: str, default: str, choices: Sequence[str]) -> str:
    value = environ.get(f"NOX_VARIANTS_{name}") or default
    if value not in choices:
        raise UsageError(
            f"NOX_VARIANTS_{name}: unknown value {value!r}",
            hint=f"Choose from {', '.join(choices)}.",
        )
    return value
