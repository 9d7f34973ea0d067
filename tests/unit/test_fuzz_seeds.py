"""What fuzzing starts from and what it has found, through its targets; atheris is not needed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import fuzz.archive
import fuzz.config
import fuzz.elf
import fuzz.layer
import fuzz.record
import fuzz.registry

if TYPE_CHECKING:
    from collections.abc import Callable

HERE = Path(__file__).parents[1] / "fuzz"
TARGETS: dict[str, Callable[[bytes], None]] = {
    "archive": fuzz.archive.target,
    "config": fuzz.config.target,
    "elf": fuzz.elf.target,
    "layer": fuzz.layer.target,
    "record": fuzz.record.target,
    "registry": fuzz.registry.target,
}
SEEDS = [
    pytest.param(TARGETS[path.parent.name], path, id=f"{path.parent.name}-{path.name}")
    for path in sorted((HERE / "seeds").glob("*/*"))
]


@pytest.mark.parametrize(("target", "path"), SEEDS)
def test_seeds(target: Callable[[bytes], None], path: Path) -> None:
    """Each is read, or refused with an error of ours."""
    target(path.read_bytes())
