"""The form of ``variants.yaml`` and of the catalogue, as pydantic models.

Each field says what it means; the JSON Schema that editors use is generated from here. Names are
checked against what is known (`Known`, the validation context), so that one pass finds every
mistake and where it stands.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    WithJsonSchema,
    model_validator,
)

from nox_variants.errors import did_you_mean
from nox_variants.model import Cause, Libs, LinkMode, Need, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pydantic import GetJsonSchemaHandler
    from pydantic_core.core_schema import CoreSchema

LONGEST = 24 * 3600
"""Seconds that a timeout may be at most."""

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
"""A path component of a repository name (OCI distribution-spec, "Pulling manifests")."""

_NAME = r"[A-Za-z0-9][A-Za-z0-9._/:+@-]*"
_PACKAGE = r"[a-z0-9][a-z0-9+.-]*(?::[a-z0-9-]+)?(?:=[A-Za-z0-9.+~:-]+)?"
_LONGEST_NAME = 100
_RESERVED = "matrix"
_SCRATCH = "scratch"

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h)")
_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kMGT]?i?)B?")
_UNITS = {"": 0, "k": 1, "K": 1, "M": 2, "G": 3, "T": 4}
_LARGEST = 2**50


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """The names that a file may use: its own and the catalogue's."""

    images: frozenset[str]
    languages: frozenset[str]


def _unknown(what: str, word: str, known: Iterable[str]) -> ValueError:
    names = sorted(known)
    hint = did_you_mean(word, names) or f" Known are {', '.join(names)}."
    return ValueError(f"unknown {what} {word!r}.{hint}")


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _distinct(values: list[Any]) -> list[Any]:
    for at, value in enumerate(values):
        if value in values[:at]:
            raise ValueError(f"{str(value)!r} is there twice.")
    return values


def _seconds(value: Any) -> Any:
    if isinstance(value, str) and (match := _DURATION.fullmatch(value)):
        value = float(match[1]) * _SECONDS[match[2]]
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= LONGEST:
        raise ValueError(f"{value!r} is no time between 0 and 24 hours. Write 5s, 500ms or 2m.")
    return float(value)


def _bytes(value: Any) -> Any:
    if isinstance(value, str) and (match := _SIZE.fullmatch(value)):
        base = 1024 if match[2].endswith("i") else 1000
        value = math.floor(float(match[1]) * base ** _UNITS[match[2].removesuffix("i")])
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < _LARGEST:
        raise ValueError(f"{value!r} is no size. Write 64MB, 512KiB or a number of bytes.")
    return value


def _image(value: str, info: ValidationInfo) -> str:
    if info.context is not None and value not in info.context.images:
        raise _unknown("image", value, info.context.images)
    return value


def _language(value: str, info: ValidationInfo) -> str:
    if info.context is not None and value not in info.context.languages:
        raise _unknown("language", value, info.context.languages)
    return value


def _word(
    what: str, choices: type[LinkMode | Verdict | Cause | Libs | Need]
) -> Callable[[str], Any]:
    """Return a validator that turns a word into a member of an enum."""

    def check(value: str) -> Any:
        if value in choices.__members__.values():
            return choices(value)
        raise _unknown(what, value, choices.__members__.values())

    return check


def _program_name(value: str) -> str:
    if value == _RESERVED:
        raise ValueError(f"{value!r} is reserved: it is the session that runs every variant.")
    if not re.fullmatch(_COMPONENT, value) or len(value) > _LONGEST_NAME:
        raise ValueError(
            f"{value!r} cannot be a program's name. It becomes the image's: lower-case letters"
            f" and digits, with single dots, underscores or dashes between, at most"
            f" {_LONGEST_NAME} characters."
        )
    return value


def _new_image_name(value: str) -> str:
    if value == _SCRATCH:
        raise ValueError("'scratch' is built in: it is the empty image.")
    return _new_name(value)


def _new_name(value: str) -> str:
    if not re.fullmatch(_NAME, value) or len(value) > _LONGEST_NAME:
        raise ValueError(
            f"{value!r} cannot be a name. Use letters, digits and . _ / : + @ -, at most"
            f" {_LONGEST_NAME} characters."
        )
    return value


def _package(value: str) -> str:
    if not re.fullmatch(_PACKAGE, value):
        raise ValueError(f"{value!r} is no package. Write NAME, NAME:ARCHITECTURE or NAME=VERSION.")
    return value


