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


def register(file: str | os.PathLike[str] = "variants.yaml", *more: str | os.PathLike[str]) -> None:
    """Register the sessions of a ``variants.yaml``, or of several files, with Nox.

    Reads the files and nothing else: ``matrix`` and one session per variant appear in
    ``nox --list``, none of them selected by default.

    Args:
        file: A file, relative to the noxfile that calls this.
        more: More files of the same project; sources are relative to the folder of their own.

    Raises:
        SystemExit: With status 2, after printing every error of the files. While a noxfile
            loads this is the only way to stop Nox without a traceback.
    """
    import gc  # noqa: PLC0415

    collecting = gc.isenabled()
    gc.disable()  # nothing made here is garbage, and looking for it takes a tenth of `nox --list`
    try:
        from nox_variants.sessions import register_files  # noqa: PLC0415  # the CLI needs no nox

        register_files((file, *more))
        gc.freeze()
    finally:
        if collecting:
            gc.enable()
