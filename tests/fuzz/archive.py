"""An image's file of any bytes is an image or an `ImageError`, and no layer lands elsewhere."""

from __future__ import annotations

import tempfile
import threading
from contextlib import suppress
from pathlib import Path

from fuzz.mending import tar_of
from nox_variants.errors import VariantsError
from nox_variants.images.archive import open_archive


def target(data: bytes) -> None:
    """Open an image's file and fetch its layers."""
    with tempfile.TemporaryDirectory() as name, suppress(VariantsError):
        file = Path(name, "image.tar")
        file.write_bytes(tar_of(data))
        with open_archive(file, "linux/amd64", cancelled=threading.Event()) as archive:
            for number, layer in enumerate(archive.content.layers[:20]):
                archive.fetch(layer, Path(name, str(number)))