def _absolute(value: str) -> str:
    parts = value.split("/")
    if parts[0] or not value.strip("/") or {"", ".", ".."} & set(parts[1:]):
        raise ValueError(
            f"{value!r} is no absolute path. Write it from the root of the image, without '..':"
            " the folder in which commands run differs from image to image."
        )
    return value


def _inside(value: str) -> str:
    if value.startswith("/") or ".." in value.split("/") or not value:
        raise ValueError(
            f"{value!r} leads out of the folder of this file. Write a path below it; to use"
            " sources from elsewhere, put the file above them."
        )
    return value


def _variable(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", value):
        raise ValueError(f"{value!r} is no name of an environment variable.")
    return value


def _text(value: str) -> str:
    if "\0" in value:
        raise ValueError("a null character cannot be passed to a program.")
    return value


def _pattern(value: str) -> str:
    try:
        re.compile(value)
    except re.error as error:
        raise ValueError(f"{value!r} is no regular expression: {error}.") from error
    return value


def _request_path(value: str) -> str:
    if not re.fullmatch(r"/[!-~]*", value):
        raise ValueError(f"{value!r} is no path of a request. Begin it with '/', escape the rest.")
    return value


def _command(value: Any) -> Any:
    words = [value] if isinstance(value, str) else value
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise ValueError(f"{value!r} is no command. Write a list of words, or text for /bin/sh.")
    if not words or not words[0].strip():
        raise ValueError("an image has to start something. Leave cmd out to start what is built.")
    for word in words:
        _text(word)
        if unknown := set(re.findall(r"(?<!\$)\{[a-z_]+\}", word)) - {"{program}", "{artifact}"}:
            hint = "Known are {artifact} and {program}."
            raise ValueError(f"{min(unknown)} stands for nothing. {hint}")
    return value


_NAMES_SCHEMA = {
    "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]
}


def _names(item: Any) -> Any:
    """Return the type of one name or a list of them."""
    return Annotated[
        list[item],
        BeforeValidator(_listed),
        Field(min_length=1),
        AfterValidator(_distinct),
        WithJsonSchema(_NAMES_SCHEMA),
    ]


Text = Annotated[str, AfterValidator(_text)]
ImageName = Annotated[str, AfterValidator(_image)]
LanguageName = Annotated[str, AfterValidator(_language)]
NewName = Annotated[str, AfterValidator(_new_name)]
AbsolutePath = Annotated[str, AfterValidator(_absolute)]
InsidePath = Annotated[str, AfterValidator(_inside)]
Environment = dict[Annotated[str, AfterValidator(_variable)], Text]
Command = Annotated[
    Any,
    BeforeValidator(_command),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string"},
                {"type": "array", "items": {"type": "string"}, "minItems": 1},
            ]
        }
    ),
]
LibsName = Annotated[
    str,
    AfterValidator(_word("value of libs", Libs)),
    WithJsonSchema({"enum": [*Libs]}),
]
NeedName = Annotated[
    str,
    AfterValidator(_word("need", Need)),
    WithJsonSchema({"enum": [*Need]}),
]
Pattern = Annotated[str, AfterValidator(_pattern)]
Link = Annotated[
    str,
    AfterValidator(_word("link mode", LinkMode)),
    WithJsonSchema({"enum": [*LinkMode]}),
]
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
if TYPE_CHECKING:
    Globs = list[str]
    Commands = list[str]
    Packages = list[str]
    ImageNames = list[str]
    Links = list[LinkMode]
    LibsNames = list[Libs]
    Needs = list[Need]
else:
    Globs = _names(Text)
    Commands = _names(Text)
    Packages = _names(Annotated[str, AfterValidator(_package)])
    ImageNames = _names(ImageName)
    Links = _names(Link)
    LibsNames = _names(LibsName)
    Needs = _names(NeedName)


class Form(BaseModel):
    """What all forms have in common: nothing unknown, nothing converted."""

    model_config = ConfigDict(extra="forbid", strict=True, defer_build=True)


class SelectorForm(Form):
    """Which variants a rule is about; an axis that is left out matches everything."""

    run: Globs | None = Field(None, description="Run images: a name, a list, or globs.")
    link: Globs | None = Field(None, description="Link modes: a name, a list, or globs.")
    build: Globs | None = Field(None, description="Build images: a name, a list, or globs.")


