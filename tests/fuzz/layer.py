"""A layer of any bytes is applied or refused, and nothing beside its root changes."""

from __future__ import annotations

import io
import tempfile
import threading
from contextlib import suppress
from pathlib import Path

from fuzz.mending import tar_of
from nox_variants.errors import VariantsError
from nox_variants.images.layers import Limits, Unpacker

LIMITS = Limits(entries=2_000, size=8 << 20)


def target(data: bytes) -> None:
    """Apply a layer twice, onto an empty root and onto what it has made."""
    blob = tar_of(data)
    with tempfile.TemporaryDirectory() as name:
        root, canary = Path(name, "root"), Path(name, "canary")
        root.mkdir()
        canary.write_bytes(b"of the host")
        unpacker = Unpacker(root, limits=LIMITS, cancelled=threading.Event())
        with suppress(VariantsError):
            unpacker.apply(io.BytesIO(blob))
            unpacker.apply(io.BytesIO(blob))
            unpacker.finish()
        assert {path.name for path in Path(name).iterdir()} == {"root", "canary"}
        assert (canary.read_bytes(), canary.stat().st_nlink) == (b"of the host", 1)
