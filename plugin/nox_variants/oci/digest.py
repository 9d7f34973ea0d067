"""Digests and canonical JSON: how values get names (OCI image-spec, descriptor.md)."""

from __future__ import annotations

import hashlib
import json
import re
from typing import TYPE_CHECKING

from nox_variants.errors import LayoutError
from nox_variants.model import Digest

if TYPE_CHECKING:
    from pathlib import Path

_SHA256 = re.compile(r"sha256:([0-9a-f]{64})")


def sha256_bytes(data: bytes) -> Digest:
    """Return the digest of bytes."""
    return Digest(f"sha256:{hashlib.sha256(data).hexdigest()}")


def sha256_file(path: Path) -> Digest:
    """Return the digest of a file's content."""
    with path.open("rb", buffering=0) as file:
        return Digest(f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}")


def parse(text: object) -> Digest:
    """Return a digest that came from outside.

    Raises:
        LayoutError: It is not ``sha256:`` and 64 lower-case hex digits.
    """
    if isinstance(text, str) and _SHA256.fullmatch(text):
        return Digest(text)
    raise LayoutError(
        f"digest: not a sha256 digest: {short(text)}",
        hint="It must be 'sha256:' and 64 lower-case hex digits.",
    )


def hex_of(digest: str) -> str:
    """Return the hex digits of a digest: safe as a file name, because they are checked.

    Raises:
        LayoutError: It is no digest.
    """
    return parse(digest).removeprefix("sha256:")


def canonical_json(value: object) -> bytes:
    """Return the one form of a value: sorted keys, no white space, UTF-8."""
    text = json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return text.encode()


def short(value: object) -> str:
    """Return a value that came from outside as an error shows it."""
    try:
        text = repr(value)
    except RecursionError:
        text = f"{type(value).__name__} of many levels"
    return text if len(text) <= 100 else f"{text[:100]}..."  # noqa: PLR2004  # enough to find it