class IncludeForm(Form):
    """One combination more."""

    run: ImageName = Field(description="The run image.")
    link: Link = Field(description="The link mode.")
    build: ImageName | None = Field(
        None, description="The build image; by default the language's for that link mode."
    )
    libs: LibsName = Field(
        Libs.NONE,
        description="`bundle`: the loader and the libraries come along; the id says dynamic+libs.",
    )

    @model_validator(mode="after")
    def _libraries_of_a_dynamic_program(self) -> Self:
        if self.libs == Libs.BUNDLE and self.link != LinkMode.DYNAMIC:
            raise ValueError("libs: bundle is for link: dynamic; a static program has none.")
        return self


class ExpectForm(SelectorForm):
    """What is expected of the variants that the axes select; the last rule that matches counts."""

    verdict: Annotated[
        str,
        AfterValidator(_word("verdict", Verdict)),
        WithJsonSchema({"enum": [*Verdict]}),
    ] = Field(description="`works` or `fails`.")
    cause: Annotated[
        str | None,
        AfterValidator(lambda value: value and _word("cause", Cause)(value)),
        WithJsonSchema({"enum": [*Cause]}),
    ] = Field(None, description="Why it fails; any cause when left out.")

    @model_validator(mode="after")
    def _cause_of_a_failure(self) -> Self:
        if self.cause and self.verdict == Verdict.WORKS:
            raise ValueError("what works has no cause. Write verdict: fails, or leave cause out.")
        return self


class ServiceForm(Form):
    """How a program that serves HTTP is tried: one request when it listens, then SIGTERM."""

    port: Annotated[int, Field(ge=1, le=65535)] = Field(description="The TCP port it listens on.")
    path: Annotated[str, AfterValidator(_request_path)] = Field(
        "/", description="The request's path."
    )
    status: Annotated[int, Field(ge=100, le=599)] = Field(
        200, description="The status that counts as success."
    )
    body: Text | None = Field(None, description="The exact body.")
    matches: Pattern | None = Field(
        None, description="A Python regular expression that must be found in the body."
    )
    stop: Seconds = Field(2.0, description="How long it may take to end after SIGTERM.")


class SmokeForm(Form):
    """How variants are smoke-run, and what must come of it."""

    args: list[Text] = Field([], description="Arguments added to the image's command.")
    env: Environment = Field({}, description="Environment added to the image's.")
    stdin: str | None = Field(None, description="Text on standard input.")
    stdout: str | None = Field(None, description="The exact standard output.")
    matches: Pattern | None = Field(
        None, description="A Python regular expression that must be found in standard output."
    )
    exit_code: Annotated[int, Field(ge=0, le=255)] = Field(
        0, description="The exit code that counts as success."
    )
    timeout: Seconds = Field(10.0, description="Wall time after which everything is killed.")
    memory: Bytes = Field(512 * 1024 * 1024, description="Resident memory of all its processes.")
    processes: Annotated[int, Field(ge=1, le=10_000)] = Field(
        128, description="Processes and threads."
    )
    output: Bytes = Field(
        1024 * 1024, description="Bytes kept of standard output and of standard error."
    )
    file_size: Bytes = Field(64 * 1024 * 1024, description="Bytes that a file may grow to.")
    service: ServiceForm | None = Field(
        None, description="The program is a server: it is asked once, then told to end."
    )
    needs: Needs = Field(
        [],
        description="What the program asks of its image; the run answers without a network:"
        " certificates (https://fixture.test/), names (name.fixture.test), time-zones, users.",
    )


class ProgramForm(Form):
    """A program: its combinations are the product of `run` and `link` (and `build`)."""

    language: LanguageName = Field(description="The language, of the catalogue or of this file.")
    source: InsidePath = Field(description="The source folder, relative to this file.")
    run: ImageNames = Field(description="Run images.")
    link: Links = Field([LinkMode.DYNAMIC], description="Link modes: dynamic, static, musl.")
    build: ImageNames | None = Field(
        None, description="Build images; by default the language's for each link mode."
    )
    libs: LibsNames = Field(
        [Libs.NONE],
        description="`bundle`: dynamic variants bring the loader and the libraries they need;"
        " [none, bundle] makes both.",
    )
    cmd: Command | None = Field(
        None,
        description="The image's command: a list (exec form) or text (run by /bin/sh, which the"
        " image must have). `{artifact}` is the built file's path in the image, `{program}` the"
        " program's name. By default the built file itself.",
    )
    include: list[IncludeForm] = Field([], description="Combinations added to the product.")
    exclude: list[SelectorForm] = Field([], description="Combinations taken out of the product.")
    expect: list[ExpectForm] = Field(
        [], description="What does not work, and why; everything else is expected to work."
    )
    smoke: SmokeForm = Field(SmokeForm(), description="The smoke run.")
    network: Literal["default", "none"] = Field(
        "default", description="Whether the build may use the network."
    )


