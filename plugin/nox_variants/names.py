"""Names become tags, paths and identifiers here and nowhere else. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import quote

if TYPE_CHECKING:
    from nox_variants.model import Variant

TAG_LENGTH = 128
"""The longest tag that registries take (OCI distribution-spec, "Pulling manifests")."""

_TAG_ESCAPES = str.maketrans({"_": "__", ":": "_", "/": "_-", "+": "_.", "@": "_--"})


def identifier(name: str) -> str:
    """Return a Python identifier for Nox's ``-t`` and ``-k``: ``busybox:glibc``, ``busybox_glibc``.

    Two names may share one: a tag selects, it does not identify.
    """
    tag = re.sub(r"[^0-9A-Za-z_]", "_", name)
    return f"_{tag}" if tag[:1].isdigit() else tag


def file_name(name: str) -> str:
    """Return one safe path component for any name, one-to-one."""
    quoted = quote(name, safe="")
    return f"%2E{quoted[1:]}" if quoted.startswith(".") else quoted


def image_tag(variant: Variant) -> str:
    """Return ``BUILD-LINK.RUN``: the tag under the program's name, so that one list shows them all.

    A tag holds ``[A-Za-z0-9_.-]`` only: ``busybox:glibc`` becomes ``busybox_glibc``. Distinct
    image names stay distinct.
    """
    build, run = variant.build_image, variant.run_image
    return f"{build.translate(_TAG_ESCAPES)}-{variant.link}.{run.translate(_TAG_ESCAPES)}"
