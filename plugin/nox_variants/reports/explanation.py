"""All that is known of one variant, or of a file against an image, laid out for 80 columns. Pure.

Names in files and what programs print are untrusted: every line goes through :func:`clean`.
"""

from __future__ import annotations

import dataclasses
import re
import shlex
import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, assert_never

from nox_variants import linkage
from nox_variants.model import SourceKind, Verdict
from nox_variants.reports import table
from nox_variants.reports.escaping import clean
from nox_variants.subject import quote

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from nox_variants.model import Expected, Smoke
    from nox_variants.plan import Plan
    from nox_variants.record import Record, SmokeSeen
    from nox_variants.results import (
        Artifact,
        FileFacts,
        Finding,
        Library,
        PreparedImage,
        RootFacts,
        Sizes,
        Startup,
        Step,
    )
    from nox_variants.subject import Subject

WIDTH = 80

NOT_FOUND = "NOT FOUND"
"""What the tree says of a file that is not there."""

_LABEL = 14
_DEEPEST = 8
_LISTED = 40
_LAST_LINES = 5
_FEATURE = 44
"""A Java release takes class files up to its number and this one (JVMS, 4.1)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A heading and the lines below it; a loud one is about a defect of ours."""

    title: str
    lines: tuple[str, ...]
    loud: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A build that failed, and the end of its output."""

    message: str
    log: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """All that is known of a variant.

    Attributes:
        plan: What is done for it, with the libraries of its bundle where it was built.
        build_image: What it is built in.
        run_image: What it runs on.
        dockerfile: The same as a Dockerfile, or why there is none.
        failure: Why it was not built.
        artifact: What was built.
        sizes: Of its image.
        subject: What is known before it runs.
        predicted: What that comes to.
        mismatch: A sentence when the artifact is not linked as asked.
        last: Its last record; None when it never ran.
        remedies: What works instead, as sentences.
        not_run: Ids of its neighbours that never ran.
    """

    plan: Plan
    build_image: PreparedImage
    run_image: PreparedImage
    dockerfile: str
    failure: Failure | None = None
    artifact: Artifact | None = None
    sizes: Sizes | None = None
    subject: Subject | None = None
    predicted: Finding | None = None
    mismatch: str = ""
    last: Record | None = None
    remedies: tuple[str, ...] = ()
    not_run: tuple[str, ...] = ()

    @property
    def fails(self) -> bool:
        """Whether it does not work, as far as is known."""
        if self.predicted is None or self.predicted.verdict is Verdict.FAILS or self.mismatch:
            return True
        return self.last is not None and self.last.verdict is Verdict.FAILS


@dataclass(frozen=True, slots=True, kw_only=True)
class FileExplanation:
    """All that is known of a file in an image that it was not built for.

    Attributes:
        file: The file.
        size: In bytes.
        image: The image.
        subject: What is known before it runs.
        predicted: What that comes to.
    """

    file: Path
    size: int
    image: PreparedImage
    subject: Subject
    predicted: Finding


def of_variant(known: Explanation) -> tuple[Section, ...]:
    """Return what there is to say of a variant."""
    found = [
        Section(title=f"Plan of {known.plan.variant.id}", lines=tuple(_plan(known))),
        Section(title="Dockerfile", lines=tuple(_verbatim(known.dockerfile))),
    ]
    if known.failure:
        found.append(Section(title="Build failed", lines=tuple(_failure(known.failure))))
    if known.artifact and known.subject:
        facts = [*_facts(known.artifact.facts, known.artifact.size)]
        facts += _row("mismatch", known.mismatch) if known.mismatch else []
        found.append(Section(title=f"Artifact {known.artifact.path}", lines=tuple(facts)))
        found += _in_image(known.subject)
    if known.predicted:
        found.append(_prediction(known.predicted))
    found.append(Section(title="Last observation", lines=tuple(_last(known.last))))
    if known.last and known.last.contradiction:
        lines = tuple(_wrapped(known.last.contradiction))
        found.append(Section(title="DEFECT of nox-variants", lines=lines, loud=True))
    if known.fails:
        found.append(Section(title="Remedies", lines=tuple(_remedies(known))))
    return tuple(found)


def of_file(known: FileExplanation) -> tuple[Section, ...]:
    """Return what there is to say of a file in an image."""
    facts = (*_facts(known.subject.artifact, known.size), *_row("image", _source(known.image)))
    return (
        Section(title=f"File {known.file}", lines=facts),
        *_in_image(known.subject),
        _prediction(known.predicted),
    )


def text(sections: Iterable[Section]) -> str:
    """Return sections as plain text."""
    parts = ("\n".join((clean(each.title), *each.lines)) for each in sections)
    return "\n\n".join(parts) + "\n"


def values(known: Explanation | FileExplanation) -> dict[str, Any]:
    """Return all that is known, for JSON; what JSON has no form for, :func:`encoded` has."""
    found = dataclasses.asdict(known)
    return {"variant": known.plan.variant.id, **found} if isinstance(known, Explanation) else found


def encoded(value: object) -> object:
    """Return what stands for a value in JSON: sets in order, paths as text."""
    return sorted(value) if isinstance(value, frozenset) else str(value)


# --- lines ----------------------------------------------------------------------------------------


def _row(name: str, *values: str) -> list[str]:
    """Return a name, and its values wrapped beside it; `none` where there are none."""
    lines: list[str] = []
    for value in filter(None, values):
        lead = "" if lines else name
        lines += _wrapped(value, indent=_LABEL + 2, lead=f"  {lead:<{_LABEL}}")
    return lines or [f"  {name:<{_LABEL}}none"]


def _wrapped(line: str, *, indent: int = 2, lead: str = "") -> list[str]:
    return textwrap.wrap(
        clean(line),
        WIDTH,
        initial_indent=lead or " " * indent,
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _verbatim(lines: str) -> Iterator[str]:
    """Yield lines that somebody may want to copy."""
    for line in lines.splitlines():
        yield f"  {clean(line.replace(chr(9), '    '))}".rstrip()


def _list(names: Sequence[str]) -> str:
    """Return names in a row, and how many there are more."""
    more = (f"and {len(names) - _LISTED} more",) if len(names) > _LISTED else ()
    return ", ".join((*names[:_LISTED], *more))


# --- what is done ---------------------------------------------------------------------------------


def _plan(known: Explanation) -> Iterator[str]:
    plan = known.plan
    build, run = plan.build, plan.run
    yield from _row("build image", _source(known.build_image))
    yield from _row("commands", *build.commands)
    if build.env:
        yield from _row("environment", *(f"{name}={value}" for name, value in build.env))
    yield from _row("network", "as the builder has it" if build.network else "none")
    yield from _row("link mode", plan.variant.linking)
    yield from _row("makes", *build.artifacts)
    yield from _row("run image", _source(known.run_image))
    yield from _row("copied", *_copied(plan))
    if run.install:
        yield from _row("then runs", *run.install)
    if run.env:
        yield from _row("image's env", *(f"{name}={value}" for name, value in run.env))
    yield from _row("command", shlex.join((*run.entrypoint, *run.cmd)))
    if user := run.user or known.run_image.user:
        yield from _row("user", user)
    if known.sizes:
        yield from _row("size", _size(known, known.sizes))
    yield from _row("smoke run", *_smoke(plan.smoke))
    yield from _row("expected", _expected(plan.variant.expected))


def _source(image: PreparedImage) -> str:
    """Return an image's name and where it comes from."""
    match image.kind:
        case SourceKind.SCRATCH:
            return f"{image.name}: empty"
        case SourceKind.REGISTRY:
            where = f"{image.reference} of its registry, {image.digest[:19]}"
        case SourceKind.APT:
            where = f"apt packages {image.reference}"
        case SourceKind.ARCHIVE:
            where = f"archive {image.reference}"
        case _:
            assert_never(image.kind)
    if image.stand_in:
        return f"{image.name}{table.STAND_IN}: a stand-in, {where}, not the image of that name"
    return f"{image.name}: {where}"