class ShorthandForm(Form):
    """A mapping that may be written as its one important value."""

    shorthand: ClassVar[str]
    plain: ClassVar[dict[str, Any]] = {"type": "string"}

    @model_validator(mode="before")
    @classmethod
    def _expand(cls, value: Any) -> Any:
        return {cls.shorthand: value} if isinstance(value, (str, list)) else value

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {"anyOf": [cls.plain, handler.resolve_ref_schema(handler(core))]}


class RegistryForm(ShorthandForm):
    """An image of a registry."""

    shorthand = "reference"

    reference: Text = Field(description="`ubuntu:24.04`, `registry.example.com/base@sha256:...`.")
    insecure: bool = Field(
        default=False,
        description="Whether the registry is asked in plain http; daemons have their own word.",
    )
    setup: list[Text] = Field([], description="Shell commands run on top.")


class AptForm(ShorthandForm):
    """A stand-in made from the host's Debian or Ubuntu packages."""

    shorthand = "packages"
    plain = _NAMES_SCHEMA

    packages: Packages | None = Field(
        None, description="Packages; what they depend on comes along."
    )
    setup: list[Text] = Field(
        [], description="Shell commands run on top: no maintainer script runs."
    )
    unavailable: str | None = Field(
        None, description="Why packages can never give this image; in place of packages."
    )

    @model_validator(mode="after")
    def _packages_or_reason(self) -> Self:
        if (self.packages is None) == (self.unavailable is None):
            raise ValueError("name packages, or say why they are unavailable.")
        return self


class ArchiveForm(ShorthandForm):
    """An image of a file."""

    shorthand = "path"

    path: InsidePath = Field(description="A root filesystem or OCI archive, relative to this file.")
    setup: list[Text] = Field([], description="Shell commands run on top.")


class ImageForm(Form):
    """An image: the first source that can be had is used, registry before apt before archive.

    Of an image that the catalogue has too, each key replaces the catalogue's; null removes it.
    """

    registry: RegistryForm | None = Field(
        None, description="A registry reference, or a mapping with its own setup."
    )
    apt: AptForm | None = Field(
        None, description="Packages of a stand-in, or a mapping with its own setup."
    )
    archive: ArchiveForm | None = Field(
        None, description="An archive's path, or a mapping with its own setup."
    )
    setup: list[Text] = Field(
        [], description="Shell commands run on top of any source, after its own."
    )
    env: Environment = Field(
        {}, description="Environment of the image, where its source does not carry one."
    )


class RecipeForm(Form):
    """How a language builds for one link mode."""

    build: ImageName = Field(description="The default build image.")
    commands: Commands = Field(
        description="Shell commands, run in the source folder; `{program}` stands for the"
        " program's name."
    )
    env: Environment = Field({}, description="Environment of the commands.")


class LanguageForm(Form):
    """A language: data, not code.

    Of a language that the catalogue has too, each key replaces the catalogue's; link modes are
    added to the catalogue's.
    """

    artifact: AbsolutePath | None = Field(
        None,
        description="Absolute path of the built program in the build image; `{program}` stands for"
        " its name. Required, but where the catalogue has it.",
    )
    link: dict[Link, RecipeForm] = Field({}, description="How it builds, by link mode.")
    caches: list[AbsolutePath] = Field(
        [], description="Absolute paths in the build image that are kept between builds."
    )
    static_by_nature: bool = Field(
        default=False, description="Whether a dynamic build may rightly come out static."
    )
    mismatch_hint: str = Field("", description="What to do when a build is not linked as asked.")


class File(Form):
    """Programs, and the images they are built in and run on."""

    version: Literal[1] = Field(description="The version of this form.")
    programs: dict[Annotated[str, AfterValidator(_program_name)], ProgramForm] = Field(
        min_length=1, description="Programs by name: OCI repository names."
    )
    images: dict[Annotated[str, AfterValidator(_new_image_name)], ImageForm] = Field(
        {}, description="Images that the catalogue lacks, or in place of its own."
    )
    languages: dict[NewName, LanguageForm] = Field(
        {}, description="Languages that the catalogue lacks, or in place of its own."
    )
