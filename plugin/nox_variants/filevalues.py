"""The values of ``variants.yaml``, as types that pydantic checks: names, paths, sizes, times."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, WithJsonSchema

from nox_variants.errors import ImageError, did_you_mean
from nox_variants.limits import Growth
from nox_variants.model import Cause, Libs, LinkMode, Need, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

LONGEST = 24 * 3600
"""Seconds that a timeout may be at most."""

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
"""A path component of a repository name (OCI distribution-spec, "Pulling manifests")."""

_NAME = r"[A-Za-z0-9][A-Za-z0-9._/:+@-]*"
_PACKAGE = r"[a-z0-9][a-z0-9+.-]*(?::[a-z0-9-]+)?(?:=[A-Za-z0-9.+~:-]+)?"
_ACCOUNT = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,31}"
_LONGEST_NAME = 100
_RESERVED = "matrix"
_SCRATCH = "scratch"

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h)")
_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600}
_SIZE = re.compile(r"(\d{1,20}(?:\.\d{1,20})?)\s*([kKMGT]?i?)B?")
_UNITS = {"": 0, "k": 1, "K": 1, "M": 2, "G": 3, "T": 4}
_LARGEST = 2**50
_PERCENT = re.compile(r"(\d+(?:\.\d+)?)\s*%")


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


def _growth(amount: Callable[[Any], Any], example: str) -> Callable[[Any], Any]:
    """Return a validator of how much more something may be: a percentage, or an amount."""

    def check(value: Any) -> Any:
        if isinstance(value, str) and (match := _PERCENT.fullmatch(value)):
            return Growth(ratio=float(match[1]) / 100)
        if value == 0 and not isinstance(value, bool):
            return Growth(amount=0)
        try:
            return Growth(amount=amount(value))
        except ValueError:
            raise ValueError(f"{value!r} is no growth. Write 5% or {example}.") from None

    return check


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


def _repository(value: str) -> str:
    from nox_variants.images.reference import parse_reference  # noqa: PLC0415  # few files have one

    example = "Write registry.example.com/team/cache."
    digest, tag = "@" in value, ":" in value.rpartition("/")[2]
    if digest or tag:
        what = "a digest" if digest else "a tag"
        raise ValueError(f"{value!r} has {what}, but each build gets a tag of its own. {example}")
    try:
        parse_reference(value)
    except ImageError as error:
        raise ValueError(f"{error.message}. {example}") from error
    return value


def _absolute(value: str) -> str:
    parts = value.split("/")
    if parts[0] or not value.strip("/") or {"", ".", ".."} & set(parts[1:]):
        raise ValueError(
            f"{value!r} is no absolute path. Write it from the root of the image, without '..':"
            " the folder in which commands run differs from image to image."
        )
    return value


def _user(value: str) -> str:
    if not re.fullmatch(rf"{_ACCOUNT}(:{_ACCOUNT})?", value):
        raise ValueError(f"{value!r} is no user. Write NAME, UID, NAME:GROUP or UID:GID.")
    return value


def _label(value: str) -> str:
    if not re.fullmatch(r"[a-z0-9]+(?:[.-][a-z0-9]+)*", value):
        raise ValueError(
            f"{value!r} is no key of a label. Use lower-case letters and digits, with single dots"
            " and dashes between."
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


NAMES_SCHEMA: dict[str, Any] = {
    "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]
}


def _names(item: Any) -> Any:
    """Return the type of one name or a list of them."""
    return Annotated[
        list[item],
        BeforeValidator(_listed),
        Field(min_length=1),
        AfterValidator(_distinct),
        WithJsonSchema(NAMES_SCHEMA),
    ]


Text = Annotated[str, AfterValidator(_text)]
ImageName = Annotated[str, AfterValidator(_image)]
LanguageName = Annotated[str, AfterValidator(_language)]
NewName = Annotated[str, AfterValidator(_new_name)]
AbsolutePath = Annotated[str, AfterValidator(_absolute)]
InsidePath = Annotated[str, AfterValidator(_inside)]
Environment = dict[Annotated[str, AfterValidator(_variable)], Text]
Labels = dict[Annotated[str, AfterValidator(_label)], Text]
User = Annotated[str, AfterValidator(_user)]
Words = Annotated[list[Text], Field(min_length=1), AfterValidator(_command)]
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
VerdictName = Annotated[
    str,
    AfterValidator(_word("verdict", Verdict)),
    WithJsonSchema({"enum": [*Verdict]}),
]
CauseName = Annotated[
    str,
    AfterValidator(_word("cause", Cause)),
    WithJsonSchema({"enum": [*Cause]}),
]
ProgramName = Annotated[str, AfterValidator(_program_name)]
NewImageName = Annotated[str, AfterValidator(_new_image_name)]
Repository = Annotated[str, AfterValidator(_repository)]
RequestPath = Annotated[str, AfterValidator(_request_path)]
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
SizeGrowth = Annotated[
    Any,
    BeforeValidator(_growth(_bytes, "200kB")),
    WithJsonSchema({"type": ["string", "integer"], "examples": ["5%", "200kB", 0]}),
]
TimeGrowth = Annotated[
    Any,
    BeforeValidator(_growth(_seconds, "2s")),
    WithJsonSchema({"type": ["string", "number"], "examples": ["50%", "2s"]}),
]
if TYPE_CHECKING:
    Globs = list[str]
    Commands = list[str]
    Artifacts = list[str]
    Flags = list[str]
    Packages = list[str]
    ImageNames = list[str]
    Links = list[LinkMode]
    LibsNames = list[Libs]
    Needs = list[Need]
else:
    Globs = _names(Text)
    Commands = _names(Text)
    Artifacts = _names(AbsolutePath)
    Flags = Annotated[list[Text], BeforeValidator(_listed), WithJsonSchema({**NAMES_SCHEMA})]
    Packages = _names(Annotated[str, AfterValidator(_package)])
    ImageNames = _names(ImageName)
    Links = _names(Link)
    LibsNames = _names(LibsName)
    Needs = _names(NeedName)