def _copied(plan: Plan) -> Iterator[str]:
    if plan.run.single_stage:
        yield "nothing: the build image itself is shipped"
    for each in plan.run.files:
        yield each.source if each.source == each.target else f"{each.source} to {each.target}"
    if plan.run.bundle and len(plan.run.files) <= len(plan.build.outputs):
        yield "and the libraries that it needs, if any (libs: bundle)"


def _size(known: Explanation, sizes: Sizes) -> str:
    stand_in = known.build_image.stand_in or known.run_image.stand_in
    mark = table.STAND_IN if stand_in else ""
    above = table.size(sizes.above_base)
    return f"{table.size(sizes.content)}{mark}, {above} of it above the run image"


def _smoke(smoke: Smoke) -> Iterator[str]:
    if smoke.args:
        yield f"with the arguments {shlex.join(smoke.args)}"
    if smoke.env:
        yield f"with {', '.join(f'{name}={value}' for name, value in smoke.env)}"
    if smoke.stdin is not None:
        yield f"reads {quote(smoke.stdin)}"
    if smoke.needs:
        yield f"needs {', '.join(smoke.needs)}"
    if service := smoke.service:
        yield f"answers {service.path} on port {service.port} with status {service.status}"
        if service.body is not None:
            yield f"and with {quote(service.body)}"
        if service.matches is not None:
            yield f"and with what {quote(service.matches)} matches"
    else:
        yield f"ends with exit code {smoke.exit_code}"
    if smoke.stdout is not None:
        yield f"prints {quote(smoke.stdout)}"
    if smoke.matches is not None:
        yield f"prints what {quote(smoke.matches)} matches"
    limits = f"{smoke.timeout:g} s, {table.size(smoke.memory)} of memory"
    times = f", {smoke.repeat} times" if smoke.repeat > 1 else ""
    yield f"within {limits}, {smoke.processes} processes{times}"


