"""Plans to Dockerfiles: pure text, readable, for BuildKit and for classic builders.

A classic builder (and an old Podman's) knows no ``RUN --mount`` and no ``COPY --chmod``: nothing
here needs the latter, and caches are then kept in a layer that is thrown away. There is no
``# syntax=`` line, for it would have to be pulled, so nothing here is newer than Docker 20.10: no
heredocs, no ``RUN --network``.
"""

from __future__ import annotations

import json
import posixpath
import re
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nox_variants.errors import ImageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from nox_variants.model import Pairs
    from nox_variants.plan import BuildStage, Plan

SOURCE = "src"
"""The folder of the build context that holds the source."""

BUILD = "build"
"""The name of the build stage, for ``--target``."""

RUN = "run"
"""The name of the stage that ships."""

SCRATCH = "scratch"

_PLAIN = re.compile(r"[\w./:=,@%+-]+")
"""Words that mean themselves to builders, and to a shell."""

_NO_PATH = re.compile(r"[\x00-\x1f\x7f\\\"'$*?\[\],]")
"""What builders take for quotes, variables, patterns or separators, each in its own way."""

_BREAK = re.compile(r"[\n\r]")

_AWKWARD = re.compile(r"[\x00-\x1f\x7f]|<<|\\$|^$|^[-\[#\s]|\s$")
"""Commands that the shell form of RUN would read differently, or not at all."""

_SIMPLE = re.compile(r"(?!exec\b|exit\b)[\w./=:,@%+*? -]+")
"""Commands that can be followed by ``&&``: one of words only, that comes back."""

_LEFT_OVER = "/tmp/* /tmp/.[!.]*"  # noqa: S108  # of an image
"""What is left of a command where /tmp is part of the image."""

_PIPES = "The shell is what the image has for /bin/sh: not every one knows pipefail."
_WORDS = "The command is the recipe's own, word for word."
_VERSIONS = "The versions are those of the release that FROM names."
_IGNORED = (
    ("DL4006", _PIPES, re.compile(r"\|")),
    ("SC2035", _WORDS, re.compile(r"(^|\s)[*?]")),
    ("DL3003", _WORDS, re.compile(r"\bcd\s")),
    ("DL3018", _VERSIONS, re.compile(r"\bapk\b.*\badd\b")),
    ("DL3008", _VERSIONS, re.compile(r"\bapt-get\b.*\binstall\b")),
    ("DL3013", "The wheels are those of the build stage.", re.compile(r"\bpip\b.*\binstall\b")),
)
"""Rules of hadolint that the commands of a recipe may break, why they may, and where they do."""

