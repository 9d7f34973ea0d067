"""The form of mirrors, as pydantic models: loaded for files that have some."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

from nox_variants.filemodel import ShorthandForm
from nox_variants.images.mirrors import EVERY
from nox_variants.images.reference import HUB, is_host, is_named_host, is_repository

if TYPE_CHECKING:
    from pydantic import GetJsonSchemaHandler
    from pydantic_core.core_schema import CoreSchema

_HUBS = frozenset(
    {"docker.com", "hub.docker.com", "registry.hub.docker.com", f"hub.{HUB}"}
    | {f"index.{HUB}", f"registry-1.{HUB}"}
)
"""Hosts of Docker Hub that no image is named after."""

_EXAMPLE = "Write HOST[:PORT][/PREFIX], as in mirror.example.com:5000/hub"


def _place(value: str) -> str:
    host, slash, prefix = value.partition("/")
    if "@" in value:  # which is not repeated: there may be a password before it
        raise ValueError(f"has an '@'. {_EXAMPLE}: who asks is known by docker login.")
    if "://" in value:
        raise ValueError(f"{value!r} is an address. {_EXAMPLE}; insecure: true is plain http.")
    if is_host(host) and not is_named_host(host):
        raise ValueError(
            f"{value!r} names no host: to docker, {host!r} is a folder of {HUB}."
            f" Write {host}.DOMAIN or {host}:PORT."
        )
    if not is_host(host) or (slash and not is_repository(prefix)):
        raise ValueError(f"{value!r} is no mirror. {_EXAMPLE}, the prefix in lower case.")
    return value


def _registry(value: str) -> str:
    if value in _HUBS:
        raise ValueError(f"{value!r} is Docker Hub, which images call {HUB}. Write {HUB}.")
    if value != EVERY and not (is_host(value) and is_named_host(value)):
        raise ValueError(
            f'{value!r} is no registry. Write {HUB}, HOST.DOMAIN or HOST:PORT, or "{EVERY}" for'
            " every other."
        )
    return value


class MirrorForm(ShorthandForm):
    """A registry that has images of others."""

    shorthand = "host"

    host: Annotated[str, AfterValidator(_place)] = Field(
        description="`HOST[:PORT][/PREFIX]`; docker.io's `ubuntu` is `HOST/PREFIX/library/ubuntu`."
    )
    insecure: bool = Field(
        default=False,
        description="Whether it is asked in plain http; daemons have their own word.",
    )


def _by_registry(value: Any) -> Any:
    if not isinstance(value, dict) or MirrorForm.shorthand in value:
        value = {EVERY: value}
    if any("@" in str(name) for name in value):
        raise ValueError(f"a registry has an '@'. Write {HUB} or HOST[:PORT], and nobody's name.")
    return {name: each if isinstance(each, list) else [each] for name, each in value.items()}


def _distinct(values: list[MirrorForm]) -> list[MirrorForm]:
    hosts = [each.host for each in values]
    for at, host in enumerate(hosts):
        if host in hosts[:at]:
            raise ValueError(f"{host!r} is there twice.")
    return values


class _Written:
    """What an editor takes: one, several, or either by registry."""

    def __get_pydantic_json_schema__(
        self, core: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        mapping = handler(core)
        several = mapping["additionalProperties"]
        both = [several["items"], several]
        return {"anyOf": [*both, {**mapping, "additionalProperties": {"anyOf": both}}]}


Mirrors = Annotated[
    dict[
        Annotated[str, AfterValidator(_registry)],
        Annotated[list[MirrorForm], Field(min_length=1), AfterValidator(_distinct)],
    ],
    Field(min_length=1),
    BeforeValidator(_by_registry),
    _Written(),
]
