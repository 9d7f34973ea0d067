"""One variant's result in one run: the record, as a value and as JSON (``record.schema.json``)."""

from __future__ import annotations

import functools
import json
from contextlib import suppress
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import TYPE_CHECKING, Any, ClassVar

from nox_variants import jsontext
from nox_variants.limits import Level, Measure
from nox_variants.model import Cause, Digest, Libs, LinkMode, SourceKind, Verdict
from nox_variants.results import EngineName, Linkage, Outcome, Role, ServiceSeen, Sizes

if TYPE_CHECKING:
    from collections.abc import Collection

    from pydantic import TypeAdapter

SCHEMA = 2
"""Version of the record's form; a newer one is never read as an older."""

OUTPUT_KEPT = 4096
"""Characters of a program's output that a record keeps, of each stream."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineUsed:
    """The engine that built and ran the variant."""

    name: EngineName
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageUsed:
    """An image that the variant was built in or run on.

    Attributes:
        name: The image's name in the file.
        role: Built in, or run on.
        source: The source that gave it.
        reference: Registry reference, archive path, or the apt packages asked for.
        digest: Digest of its content.
        stand_in: Whether it only stands in for the image of that name.
        packages: ``name=version`` of everything in it, where that is known.
        pinned: ``alpine:3.20@sha256:...``: by which its registry gives this very content again,
            without its setup; empty for other sources, and where only a daemon has it.
    """

    name: str
    role: Role
    source: SourceKind
    reference: str
    digest: Digest
    stand_in: bool
    packages: tuple[str, ...]
    pinned: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageMade:
    """The variant's image.

    Attributes:
        config_digest: Its id.
        tag: ``PROGRAM:TAG``.
        path: Where its layout lies from the file's folder; empty where a daemon has it.
        published: Where it was pushed to, each with the digest of its manifest there; the newest is
            the last: ``ghcr.io/me/demo/hello-c:gcc-static.scratch@sha256:...``.
    """

    config_digest: Digest
    tag: str
    path: str
    published: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """A verdict and its cause, as expected or as predicted. A null cause stands for any."""

    verdict: Verdict
    cause: Cause | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkageSeen:
    """How the artifact was asked to be linked, and how it is.

    Attributes:
        requested: The link mode asked for.
        actual: How it is linked.
        interpreter: PT_INTERP; empty when there is none.
        needed: DT_NEEDED, in order.
        glibc: The highest GLIBC symbol version required; empty when none.
        compiler: What compiled it, in its own words: ``GCC: (Debian 12.2.0-14) 12.2.0``; empty
            when the file does not say.
    """

    requested: LinkMode
    actual: Linkage
    interpreter: str
    needed: tuple[str, ...]
    glibc: str
    compiler: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seconds:
    """Wall time in seconds. ``build`` is the compile's own, also when it came from the cache."""

    images: float | None = None
    build: float | None = None
    assemble: float | None = None
    smoke: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SmokeSeen:
    """What was seen of the smoke run: of the first that went wrong where it was repeated.

    Attributes:
        exit_code: Null when a limit ended it.
        signal: The number of the signal that ended it; null when none did.
        stdout: Bounded.
        stderr: Likewise.
        truncated: Whether output was cut off.
        timed_out: Whether it was ended for its time.
        service: Null where the program is asked for no answer.
        runs: How many runs there were, one after another; all but the last worked.
        startup_ms: Milliseconds from its execution until the program exits by itself, or until a
            server has answered its request; the median of all runs in which that was seen, null
            when it never was. What it takes an engine to execute a program and to notice its end
            is part of it: compare times of one engine.
        peak_memory: Bytes of the most resident memory that one of its processes had (VmHWM of
            Linux); or of what several had together when they were looked at, without pages of
            files, if that is more. The median likewise. Null where a single run was asked for,
            where a signal of its own ended it, and on engines that do not tell.
    """

    exit_code: int | None
    signal: int | None
    stdout: str
    stderr: str
    truncated: bool
    timed_out: bool
    service: ServiceSeen | None = None
    runs: int = 1
    startup_ms: float | None = None
    peak_memory: int | None = None


