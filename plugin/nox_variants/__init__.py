"""nox-variants: build, smoke-run and explain every image variant of a program, as Nox sessions.

In a noxfile::

    import nox_variants

    nox_variants.register("variants.yaml")
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import os

__all__ = ["__version__", "register"]

__version__ = "0.1.0"


def register(file: str | os.PathLike[str] = "variants.yaml") -> None:
    """Register the sessions of a ``variants.yaml`` with Nox.

    Reads the file and nothing else: ``matrix`` and one session per variant appear in
    ``nox --list``, none of them selected by default.

    Args:
        file: The file, relative to the noxfile that calls this.

    Raises:
        SystemExit: With status 2, after printing every error of the file. While a noxfile
            loads this is the only way to stop Nox without a traceback.
    """
    import gc  # noqa: PLC0415

    collecting = gc.isenabled()
    gc.disable()  # nothing made here is garbage, and looking for it takes a tenth of `nox --list`
    try:
        from nox_variants.sessions import register_file  # noqa: PLC0415  # the CLI needs no nox

        register_file(file)
        gc.freeze()
    finally:
        if collecting:
            gc.enable()
