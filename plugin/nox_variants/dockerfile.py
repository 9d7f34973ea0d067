"""Plans to Dockerfiles: pure text, readable, for BuildKit and for classic builders.

A classic builder (and Podman's) knows no ``RUN --mount`` and no ``COPY --chmod``: nothing here
needs the latter, and caches are then kept in a layer that is thrown away.
"""

from __future__ import annotations

import json
import posixpath
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from nox_variants.model import Pairs
    from nox_variants.plan import BuildStage, Plan

SOURCE = "src"
"""The folder of the build context that holds the source."""

BUILD = "build"
"""The name of the build stage, for ``--target``."""

RUN = "run"
"""The name of the stage that ships."""

_AWKWARD = re.compile(r"\n|<<|\\$|^\s*[-\[#]")
"""Commands that the shell form of RUN would read differently."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """What a stage is made from.

    Attributes:
        name: The image's name in the file.
        reference: What FROM names; ``scratch`` where `archive` fills it.
        archive: A root filesystem's tar in the build context, or empty.
        setup: Shell commands run on top.
        env: Environment that the image lacks.
        stand_in: Whether it only stands in for the image of that name.
    """

    name: str
    reference: str
    archive: str = ""
    setup: tuple[str, ...] = ()
    env: Pairs = ()
    stand_in: bool = False


def render(plan: Plan, build: Base, run: Base, *, epoch: int, buildkit: bool) -> str:
    """Return the Dockerfile of a variant: a build stage, and a stage that ships.

    Args:
        plan: The variant.
        build: What its build image is made from.
        run: What its run image is made from.
        epoch: ``SOURCE_DATE_EPOCH``, in seconds since 1970.
        buildkit: Whether BuildKit builds it.
    """
    variant = plan.variant
    head = (
        f"# {variant.id}: {variant.language}, {variant.link}, built in {variant.build_image},"
        f" runs in {variant.run_image}. Made by nox-variants."
    )
    single = plan.run.single_stage
    parts = [[head], _stage(plan.build, build, epoch=epoch, buildkit=buildkit, kept=single)]
    if single:
        parts[-1] += ["# The build image itself is shipped: the baseline."]
    else:
        name, lines = _base(run, RUN)
        parts += [lines] if lines else []
        parts.append(
            [
                f"FROM {name} AS {RUN}",
                *_env(run.env),
                *(f"COPY --from={BUILD} {each.source} {each.target}" for each in plan.run.files),
            ]
        )
    parts[-1] += _command(plan, run)
    return _text(parts)


def render_stage(stage: BuildStage, build: Base, *, epoch: int, buildkit: bool, kept: bool) -> str:
    """Return a Dockerfile that compiles and nothing else: the beginning of every variant's.

    Args:
        stage: The build stage.
        build: What its build image is made from.
        epoch: ``SOURCE_DATE_EPOCH``, in seconds since 1970.
        buildkit: Whether BuildKit builds it.
        kept: Whether the stage itself is shipped.
    """
    return _text([_stage(stage, build, epoch=epoch, buildkit=buildkit, kept=kept)])


def _text(parts: Iterable[Iterable[str]]) -> str:
    return "\n\n".join("\n".join(lines) for lines in parts) + "\n"


def _base(base: Base, role: str) -> tuple[str, list[str]]:
    """Return what a stage is FROM, and the lines of a stage that makes it where it is not there."""
    if not base.archive and not base.setup:
        return base.reference, []
    name = f"{role}-base"
    lines = [f"# A stand-in for {base.name}, not that image."] if base.stand_in else []
    lines.append(f"FROM {base.reference} AS {name}")
    if base.archive:
        lines.append(f"ADD {base.archive} /")
    lines += [_run(command) for command in base.setup]
    return name, lines


def _stage(stage: BuildStage, build: Base, *, epoch: int, buildkit: bool, kept: bool) -> list[str]:
    name, lines = _base(build, BUILD)
    lines = [*lines, ""] if lines else []
    lines += [
        f"FROM {name} AS {BUILD}",
        *_env(build.env),
        # Set, because images differ: golang's is /go, most others' is /.
        f"WORKDIR {stage.workdir}",
        f"COPY {SOURCE}/ {stage.workdir}/",
        "# ARG, not ENV: what the build needs is no part of the image.",
        f"ARG SOURCE_DATE_EPOCH={epoch}",
        *(f"ARG {name}={_quoted(value)}" for name, value in stage.env),
    ]
    folders = sorted({posixpath.dirname(path) for path in stage.artifacts} - {"/"})
    if folders:
        lines.append(f"RUN mkdir -p {' '.join(map(_word, folders))}")
    mounts = [f"--mount=type=cache,target={path},sharing=locked" for path in stage.caches]
    if buildkit:
        mounts.append("--mount=type=tmpfs,target=/tmp")
    commands = stage.commands
    if kept and not buildkit:
        lines.append("# The stage ships, and this builder has no mounts: nothing else may be left.")
        left = " ".join(map(_word, ("/tmp/*", *stage.caches)))  # noqa: S108
        commands = tuple(f"{{ {command.strip()}; }} && rm -rf {left}" for command in commands)
    return [*lines, *(_run(command, mounts if buildkit else ()) for command in commands)]


def _command(plan: Plan, run: Base) -> Iterator[str]:
    if run.reference != "scratch" or plan.run.single_stage:
        yield f"WORKDIR {plan.run.workdir}"
    if not run.stand_in and run.reference != "scratch":
        yield "# Whatever the base starts, this image starts the program, without a shell."
        yield "ENTRYPOINT []"
    yield from _env(plan.run.env)
    yield f"CMD {json.dumps(plan.run.cmd)}"


def _env(env: Pairs) -> Iterator[str]:
    return (f"ENV {name}={_quoted(value)}" for name, value in env)


def _run(command: str, mounts: Iterable[str] = ()) -> str:
    """Return a RUN instruction, in the readable form where that means the same."""
    command = command.strip()
    shell = json.dumps(["/bin/sh", "-c", command]) if _AWKWARD.search(command) else command
    options = "".join(f"{mount} \\\n    " for mount in mounts)
    return f"RUN {options}{shell}"


def _quoted(value: str) -> str:
    """Return a value that the builder reads as it is (Dockerfile reference, "Escape")."""
    if re.fullmatch(r"[\w./:=,@%+-]+", value):
        return value
    escaped = re.sub(r'([\\"$])', r"\\\1", value)
    return f'"{escaped}"'


def _word(path: str) -> str:
    """Return a path as one shell word."""
    if re.fullmatch(r"[\w./@%+=:,-]+", path):
        return path
    return "'" + path.replace("'", "'\"'\"'") + "'"