class Against(StrEnum):
    """What a budget's limit comes from."""

    LIMIT = "limit"
    RATCHET = "ratchet"
    BASELINE = "baseline"
    LAST = "last"


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetCheck:
    """One limit of a budget, held against what was measured: in bytes, or in seconds for times.

    Attributes:
        measure: What has the limit.
        against: A limit of the file, the ratchet's, or growth since the baseline or the last run.
        level: What it comes to when it is exceeded.
        value: What was measured; null when it was not.
        limit: The most that it may be.
        reference: What it grew from; null for limits that are no growth.
        exceeded: Whether it is more than the limit.
        explanation: A sentence where it is, or was not measured; else empty.
    """

    measure: Measure
    against: Against
    level: Level
    value: float | None
    limit: float
    reference: float | None = None
    exceeded: bool = False
    explanation: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One variant's result in one run.

    Attributes:
        schema: Version of this form.
        run_id: The invocation that made it; sorts by time.
        variant: The variant's id.
        program: The program's name.
        language: The language's name.
        build_image: The build image's name in the file.
        run_image: The run image's name in the file.
        link: The link mode asked for.
        libs: Whether the libraries that it needs come along.
        platform: ``linux/amd64``.
        engine: What built and ran it; null when no engine was usable.
        started_at: UTC, ISO 8601.
        git_commit: The commit of the file's folder; null outside a repository.
        images: The images that were used, as far as they could be had.
        image: The variant's image; null when there is none.
        verdict: Whether the program works there; null when that was not found out.
        cause: Why it fails.
        explanation: The cause as a sentence.
        expected: What the file expects.
        predicted: What the files alone let expect; null when there is no image.
        contradiction: A sentence where that was wrong, a defect of ours; else empty.
        shell: Whether the image has a shell; null when there is no image.
        outcome: The verdict held against the expectation.
        reason: Why the outcome is what it is, where the verdict alone does not say it.
        linkage: Link facts of the artifact; null when there is none.
        sizes: In bytes; null when there is no image.
        seconds: Wall time.
        build_cached: Whether nothing had to be compiled; null when nothing was built.
        smoke: The smoke run; null when there was none.
        budget: Every limit of its budgets that was looked at; empty where it does not work.
        tools: Versions of the tools that made the record.
    """

    __pydantic_config__: ClassVar[dict[str, str | bool]] = {
        "extra": "forbid",
        "title": "Record",
        "allow_inf_nan": False,  # JSON has no such numbers: they would be written as null
    }

    schema: int = SCHEMA
    run_id: str
    variant: str
    program: str
    language: str
    build_image: str
    run_image: str
    link: LinkMode
    libs: Libs = Libs.NONE
    platform: str
    engine: EngineUsed | None
    started_at: str
    git_commit: str | None
    images: tuple[ImageUsed, ...] = ()
    image: ImageMade | None = None
    verdict: Verdict | None = None
    cause: Cause | None = None
    explanation: str = ""
    expected: Judgement
    predicted: Judgement | None = None
    contradiction: str = ""
    shell: bool | None = None
    outcome: Outcome
    reason: str = ""
    linkage: LinkageSeen | None = None
    sizes: Sizes | None = None
    seconds: Seconds = field(default_factory=Seconds)
    build_cached: bool | None = None
    smoke: SmokeSeen | None = None
    budget: tuple[BudgetCheck, ...] = ()
    tools: dict[str, str]

    @property
    def single_stage(self) -> bool:
        """Whether the build image itself is shipped: the baseline of the series' table."""
        return self.build_image == self.run_image

    @property
    def linking(self) -> str:
        """The link mode as ids have it: ``dynamic+libs`` with its libraries."""
        return f"{self.link}+libs" if self.libs is Libs.BUNDLE else str(self.link)

    @property
    def source(self) -> str:
        """Where its images come from: ``registry``, ``apt``, or ``apt+registry`` for both.

        What stand-ins gave is not to be compared with what the images of that name gave.
        """
        kinds = {image.source for image in self.images} - {SourceKind.SCRATCH}
        return "+".join(sorted(kinds)) or SourceKind.SCRATCH


def to_text(record: Record, *, packages: bool = True) -> str:
    """Return the record as JSON in one line, with or without its images' lists of packages.

    Raises:
        ValueError: A number is none that JSON has.
    """
    return (_WHOLE if packages else _WITHOUT_PACKAGES).encode(record)


def _encoder(left_out: Collection[str]) -> json.JSONEncoder:
    """Return what writes dataclasses, in the order of the documentation.

    Pydantic would write the same, and take longer to get ready than a hundred records take.
    """

    def values(part: Any) -> dict[str, object]:
        names = (each.name for each in fields(part))
        return {name: getattr(part, name) for name in names if name not in left_out}

    return json.JSONEncoder(
        default=values, ensure_ascii=False, allow_nan=False, separators=(",", ":")
    )


_WHOLE, _WITHOUT_PACKAGES = _encoder(()), _encoder({"packages"})


def from_json(values: object) -> Record:
    """Return the record that JSON values hold; one of an older form is migrated.

    Raises:
        ValueError: When they do not have the form of ``record.schema.json``
            (a :class:`pydantic.ValidationError`), or have a newer one.
    """
    return _adapter().validate_python(_migrated(values))


def from_text(text: bytes) -> Record:
    """Return the record that a JSON text holds, as :func:`from_json` does, in less time.

    Raises:
        ValueError: As there, or it is no JSON.
    """
    from pydantic import ValidationError  # noqa: PLC0415  # with records only

    with suppress(ValidationError):
        record = _adapter().validate_json(text)
        if record.schema == SCHEMA:
            return record
    return from_json(jsontext.parsed(text))


def _migrated(values: object) -> object:
    """Return the values in today's form."""
    if not isinstance(values, dict) or not isinstance(form := values.get("schema"), int):
        return values
    if form > SCHEMA:
        raise ValueError(
            f"the record is of a newer nox-variants (schema {form}; this one knows {SCHEMA})."
            " Upgrade nox-variants."
        )
    # Schema 1 had no checks of budgets, and did not know the compiler.
    return {**values, "schema": SCHEMA, "budget": []} if form == 1 else values


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of one record."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "nox-variants record",
        **_adapter().json_schema(),
    }


@functools.cache
def _adapter() -> TypeAdapter[Record]:
    from pydantic import TypeAdapter  # noqa: PLC0415  # with records only

    return TypeAdapter(Record)
