"""A `variants.yaml` of any bytes is settings and a matrix, or a `ConfigError` with places."""

from __future__ import annotations

import tempfile
from contextlib import suppress
from pathlib import Path

from nox_variants import config, matrix, yamlfile
from nox_variants.errors import VariantsError


def target(data: bytes) -> None:
    """Read a file."""
    with tempfile.TemporaryDirectory() as name, suppress(VariantsError):
        file = Path(name) / "variants.yaml"
        file.write_bytes(data)
        document = yamlfile.read(file)
        for problem in document.problems:
            assert str(problem).startswith(f"{file}:")
        # Most inputs are no YAML: the catalogue is not read for them.
        if document.value is not None:
            matrix.expand(config.load(file))
