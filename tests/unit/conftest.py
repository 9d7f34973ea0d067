"""What unit tests share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from nox_variants import programfile

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from nox_variants.results import FileFacts


@pytest.fixture
def read(tmp_path: Path) -> Callable[[bytes], FileFacts]:
    """Read facts of bytes, as a file."""

    def read(data: bytes) -> FileFacts:
        file = tmp_path / "program"
        file.write_bytes(data)
        return programfile.read_facts(file)

    return read
