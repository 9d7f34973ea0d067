"""Runs one target under atheris: python tests/fuzz/run.py NAME FOLDER [options of libFuzzer].

What is found is kept in the folder. An error that is none of ours, 5 seconds for one input and a
gigabyte of memory are findings.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
LIMITS = ("-timeout=5", "-rss_limit_mb=1024", "-max_len=16384")
READERS = ("nox_variants", "fuzz", "elftools", "tarfile", "zipfile", "yaml")
"""Modules whose branches lead the fuzzer on."""

LAZY = ("tarfile", "zipfile", "elftools.elf.elffile")
"""Those that readers import when they first need them."""


def main() -> None:
    """Fuzz a target until libFuzzer's options or a finding end it."""
    atheris: Any = importlib.import_module("atheris")  # not there where it is only checked
    name, folder, *options = sys.argv[1:]
    found = Path(folder) / name
    found.mkdir(parents=True, exist_ok=True)
    words = HERE / "dictionaries" / name
    options += [f"-dict={words}"] if words.exists() else []
    for module in LAZY:  # atheris may have imported them, without its probes
        sys.modules.pop(module, None)
    sys.path.insert(0, str(HERE.parent))
    with atheris.instrument_imports(include=list(READERS)):
        for module in LAZY:
            importlib.import_module(module)
        target = importlib.import_module(f"fuzz.{name}").target
    atheris.Setup(
        [
            sys.argv[0],
            str(found),
            str(HERE / "seeds" / name),
            f"-artifact_prefix={found.parent}/{name}-",
            *LIMITS,
            *options,
        ],
        target,
    )
    atheris.Fuzz()


if __name__ == "__main__":
    main()
