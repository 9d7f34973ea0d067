"""What is published of a run: under which names, with which annotations. Pure."""

from __future__ import annotations

import datetime as dt
import json
import re
from dataclasses import replace
from typing import TYPE_CHECKING

from nox_variants import names
from nox_variants.errors import ImageError, UsageError
from nox_variants.images.reference import HUB, parse_reference
from nox_variants.oci.digest import short
from nox_variants.reports.escaping import visible
from nox_variants.results import Outcome, Role

if TYPE_CHECKING:
    from nox_variants.images.reference import Reference
    from nox_variants.model import Pairs, Variant
    from nox_variants.record import ImageUsed, Record

VARIANT = "io.github.nox-variants.variant"
"""The annotation with a variant's id: a tag is made of it, but does not tell it."""

STAND_IN = "io.github.nox-variants.stand-in"
"""The annotation with the name of the run image, where another one stood in for it."""

_OCI = "org.opencontainers.image."
_TIME = re.compile(
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)", re.ASCII
)  # RFC 3339
_COMMIT = re.compile(r"[0-9a-f]{40,64}")

_PATH = r"(?P<path>[\w.+%-][\w./~+%-]*)"
_HOST = r"(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:]+\])"
_DOMAIN = r"(?P<host>[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+)"
_REMOTES = (
    rf"(?P<scheme>https?)://(?:[^/?#]*@)?(?P<host>{_HOST}(?::\d+)?)/(?P<path>[\w./~+%-]+)",
    rf"ssh://(?:[^/?#]*@)?{_DOMAIN}(?::22)?/{_PATH}",
    rf"(?:[^@:/]*@)?{_DOMAIN}:/?{_PATH}",
)
"""What of git's addresses can be shown (git-fetch(1), "GIT URLS"); the last one means ssh, too."""


def target(to: str, variant: Variant) -> Reference:
    """Return a variant's name in a registry: ``TO/PROGRAM:TAG``.

    Args:
        to: A registry, and a place in it.
        variant: The variant.

    Raises:
        UsageError: That is no name.
    """
    if "@" in to:  # what stands before it may be a password
        raise UsageError(
            "--to: has a digest or a login in it",
            hint="Digests are made of images, and logins are docker's: leave it out.",
        )
    said = f"--to {short(to)}"
    if "://" in to:
        raise UsageError(
            f"{said}: is an address", hint="Leave out what comes before the host's name."
        )
    if ":" in to.partition("/")[2]:
        raise UsageError(f"{said}: has a tag", hint="Tags are made of the variants: leave it out.")
    try:
        found = parse_reference(f"{to}/{variant.program}:{names.image_tag(variant)}")
    except ImageError as error:
        raise UsageError(
            f"{said}: {error.message}", hint="It has to be like ghcr.io/me/demo."
        ) from error
    if found.registry == HUB and found.repository.count("/") != 1:
        raise UsageError(
            f"{said}: Docker Hub has no {found.repository!r}: its names have two parts",
            hint="--to NAME gives NAME/PROGRAM.",
        )
    return found


def left_out(record: Record | None) -> str:
    """Return why a variant cannot be published: it did not pass; empty where it did."""
    if record is None:
        return "it is not in this run: nox -s matrix runs all, --run ID names another run"
    if record.outcome is Outcome.PASSED and record.image:
        known = any(image.role is Role.RUN for image in record.images)
        return "" if known else "its record does not say what it ran on"
    return visible(": ".join(filter(None, (record.outcome, record.reason or record.explanation))))


def run_image(record: Record) -> ImageUsed:
    """Return what a variant ran on."""
    return next(image for image in record.images if image.role is Role.RUN)


def created(config: bytes, epoch: int | None) -> str:
    """Return the time that an image says it was made, in RFC 3339; empty where it says none.

    Args:
        config: Its configuration.
        epoch: ``SOURCE_DATE_EPOCH``, which counts; None where it is not set.
    """
    if epoch is not None:
        return dt.datetime.fromtimestamp(epoch, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    said = json.loads(config).get("created")
    return said if isinstance(said, str) and _TIME.fullmatch(said) else ""


def manifest_annotations(record: Record, *, source: str, made: str) -> Pairs:
    """Return what the manifest says about an image (OCI image-spec, annotations.md).

    Args:
        record: What is known of it.
        source: Where its sources are; see :func:`source_url`.
        made: When it was made.
    """
    run = run_image(record)
    base = parse_reference(run.pinned) if run.pinned else None
    tag = f":{base.tag}" if base and base.tag else ""
    revision = record.git_commit or ""
    said = (
        (f"{_OCI}created", made),
        (f"{_OCI}title", record.program),
        (f"{_OCI}source", source),
        (f"{_OCI}revision", revision if _COMMIT.fullmatch(revision) else ""),
        (f"{_OCI}base.name", f"{base.registry}/{base.repository}{tag}" if base else ""),
        (f"{_OCI}base.digest", base.digest if base else ""),
        (VARIANT, record.variant),
        (STAND_IN, run.name if run.stand_in else ""),
    )
    return tuple(pair for pair in said if pair[1])


def published(record: Record, reference: str) -> Record:
    """Return a record that says where its image was pushed to, too; the newest is the last."""
    if record.image is None:
        raise TypeError(record)
    others = tuple(each for each in record.image.published if each != reference)
    return replace(record, image=replace(record.image, published=(*others, reference)))


def source_url(remote: str) -> str:
    """Return a remote of git as an address for everybody; empty where there is none.

    Who asks, with which password or token, is nobody's business, and neither is a path of this
    machine: what is not plainly an address without them is left out.

    Args:
        remote: What `git remote get-url` says.
    """
    matches = (re.fullmatch(form, remote, re.ASCII) for form in _REMOTES)
    found = next(filter(None, matches), None)
    if found is None:
        return ""
    path = found["path"].rstrip("/").removesuffix(".git").rstrip("/")
    scheme = found.groupdict().get("scheme", "https")
    return f"{scheme}://{found['host']}/{path}" if path else ""
