"""The guest of Nox: the only module that imports it. Registers, selects, and turns errors to words.

Registration reads the files and nothing else; everything that a run needs is imported by the run.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import TYPE_CHECKING

import nox

from nox_variants import config, matrix
from nox_variants.errors import ConfigError, VariantsError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from nox_variants.model import Program, Settings, Variant, VariantId

_NOISY = ("docker", "urllib3", "asyncio", "filelock")
"""Loggers of libraries: Nox puts the root logger at DEBUG, and prints all they say."""

_NAMED = 6
"""Programs that the docstring of `matrix` names."""

_DESCRIBED = 16
"""Variants that a program's docstring names: Nox splits it into lines for every one of them."""


def register_files(files: Iterable[str | os.PathLike[str]]) -> None:
    """Register ``matrix`` and every variant of some files.

    Raises:
        SystemExit: Status 2, with every problem of the files on standard error.
    """
    from pathlib import Path  # noqa: PLC0415

    try:
        settings = config.load(*map(Path, files))
        variants = matrix.expand(settings).variants
    except ConfigError as error:
        print("\n".join(error.problems), file=sys.stderr)  # noqa: T201
        raise SystemExit(2) from None
    _register_matrix(settings, variants)
    for program in settings.programs:
        _register_program(settings, program, variants)


def _register_matrix(settings: Settings, variants: Sequence[Variant]) -> None:
    @nox.session(name="matrix", default=False, venv_backend="none", allow_parallel=True)
    def session_matrix(session: nox.Session) -> None:
        _run(session, settings, variants, prog="nox -s matrix --")

    names = [program.name for program in settings.programs]
    programs = f"{len(names)} programs" if len(names) > _NAMED else ", ".join(names)
    session_matrix.__doc__ = (
        f"Build, smoke-run and record all {len(variants)} variants of {programs}."
        "\n\n    Options follow two dashes: nox -s matrix -- --help"
    )


def _register_program(settings: Settings, program: Program, variants: Sequence[Variant]) -> None:
    mine = {variant.id: variant for variant in variants if variant.program == program.name}
    # Parameters are ids, not variants: Nox writes them into its `--report` as JSON.
    params = [
        nox.param(
            str(variant.id),
            id=variant.id[len(program.name) + 1 : -1],
            tags=list(matrix.tags(variant)),
        )
        for variant in mine.values()
    ]

    def session_program(session: nox.Session, variant: VariantId) -> None:
        _run(session, settings, (mine[variant],), prog=f'nox -s "{variant}" --')

    session_program.__doc__ = _docstring(program, list(mine.values()))
    nox.session(
        nox.parametrize("variant", params)(session_program),
        name=program.name,
        default=False,
        venv_backend="none",
        allow_parallel=True,
    )


def _docstring(program: Program, variants: Sequence[Variant]) -> str:
    """Return what `nox --list` (first line) and `nox --usage` (all) say of a program's variants."""
    builds = dict.fromkeys(variant.build_image for variant in variants)
    lines = [
        f"{variant.id}: built in {variant.build_image}, {variant.link}, runs in {variant.run_image}"
        for variant in variants[:_DESCRIBED]
    ]
    if len(variants) > _DESCRIBED:
        lines.append(f"and {len(variants) - _DESCRIBED} more: nox-variants list")
    return (
        f"Build {program.name} ({program.language.name}) in {' or '.join(builds)} and smoke-run it."
        "\n\n    " + "\n    ".join(lines)
    )


def _run(
    session: nox.Session, settings: Settings, variants: Sequence[Variant], *, prog: str
) -> None:
    """Run variants inside a session: exit code and words are Nox's, errors become sentences."""
    for name in _NOISY:
        logging.getLogger(name).setLevel(logging.WARNING)
    from nox_variants import invocation, options  # noqa: PLC0415  # 100 ms that listing does without
    from nox_variants.reports import table  # noqa: PLC0415

    try:
        parsed = options.parse(session.posargs, os.environ, prog=prog)
        if isinstance(parsed, str):
            print(parsed)  # noqa: T201
            return
        selected = matrix.select(variants, only=parsed.only, skip=parsed.skip)
        records = invocation.run(settings, selected, parsed, stream=sys.stdout, environ=os.environ)
    except VariantsError as error:
        session.error(str(error).removesuffix("."))  # Nox ends its sentence itself
    if any(record.outcome.bad for record in records):
        session.error(table.summary([record for record in records if record.outcome.bad]))
    if len(records) == 1 and (image := records[0].image) is not None:
        place = _place(settings.root, image.path) if image.path else image.tag
        print(f"image: {place}")  # noqa: T201


def _place(root: Path, path: str) -> str:
    return os.path.relpath(root / path)