_SEPARATE = ("DL3059", "The recipe's commands are separate: each has a shell of its own.")
"""The rule that a command breaks which follows another."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """What a stage is made from.

    Attributes:
        name: The image's name in the file.
        reference: What FROM names; ``scratch`` where `archive` fills it.
        archive: A root filesystem's tar in the build context, or empty.
        setup: Shell commands run on top.
        env: Environment that the image lacks.
        user: Who runs what it starts; empty for root.
        stand_in: Whether it only stands in for the image of that name.
    """

    name: str
    reference: str
    archive: str = ""
    setup: tuple[str, ...] = ()
    env: Pairs = ()
    user: str = ""
    stand_in: bool = False

    @property
    def made(self) -> bool:
        """Whether a stage of its own, :func:`base_stage`, has to make it."""
        return bool(self.archive or self.setup)

    @property
    def configured(self) -> bool:
        """Whether it may bring a configuration: an entry point, a working directory."""
        return self.reference != SCRATCH and not self.stand_in


def base_stage(role: str) -> str:
    """Return the name of the stage that makes the base of ``build`` or ``run``."""
    return f"{role}-base"


def render(plan: Plan, build: Base, run: Base, *, epoch: int, buildkit: bool) -> str:
    """Return the Dockerfile of a variant: a build stage, and a stage that ships.

    Args:
        plan: The variant.
        build: What its build image is made from.
        run: What its run image is made from.
        epoch: ``SOURCE_DATE_EPOCH``, in seconds since 1970.
        buildkit: Whether BuildKit builds it.

    Raises:
        ImageError: Something has no form in a Dockerfile: a line break in a value, a quote in a
            path.
    """
    variant, single = plan.variant, plan.run.single_stage
    what = f"{variant.language}, {variant.link}, built in {variant.build_image}"
    head = [f"# {variant.id}: {what}, runs in {variant.run_image}. Made by nox-variants."]
    if not plan.build.network:
        way = "" if build.setup or run.setup else ": docker build --network=none"
        head.append(f"# The program's commands are to have no network{way}")
    parts = [head, *_stage(plan.build, build, epoch=epoch, buildkit=buildkit, kept=single)]
    if single:
        parts[-1].append("# The build image itself is shipped: the baseline.")
        if plan.run.has_own_stage:
            parts.append([f"FROM {BUILD} AS {RUN}"])
    else:
        parts += [*_base(run, RUN), [f"FROM {_from(run, RUN)} AS {RUN}", *_env(run.env)]]
    parts[-1] += [*_env(plan.run.env), *_files(plan), *_command(plan, run)]
    return _text(parts)


def render_stage(stage: BuildStage, build: Base, *, epoch: int, buildkit: bool, kept: bool) -> str:
    """Return a Dockerfile that compiles and nothing else: the beginning of every variant's.

    Args:
        stage: The build stage.
        build: What its build image is made from.
        epoch: ``SOURCE_DATE_EPOCH``, in seconds since 1970.
        buildkit: Whether BuildKit builds it.
        kept: Whether the stage itself is shipped.

    Raises:
        ImageError: As :func:`render`.
    """
    return _text(_stage(stage, build, epoch=epoch, buildkit=buildkit, kept=kept))


def render_artifacts(stage: BuildStage, build: Base, *, epoch: int) -> str:
    """Return :func:`render_stage` for BuildKit, and a stage of the artifacts alone.

    That one is for ``--output``: it holds each artifact under its number.

    Raises:
        ImageError: As :func:`render`.
    """
    copies = [
        _copy(path, f"/{number}", f"--from={BUILD} ") for number, path in enumerate(stage.outputs)
    ]
    parts = _stage(stage, build, epoch=epoch, buildkit=True, kept=False)
    return _text([*parts, [f"FROM {SCRATCH}", *copies]])


def _text(parts: Iterable[Iterable[str]]) -> str:
    return "\n\n".join("\n".join(lines) for lines in parts) + "\n"


def _from(base: Base, role: str) -> str:
    return base_stage(role) if base.made else _reference(base)


def _base(base: Base, role: str) -> Iterator[list[str]]:
    """Yield the stage that makes a base, where one has to."""
    if base.made:
        yield [
            *([f"# A stand-in for {base.name}, not that image."] if base.stand_in else ()),
            f"FROM {_reference(base)} AS {base_stage(role)}",
            *([f"ADD {base.archive} /"] if base.archive else ()),
            *(line for command in base.setup for line in _run([command])),
        ]


def _stage(
    stage: BuildStage, build: Base, *, epoch: int, buildkit: bool, kept: bool
) -> list[list[str]]:
    """Return the stages that compile: the base's, if one makes it, and the build's."""
    declared = () if kept else tuple(pair for pair in stage.env if not _BREAK.search(pair[1]))
    exported = tuple(pair for pair in stage.env if pair not in declared)
    lines = [
        f"FROM {_from(build, BUILD)} AS {BUILD}",
        *_env(build.env),
        *_folders(stage, buildkit=buildkit),
        _copy(f"{SOURCE}/", f"{stage.workdir}/"),
        "# ARG: what the build needs is no part of an image.",
        f"ARG SOURCE_DATE_EPOCH={epoch}",
    ]
    if declared:
        lines += ["# ENV, which wins over the base's own: this stage does not ship."]
        lines += _env(declared)
    if exported:
        lines += ["# Exported, not ENV: that would ship."] if kept else []
    lines += _commands(stage, build, exported, buildkit=buildkit, kept=kept)
    return [*_base(build, BUILD), lines]


def _folders(stage: BuildStage, *, buildkit: bool) -> Iterator[str]:
    """Yield what makes the folders that the commands count on, and enters the work directory."""
    parents = {posixpath.dirname(path) for path in stage.artifacts} - {"/", stage.workdir}
    if buildkit:  # mounts make the caches' folders, and WORKDIR starts no container
        yield from (f"WORKDIR {_quoted(_path(folder))}" for folder in sorted(parents))
    elif folders := sorted(map(_path, parents.union(stage.caches))):
        # Not WORKDIR: Podman makes that folder only when a command runs there.
        yield f"RUN mkdir -p {' '.join(map(shlex.quote, folders))}"
    yield f"WORKDIR {_quoted(_path(stage.workdir))}"


def _commands(
    stage: BuildStage, build: Base, exported: Pairs, *, buildkit: bool, kept: bool
) -> Iterator[str]:
    words = " ".join(f"{name}={shlex.quote(value)}" for name, value in exported)
    export = [f"export {words};"] if words else []
    if kept and not buildkit:
        yield "# The stage ships, and this builder has no mounts: one layer, nothing left over."
        yield from _run([*export, *_cleaned(stage)])
        return
    mounts = [*_mounts(stage, build)] if buildkit else []
    for number, command in enumerate(stage.commands):
        yield from _run([*export, command], mounts, again=number > 0)


def _mounts(stage: BuildStage, build: Base) -> Iterator[str]:
    """Yield the mounts of a command: toolchains differ, so each image has its own caches."""
    for path in map(_path, stage.caches):
        name, target = (f'"{each}"' if " " in each else each for each in (build.name + path, path))
        yield f"--mount=type=cache,id={name},target={target},sharing=locked"
    yield "--mount=type=tmpfs,target=/tmp"


def _cleaned(stage: BuildStage) -> Iterator[str]:
    """Yield all commands as one that removes what mounts would have kept out of the image.

    Each has a shell of its own, as it has everywhere else: what `cd`, `exit` or `set -e` does in
    one is over with it.
    """
    for command in stage.commands:
        simple = len(stage.commands) == 1 and _SIMPLE.fullmatch(command)
        yield f"{command if simple else f'/bin/sh -c {shlex.quote(command)}'} &&"
    yield " ".join(["rm -rf", _LEFT_OVER, *map(shlex.quote, stage.caches)])


def _files(plan: Plan) -> Iterator[str]:
    """Yield what copies the artifacts, and then what they need."""
    put_out = set(plan.build.outputs)
    beside = [each for each in plan.run.files if each.source not in put_out]
    for each in plan.run.files:
        if beside and each == beside[0]:
            yield "# Its loader and the libraries that it needs, as the loader looks for them."
        yield _copy(each.source, each.target, f"--from={BUILD} ")


def _command(plan: Plan, run: Base) -> Iterator[str]:
    if not plan.run.single_stage and (run.configured or plan.run.workdir != "/"):
        yield f"WORKDIR {_quoted(_path(plan.run.workdir))}"
    if plan.run.install:
        yield from ["USER root"] if run.user else []
        for number, command in enumerate(plan.run.install):
            yield from _run([command], again=number > 0)
    if user := plan.run.user or run.user:
        yield f"USER {user}"
    yield from (f"LABEL {name}={_quoted(value)}" for name, value in _labels(plan))
    if plan.run.entrypoint:
        yield f"ENTRYPOINT {json.dumps(plan.run.entrypoint)}"
    elif run.configured:
        yield "# Whatever the base starts, this image starts the program, without a shell."
        yield "ENTRYPOINT []"
    yield f"CMD {json.dumps(plan.run.cmd)}"


def _labels(plan: Plan) -> Iterator[tuple[str, str]]:
    for name, value in plan.run.labels:
        if _BREAK.search(value):
            raise ImageError(
                f"label {name}: {value!r} has a line break, which no LABEL can hold",
                hint="Leave it out, or take another engine: --engine embedded.",
            )
        yield name, value


def _env(env: Pairs) -> Iterator[str]:
    for name, value in env:
        if _BREAK.search(value):
            raise ImageError(
                f"environment variable {name}: {value!r} has a line break, which no ENV of a"
                " Dockerfile can hold",
                hint="Leave it out, or take another engine: --engine embedded.",
            )
        yield f"ENV {name}={_quoted(value)}"


def _copy(source: str, target: str, options: str = "") -> str:
    """Return a COPY instruction; its JSON form takes blanks."""
    paths = (_path(source), _path(target))
    plain = all(_PLAIN.fullmatch(path) for path in paths)
    return f"COPY {options}{' '.join(paths) if plain else json.dumps(paths, ensure_ascii=False)}"


def _run(parts: Sequence[str], mounts: Iterable[str] = (), *, again: bool = False) -> Iterator[str]:
    """Yield a RUN instruction, in the readable form where that means the same.

    Args:
        parts: The command, in parts that each may have a line.
        mounts: What is mounted for it.
        again: Whether it follows another.
    """
    lines = [part.strip(" \n") for part in parts]
    if any(map(_AWKWARD.search, lines)):
        lines = [json.dumps(["/bin/sh", "-c", " ".join(parts)], ensure_ascii=False)]
        yield from _ignores("", again=again)
    else:
        yield from _ignores(" ".join(lines), again=again)
    yield "RUN " + " \\\n    ".join([*mounts, *lines])


def _ignores(command: str, *, again: bool) -> Iterator[str]:
    found = [(rule, why) for rule, why, pattern in _IGNORED if pattern.search(command)]
    found += [_SEPARATE] if again else []
    if found:
        yield from dict.fromkeys(f"# {why}" for _, why in found)
        yield f"# hadolint ignore={','.join(rule for rule, _ in found)}"


def _reference(base: Base) -> str:
    if not _PLAIN.fullmatch(base.reference):
        raise ImageError(
            f"image {base.name}: {base.reference!r} is no reference that FROM takes",
            hint="Write NAME, NAME:TAG or NAME@DIGEST.",
        )
    return base.reference


def _path(path: str) -> str:
    if found := _NO_PATH.search(path):
        raise ImageError(
            f"path {path!r}: {found[0]!r} cannot be part of a path in a Dockerfile",
            hint="Name it without, or take another engine: --engine embedded.",
        )
    return path


def _quoted(value: str) -> str:
    """Return a value that the builder reads as it is (Dockerfile reference, "Escape")."""
    if _PLAIN.fullmatch(value):
        return value
    escaped = re.sub(r'([\\"$])', r"\\\1", value)
    return f'"{escaped}"'
