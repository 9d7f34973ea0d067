"""The packages that an unpacked root says it has: dpkg's and apk's own lists, read and checked.

The root is untrusted: its links are followed inside it only, what is read is bounded, and what is
no name or no version is passed over.
"""

from __future__ import annotations

import re
from itertools import islice
from typing import TYPE_CHECKING

from nox_variants.rootfs import Root

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MOST = 5000
"""Packages that are kept of an image."""

_DPKG = "/var/lib/dpkg/status"
_DPKG_FOLDER = "/var/lib/dpkg/status.d"
"""Where distroless images have one file for a package."""

_APK = ("/lib/apk/db/installed", "/usr/lib/apk/db/installed")
"""The second one since Alpine has merged its folders into /usr."""

_LARGEST = 16 << 20
_LARGEST_ENTRY = 65536
_NAME = re.compile(r"[A-Za-z0-9][\w.+-]{0,127}", re.ASCII)
_VERSION = re.compile(r"[\w.+:~-]{1,127}", re.ASCII)
_DPKG_LINE = re.compile(r"^(?:(Package|Version|Status):(.*)|\s*\n)", re.MULTILINE)
_APK_LINE = re.compile(r"^(?:([PV]):(.*)|\s*\n)", re.MULTILINE)
_ENTRY = re.compile(r"(?!.*\.md5sums$)[A-Za-z0-9][\w.+-]{0,127}", re.ASCII)


def installed(root: Path) -> tuple[str, ...]:
    """Return ``name=version`` of each package, sorted; nothing where no list is known.

    Args:
        root: The folder of an image's files.
    """
    found = set(islice(_packages(Root((root,))), MOST))
    return tuple(sorted(f"{name}={version}" for name, version in found))


def _packages(root: Root) -> Iterator[tuple[str, str]]:
    yield from _dpkg(_text(root, _DPKG, _LARGEST))
    for name in root.names(_DPKG_FOLDER, _ENTRY)[:MOST]:
        yield from _dpkg(_text(root, f"{_DPKG_FOLDER}/{name}", _LARGEST_ENTRY))
    for path in _APK:
        yield from _apk(_text(root, path, _LARGEST))


def _text(root: Root, path: str, most: int) -> str:
    """Return a file as text; without its last paragraph where it is too large to be read whole."""
    data = root.data(path, most)
    if len(data) == most:
        data = data.rpartition(b"\n\n")[0]
    return data.decode("utf-8", "replace")


def _dpkg(text: str) -> Iterator[tuple[str, str]]:
    """Yield what dpkg has installed (deb822(5)); distroless says nothing of a package's state."""
    for fields in _paragraphs(text, _DPKG_LINE):
        state = fields.get("Status", "installed").split()
        if state[-1:] == ["installed"]:
            yield from _checked(fields.get("Package", ""), fields.get("Version", ""))


def _apk(text: str) -> Iterator[tuple[str, str]]:
    """Yield what apk has installed (Alpine wiki, "Apk spec": P and V)."""
    for fields in _paragraphs(text, _APK_LINE):
        yield from _checked(fields.get("P", ""), fields.get("V", ""))


def _paragraphs(text: str, lines: re.Pattern[str]) -> Iterator[dict[str, str]]:
    """Yield what is wanted of each paragraph; of a field that is there twice, the first."""
    fields: dict[str, str] = {}
    for line in lines.finditer(text):
        if line[1]:
            fields.setdefault(line[1], line[2].strip())
        else:
            yield fields
            fields = {}
    yield fields


def _checked(name: str, version: str) -> Iterator[tuple[str, str]]:
    if _NAME.fullmatch(name) and _VERSION.fullmatch(version):
        yield name, version
