"""Names become tags, paths and identifiers here and nowhere else. Pure."""

from __future__ import annotations

import functools
import re
from hashlib import sha256
from typing import TYPE_CHECKING

from nox_variants.model import LinkMode

if TYPE_CHECKING:
    from nox_variants.model import Variant

TAG_LENGTH = 128
"""The longest tag that registries take (OCI distribution-spec, "Pulling manifests")."""

FILE_LENGTH = 255
"""The longest name of a file on most file systems."""

_DIGEST = 16
_ESCAPES = {"_": "__", "/": "_-", ":": "_.c", "+": "_.p", "@": "_.a"}
_SPECIAL = re.compile(r"[_/+@]|:(?![0-9A-Za-z])")
_BAKE_ESCAPES = {"_": "__", ".": "_-", ":": "_in-"}
_LIKE_A_LINK_MODE = re.compile(rf"(-(?:{'|'.join(LinkMode)})(?:-libs)?)\.")


@functools.cache
def identifier(name: str) -> str:
    """Return a Python identifier for Nox's ``-t`` and ``-k``: ``busybox:glibc``, ``busybox_glibc``.

    Two names may share one: a tag selects, it does not identify.
    """
    tag = re.sub(r"[^0-9A-Za-z_]", "_", name)
    return f"_{tag}" if tag[:1].isdigit() else tag


def file_name(name: str) -> str:
    """Return one safe path component for any name, one-to-one."""
    from urllib.parse import quote  # noqa: PLC0415  # listing variants makes no paths

    quoted = quote(name, safe="")
    return f"%2E{quoted[1:]}" if quoted.startswith(".") else quoted


def image_tag(variant: Variant) -> str:
    """Return ``BUILD-LINK.RUN``: the tag under the program's name, so that one list shows them all.

    ``gcc-dynamic-libs.scratch`` brings its libraries.

    A tag holds ``[A-Za-z0-9_.-]`` only, and at most :data:`TAG_LENGTH` of them:
    ``busybox:glibc`` becomes ``busybox_glibc``, and what is too long ends in a digest. Distinct
    variants of a program have distinct tags.
    """
    build, run = _escaped(variant.build_image), _escaped(variant.run_image)
    linking = variant.linking.replace("+", "-")
    return _bounded(f"{build}-{linking}.{run}")


def archive_name(image: str) -> str:
    """Return the file name of an image's archive: ``busybox_glibc.tar``, one-to-one."""
    name = f"{_escaped(image)}.tar"
    if len(name) <= FILE_LENGTH:
        return name
    return f"{sha256(name.encode()).hexdigest()}.tar"


def bake_target(variant: Variant) -> str:
    """Return a variant's target in a Bake file: ``hello-c_in-gcc-static_-scratch``.

    Targets and groups share one name space of ``[A-Za-z0-9_-]``; all names of one file are
    distinct, and a private one begins with ``_``, as is the custom there.
    """
    return _baked(f"{variant.program}:{image_tag(variant)}")


def bake_stage(variant: Variant) -> str:
    """Return the target of a variant's build stage: ``_build-hello-c_in-gcc-static``."""
    return f"_build-{_baked(f'{variant.program}:{_escaped(variant.build_image)}-{variant.link}')}"


def bake_image(image: str) -> str:
    """Return the target of an image that has to be made: ``_image-busybox__glibc``."""
    return f"_image-{_baked(_escaped(image))}"


def bake_group(program: str) -> str:
    """Return a program's group; ``default`` is what Bake builds when it is given no name."""
    return f"_{program}" if program == "default" else _baked(program)


def cache_tag(target: str) -> str:
    """Return the tag under which a registry cache keeps a target of a Bake file."""
    return _bounded(target)


def _bounded(tag: str) -> str:
    if len(tag) <= TAG_LENGTH:
        return tag
    return f"{tag[: TAG_LENGTH - _DIGEST]}{sha256(tag.encode()).hexdigest()[:_DIGEST]}"


def _baked(name: str) -> str:
    return "".join(_BAKE_ESCAPES.get(each, each) for each in name)


def _escaped(name: str) -> str:
    """Return an image's name as a part of a tag; no other name gives the same.

    What follows a ``_`` tells what it stands for: a letter or a digit, a colon before it; anything
    else, the code of one character. ``-static.`` is kept for what stands between the two names.
    """
    plain = _SPECIAL.sub(lambda found: _ESCAPES[found[0]], name).replace(":", "_")
    return _LIKE_A_LINK_MODE.sub(r"\1_.d", plain)
