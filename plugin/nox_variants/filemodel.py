"""The form of ``variants.yaml`` and of the catalogue, as pydantic models with their documentation.

The JSON Schema that editors use is generated from here.
"""

from __future__ import annotations

import math
import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from nox_variants.model import Cause, Verdict

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h)")
_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kMGT]?i?)B?")
_UNITS = {"": 0, "k": 1, "M": 2, "G": 3, "T": 4}

LONGEST = 24 * 3600
"""Seconds that a timeout may be at most."""


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _seconds(value: Any) -> Any:
    if isinstance(value, str) and (match := _DURATION.fullmatch(value)):
        value = float(match[1]) * _SECONDS[match[2]]
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= LONGEST:
        raise ValueError(f"{value!r} is no time between 0 and 24 hours: write 5s, 500ms or 2m")
    return float(value)


def _bytes(value: Any) -> Any:
    if isinstance(value, str) and (match := _SIZE.fullmatch(value)):
        base = 1024 if match[2].endswith("i") else 1000
        value = math.floor(float(match[1]) * base ** _UNITS[match[2].removesuffix("i")])
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 2**50:
        raise ValueError(f"{value!r} is no size: write 64MB, 512KiB or a number of bytes")
    return value


def _reference(value: Any) -> Any:
    return {"reference": value} if isinstance(value, str) else value


def _packages(value: Any) -> Any:
    return {"packages": value} if isinstance(value, (str, list)) else value


_NAMES = {
    "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]
}

Names = Annotated[list[str], BeforeValidator(_listed), Field(min_length=1), WithJsonSchema(_NAMES)]
Seconds = Annotated[
    float,
    BeforeValidator(_seconds),
    WithJsonSchema({"type": ["string", "number"], "examples": ["5s", "500ms", "2m"]}),
]
Bytes = Annotated[
    int,
    BeforeValidator(_bytes),
    WithJsonSchema({"type": ["string", "integer"], "examples": ["64MB", "512KiB"]}),
]


class Form(BaseModel):
    """What all forms have in common: nothing unknown, nothing converted."""

    model_config = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)


class SelectorForm(Form):
    """Which variants a rule is about; an axis that is left out matches everything."""

    run: Names | None = None
    """Run images: a name, a list, or globs."""
    link: Names | None = None
    """Link modes: a name, a list, or globs."""
    build: Names | None = None
    """Build images: a name, a list, or globs."""


class IncludeForm(Form):
    """One combination more."""

    run: str
    """The run image."""
    link: str
    """The link mode."""
    build: str | None = None
    """The build image; by default the language's for that link mode."""


class ExpectForm(SelectorForm):
    """What is expected of the variants that the axes select; the last rule that matches counts."""

    verdict: Annotated[str, WithJsonSchema({"enum": [*Verdict]})]
    """`works` or `fails`."""
    cause: Annotated[str | None, WithJsonSchema({"enum": [*Cause]})] = None
    """Why it fails; any cause when left out."""


class SmokeForm(Form):
    """How variants are smoke-run, and what must come of it."""

    args: list[str] = []
    """Arguments added to the image's command."""
    env: dict[str, str] = {}
    """Environment added to the image's."""
    stdin: str | None = None
    """Text on standard input."""
    stdout: str | None = None
    """The exact standard output."""
    matches: str | None = None
    """A Python regular expression that must be found in standard output."""
    exit_code: Annotated[int, Field(ge=0, le=255)] = 0
    """The exit code that counts as success."""
    timeout: Seconds = 10.0
    """Wall time after which everything is killed."""
    memory: Bytes = 512 * 1024 * 1024
    """Resident memory of all its processes."""
    processes: Annotated[int, Field(ge=1, le=10_000)] = 128
    """Processes and threads."""
    output: Bytes = 1024 * 1024
    """Bytes kept of standard output and of standard error."""
    file_size: Bytes = 64 * 1024 * 1024
    """Bytes that a file may grow to."""


class ProgramForm(Form):
    """A program: its combinations are the product of `run` and `link` (and `build`)."""

    language: str
    """The language, of the catalogue or of this file."""
    source: str
    """The source folder, relative to this file."""
    run: Names
    """Run images."""
    link: Names = ["dynamic"]
    """Link modes: dynamic, static, musl."""
    build: Names | None = None
    """Build images; by default the language's for each link mode."""
    include: list[IncludeForm] = []
    """Combinations added to the product."""
    exclude: list[SelectorForm] = []
    """Combinations taken out of the product."""
    expect: list[ExpectForm] = []
    """What does not work, and why; everything else is expected to work."""
    smoke: SmokeForm = SmokeForm()
    """The smoke run."""
    network: Literal["default", "none"] = "default"
    """Whether the build may use the network."""


class RegistryForm(Form):
    """An image of a registry."""

    reference: str
    """`ubuntu:24.04`, `registry.example.com/team/base@sha256:...`."""
    setup: list[str] = []
    """Shell commands run on top."""


class AptForm(Form):
    """A stand-in made from the host's Debian or Ubuntu packages."""

    packages: Names = []
    """Packages; what they depend on comes along."""
    setup: list[str] = []
    """Shell commands run on top: no maintainer script runs."""
    unavailable: str | None = None
    """Why packages can never give this image."""


class ArchiveForm(Form):
    """An image of a file."""

    path: str
    """A root filesystem or OCI archive, relative to this file."""
    setup: list[str] = []
    """Shell commands run on top."""


class ImageForm(Form):
    """An image: the first source that can be had is used, registry before apt before archive."""

    registry: Annotated[
        RegistryForm | None,
        BeforeValidator(_reference),
        WithJsonSchema({"anyOf": [{"type": "string"}, RegistryForm.model_json_schema()]}),
    ] = None
    """A registry reference, or a mapping with its own setup."""
    apt: Annotated[
        AptForm | None,
        BeforeValidator(_packages),
        WithJsonSchema({"anyOf": [*_NAMES["anyOf"], AptForm.model_json_schema()]}),
    ] = None
    """Packages of a stand-in, or a mapping with its own setup."""
    archive: Annotated[
        ArchiveForm | None,
        BeforeValidator(lambda value: {"path": value} if isinstance(value, str) else value),
        WithJsonSchema({"anyOf": [{"type": "string"}, ArchiveForm.model_json_schema()]}),
    ] = None
    """An archive's path, or a mapping with its own setup."""
    setup: list[str] = []
    """Shell commands run on top of any source, after its own."""
    env: dict[str, str] = {}
    """Environment of the image, where its source does not carry one."""


class RecipeForm(Form):
    """How a language builds for one link mode."""

    build: str
    """The default build image."""
    commands: Names
    """Shell commands, run in the source folder; `{program}` stands for the program's name."""
    env: dict[str, str] = {}
    """Environment of the commands."""


class LanguageForm(Form):
    """A language: data, not code."""

    artifact: str
    """Absolute path of the built program in the build image; `{program}` stands for its name."""
    link: dict[str, RecipeForm]
    """How it builds, by link mode."""
    caches: list[str] = []
    """Absolute paths in the build image that are kept between builds."""
    static_by_nature: bool = False
    """Whether a dynamic build may rightly come out static."""
    mismatch_hint: str = ""
    """What to do when a build is not linked as asked."""


class File(Form):
    """Programs, and the images they are built in and run on."""

    version: Literal[1]
    """The version of this form."""
    programs: dict[str, ProgramForm]
    """Programs by name: OCI repository names."""
    images: dict[str, ImageForm] = {}
    """Images that the catalogue lacks, or in place of its own."""
    languages: dict[str, LanguageForm] = {}
    """Languages that the catalogue lacks, or in place of its own."""