def _expected(expected: Expected) -> str:
    cause = f" with {expected.cause}" if expected.cause else ""
    where = f" ({expected.location})" if expected.location else ""
    return f"{expected.verdict}{cause}{where}"


def _failure(failure: Failure) -> Iterator[str]:
    yield from _wrapped(failure.message)
    yield from (f"  | {line[2:]}" for line in _verbatim(failure.log))


# --- what is known before it runs -----------------------------------------------------------------


def _facts(facts: FileFacts, size: int) -> Iterator[str]:
    yield from _row("linked", str(facts.linkage) if facts.needed else linkage.describe(facts))
    if facts.machine:
        yield from _row("machine", f"{facts.machine}, {facts.bits} bits")
    if facts.interpreter:
        yield from _row("interpreter", f"{facts.interpreter} {facts.argument}".rstrip())
    for name, found in (
        ("needs", facts.needed),
        ("versions", _versions(facts)),
        ("rpath", facts.rpath),
        ("runpath", facts.runpath),
        ("calls", facts.imports),
    ):
        if found:
            yield from _row(name, _list(found))
    if facts.class_version:
        yield from _row("class files", _java(facts.class_version))
    yield from _row("size", f"{table.size(size)} ({size:,} bytes)")


def _versions(facts: FileFacts) -> tuple[str, ...]:
    """Return the highest symbol version of each family that each library has to define."""
    highest: dict[tuple[str, str], str] = {}
    for library, version in facts.requires:
        key = library, version.partition("_")[0]
        highest[key] = max(highest.get(key, version), version, key=_numbers)
    return tuple(f"{library} {version}" for (library, _), version in highest.items())


