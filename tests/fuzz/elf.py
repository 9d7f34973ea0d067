"""A file of any bytes says something about itself, and so does a loader's cache of any bytes."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path

from nox_variants import elf, ldcache
from nox_variants.programfile import read_facts
from nox_variants.results import FileFacts


def target(data: bytes) -> None:
    """Read a file as a program, and as a cache."""
    with tempfile.TemporaryDirectory() as name:
        file = Path(name) / "program"
        file.write_bytes(data)
        assert isinstance(read_facts(file), FileFacts)
    elf.taken(io.BytesIO(data))
    paths = [path for found in ldcache.parse(data).values() for path in found]
    assert all(path.startswith("/") for path in paths)
