"""A `variants.lock` of any bytes is a baseline, or a `UsageError` that names it."""

from __future__ import annotations

import tempfile
from pathlib import Path

from nox_variants import lockfile
from nox_variants.baseline import NAME
from nox_variants.errors import UsageError

PLATFORM = "linux/amd64"


def target(data: bytes) -> None:
    """Read a baseline; what is read can be written, and is then what it was."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / ".variants").mkdir()
        (folder / NAME).write_bytes(data)
        try:
            lockfile.read(folder, PLATFORM)
        except UsageError as error:
            refusal = error.message
        else:
            refusal = str(folder / NAME)
            assert _written(folder) == _written(folder)
        assert refusal.startswith(str(folder / NAME))


def _written(folder: Path) -> str:
    lockfile.update(folder, PLATFORM, lambda baseline: baseline)
    return (folder / NAME).read_text("utf-8")