def _numbers(version: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d{1,9}", version)]


def _java(version: int) -> str:
    return f"{version} (Java {version - _FEATURE})"


def _in_image(subject: Subject) -> tuple[Section, Section]:
    """Return what an image has, and how a program would start there."""
    return (
        Section(title=f"Root of {subject.run_image}", lines=tuple(_root(subject.root))),
        Section(title="Start", lines=tuple(_start(subject.facts.startup))),
    )


def _root(root: RootFacts) -> Iterator[str]:
    yield from _row("os", root.os)
    yield from _row("libc", root.libc)
    yield from _row("loaders", _list(sorted(root.loaders)))
    yield from _row("shell", "/bin/sh" if root.shell else "")
    yield from _row("certificates", root.certificates)
    yield from _row("time zones", "/usr/share/zoneinfo" if root.timezones else "")
    yield from _row("users", _list(sorted(root.users)))
    yield from _row("hosts", f"{' '.join(root.hosts)} (nsswitch.conf)" if root.hosts else "")
    yield from _row("nss modules", _list(sorted(root.nss)))
    if root.java:
        yield from _row("java", f"class files up to {_java(root.java)}")


def _start(startup: Startup) -> Iterator[str]:
    """Yield the way to a program's first instruction, and a tree of who needs what."""
    depth = 0
    for depth, step in enumerate(startup.steps):  # of the last one, too
        yield from _node(depth, step.path, _state(step))
    if startup.loader:
        fit = startup.loader.facts and startup.loader.executable
        state = "loader" if fit else f"loader, {_state(startup.loader)}"
        yield from _node(depth + 1, startup.loader.path, state)
    for library, below in _tree(startup, depth + 1):
        yield from _library(library, below)
    if startup.loader and startup.loader.facts is None and (last := startup.steps[-1].facts):
        needed = f"without a loader, nothing looks for {_list(last.needed)}"
        yield from _node(depth + 1, needed) if last.needed else ()
    if startup.imports:
        yield from _wrapped(f"calls of it and its libraries: {_list(startup.imports)}")
    if startup.truncated:
        yield from _wrapped("The search is cut off here: there is more than what is looked at.")


def _state(step: Step) -> str:
    if step.facts is None:
        return NOT_FOUND
    return str(step.facts.linkage) if step.executable else "may not be executed"


def _tree(startup: Startup, depth: int) -> Iterator[tuple[Library, int]]:
    """Yield each library once, below what needs it."""
    below: dict[str, list[Library]] = {}
    for library in startup.libraries:
        below.setdefault(library.needed_by, []).append(library)
    todo: list[tuple[Library, int]] = []
    while todo or below:
        if not todo:  # the program's own come first; a root may name libraries to be preloaded
            own = next(iter(below))
            todo = [(library, depth) for library in reversed(below.pop(own))]
        library, at = todo.pop()
        yield library, at
        needed = below.pop(library.path, []) if library.path else []
        todo += [(each, at + 1) for each in reversed(needed)]


def _library(library: Library, depth: int) -> Iterator[str]:
    yield from _node(depth, library.name, library.path or NOT_FOUND)
    if not library.path:
        searched = _list(library.searched) or "nowhere"
        yield from _node(depth + 1, f"searched {searched}")
    if library.undefined:
        yield from _node(depth + 1, f"does not define {_list(library.undefined)}")


def _node(depth: int, name: str, found: str = "") -> list[str]:
    indent = 2 * min(depth + 1, _DEEPEST)
    lead = " " * indent
    return _wrapped(f"{name}: {found}" if found else name, indent=indent + 4, lead=lead)


def _prediction(predicted: Finding) -> Section:
    if predicted.verdict is Verdict.WORKS:
        lines = ["  works: no file is missing, as far as files decide it"]
    else:
        lines = [f"  {predicted.verdict}: {predicted.cause}", *_wrapped(predicted.explanation)]
    return Section(title="Prediction", lines=tuple(lines))


# --- what was seen --------------------------------------------------------------------------------


def _last(last: Record | None) -> Iterator[str]:
    if last is None:
        yield "  never run"
        return
    verdict = str(last.verdict or "none")
    yield from _row("verdict", f"{verdict} with {last.cause}" if last.cause else verdict)
    yield from _row("outcome", str(last.outcome))
    said = dict.fromkeys(filter(None, (last.explanation, last.reason)))
    if said:
        yield from _row("why", *said)
    engine = f", {last.engine.name} {last.engine.version}" if last.engine else ""
    yield from _row("when", f"{last.started_at}{engine}")
    if last.smoke:
        yield from _seen(last, last.smoke)


def _seen(last: Record, smoke: SmokeSeen) -> Iterator[str]:
    yield from _row("exit code", "" if smoke.exit_code is None else str(smoke.exit_code))
    for name, output in (("stdout", smoke.stdout), ("stderr", smoke.stderr)):
        lines = output.rstrip().splitlines()[-_LAST_LINES:]
        if lines:
            yield from _row(name, *lines)
    for name, text in zip(("start-up", "peak memory"), table.measured(last), strict=True):
        if text:
            yield from _row(name, f"{text}, the median of {smoke.runs} runs")


def _remedies(known: Explanation) -> Iterator[str]:
    yield from (line for remedy in known.remedies for line in _wrapped(remedy, indent=2))
    if known.not_run:
        yield from _wrapped(f"not run yet: {_list(known.not_run)}")
    if not (known.remedies or known.not_run):
        yield from _wrapped(
            f"none of {known.plan.variant.program}'s variants near it was seen to work"
        )


def style(section: Section, line: str) -> str:
    """Return the style of a line on a terminal, in rich's words."""
    if section.loud:
        return "bold red"
    return "red" if NOT_FOUND in line or "does not define" in line else ""
