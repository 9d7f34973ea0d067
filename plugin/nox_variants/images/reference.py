"""Names of images: what they mean, and which texts are none (distribution/reference)."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from nox_variants.errors import ImageError, LayoutError
from nox_variants.oci import digest as digests
from nox_variants.oci.digest import short

HUB = "docker.io"
_HUB_HOST = "registry-1.docker.io"

_LONGEST_REPOSITORY = 255

_HOST = re.compile(
    r"(?:(?:[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)"
    r"(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)*|\[(?P<address>[0-9a-fA-F:]+)\])(?::(?P<port>[0-9]{1,5}))?"
)
_REPOSITORY = re.compile(
    r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*"
)
_TAG = re.compile(r"[\w][\w.-]{0,127}", re.ASCII)
_ID = re.compile(r"library/[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """The name of an image in a registry (distribution/reference).

    Attributes:
        registry: ``docker.io``, ``registry.example.com:5000``.
        repository: ``library/ubuntu``.
        tag: ``24.04``; empty with a digest only.
        digest: ``sha256:...`` or empty.
    """

    registry: str
    repository: str
    tag: str
    digest: str


def parse_reference(text: str) -> Reference:
    """Return what a reference means; what it leaves out is docker.io, library and latest.

    Raises:
        ImageError: It is no reference.
    """
    name, at, digest = text.partition("@")
    registry, slash, path = name.partition("/")
    if not (slash and is_named_host(registry)):
        registry, path = HUB, name
    repository, colon, tag = path.partition(":")
    if registry in {HUB, f"index.{HUB}"}:
        registry = HUB
        repository = repository if "/" in repository else f"library/{repository}"
    if problem := _problem(registry, repository, tag if colon else "latest"):
        raise ImageError(f"{short(text)}: is no image reference: {problem}")
    if at:
        try:
            digests.parse(digest)
        except LayoutError as error:
            raise ImageError(f"{short(text)}: is no image reference: {error}") from error
    tag = tag if colon or at else "latest"
    return Reference(registry=registry, repository=repository, tag=tag, digest=digest)


def _problem(registry: str, repository: str, tag: str) -> str:
    """Return what is wrong with the parts of a reference."""
    if not is_host(registry):
        return f"registry {short(registry)}"
    if len(repository) > _LONGEST_REPOSITORY:
        return f"repository of more than {_LONGEST_REPOSITORY} characters"
    if not _REPOSITORY.fullmatch(repository) or (registry == HUB and _ID.fullmatch(repository)):
        return f"repository {short(repository)}" + (
            ", which has to be lower-case" if repository != repository.lower() else ""
        )
    return "" if _TAG.fullmatch(tag) else f"tag {short(tag)}"


def address(registry: str, *, insecure: bool) -> str:
    """Return where a registry answers (OCI distribution-spec, "Endpoints")."""
    host = _HUB_HOST if registry == HUB else registry
    return f"{'http' if insecure else 'https'}://{host}/v2"


def is_named_host(name: str) -> bool:
    """Tell whether the first part of a reference is a host, and no folder of docker.io."""
    return name == "localhost" or "." in name or ":" in name


def is_repository(name: str) -> bool:
    """Tell whether a text is a repository, or the first part of one."""
    return len(name) <= _LONGEST_REPOSITORY and bool(_REPOSITORY.fullmatch(name))


def is_host(registry: str) -> bool:
    """Tell whether a text is a host, perhaps with a port."""
    match = _HOST.fullmatch(registry)
    if not match or not 0 < int(match["port"] or 1) < 1 << 16:
        return False
    try:
        return match["address"] is None or bool(ipaddress.IPv6Address(match["address"]))
    except ValueError:
        return False
