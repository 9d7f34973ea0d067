"""The roots of stand-ins, for tests and benchmarks that make other images of them."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

from nox_variants.config import load
from nox_variants.images.provider import Images
from nox_variants.invocation import host_platform
from nox_variants.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


def roots(home: Path, file: Path, names: Iterable[str]) -> dict[str, Path]:
    """Return the files of images that a variants.yaml names, prepared out of packages.

    Args:
        home: The store.
        file: The variants.yaml.
        names: The images.
    """
    images = Images(
        Store(home),
        policy="apt",
        refresh=False,
        progress=lambda _: None,
        cancelled=threading.Event(),
        root=file.parent,
        host=host_platform(),
        environ=os.environ,
    )
    known = {image.name: image for image in load(file).images}
    return {name: images.root(images.prepare(known[name])) for name in names}
