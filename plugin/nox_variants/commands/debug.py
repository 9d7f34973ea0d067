"""Open a shell in a variant's image, with busybox's tools beside its own files.

The image may be empty: the tools come from the catalogue's `busybox`, lie in `/.debug/bin`, and are
the last that PATH finds. The root can be written and is thrown away at the end. Nothing of the
image and nothing of this machine is changed.
"""

from __future__ import annotations

import os
import shlex
import sys
from contextlib import closing
from typing import TYPE_CHECKING

from nox_variants import commands
from nox_variants.errors import BuildFailed

if TYPE_CHECKING:
    import argparse

    from nox_variants.engines.protocol import Engine
    from nox_variants.model import Image, Settings, Variant

TOOLS = "busybox"
"""The image whose tools are brought along."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments; the command to run comes behind ``--`` (see the cli)."""
    parser.usage = f"{parser.prog} [OPTIONS] ID [-- COMMAND...]"
    parser.add_argument("id", metavar="ID", help='a variant, "hello-c(scratch,static)"')
    commands.add_engine_arguments(parser)
    parser.epilog = (
        "COMMAND is looked up in the image's PATH, then among the tools; its exit code is that of"
        " this command. Without one, a shell is started."
    )


def run(args: argparse.Namespace) -> int:
    """Give the user a shell, or run a command.

    Returns:
        The shell's or the command's exit code: 127 when it was not found, 126 when it cannot be
        executed, 128 and the number for a signal.
    """
    from nox_variants import invocation, matrix, terminal  # noqa: PLC0415  # not for --help

    settings = commands.settings(args)
    variant = commands.find(matrix.expand(settings), args.id)
    parsed = commands.options(args)
    kind = ""
    if not args.command and terminal.is_terminal():
        kind = os.environ.get("TERM") or "dumb"
    with terminal.ending():
        engine, why = invocation.choose_engine(settings, parsed, environ=os.environ, progress=_note)
        with closing(engine):
            try:
                info = engine.probe()
                if kind:
                    _note(f"engine: {info.name} {info.version}: {why}")
                return debug(engine, settings, variant, tuple(args.command), terminal=kind)
            finally:
                engine.cancel()


def debug(
    engine: Engine,
    settings: Settings,
    variant: Variant,
    command: tuple[str, ...],
    *,
    terminal: str,
) -> int:
    """Build what is not built yet, and run a shell or a command in it.

    Args:
        engine: What does it.
        settings: The file that the variant comes from.
        variant: The variant.
        command: A command and its arguments; empty for a shell.
        terminal: The kind of the user's terminal, as TERM has it; empty for none.

    Returns:
        Its exit code.
    """
    from nox_variants.plan import make_plans  # noqa: PLC0415  # not for --help

    (plan,) = make_plans(settings, [variant])
    tools = engine.prepare(_tools(settings))
    try:
        build = engine.build(plan.build, engine.prepare(plan.build.image))
    except BuildFailed as error:
        _note(error.log.rstrip())
        raise
    image = engine.assemble(plan, engine.prepare(plan.run.image), build)
    if terminal:
        _note(
            f"{variant.id}: its own files, and {TOOLS}'s tools in /.debug/bin. Its command:"
            f" {shlex.join((*image.argv, *plan.smoke.args))}. Ctrl-D or exit leaves; what you write"
            " is thrown away."
        )
    return engine.debug(image, plan.smoke, tools, command, terminal=terminal)


def _tools(settings: Settings) -> Image:
    return next(image for image in settings.images if image.name == TOOLS)


def _note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
