"""Docker's configuration of any bytes is credentials, a context and an address, or an error."""

from __future__ import annotations

import hashlib
import tempfile
from contextlib import suppress
from pathlib import Path

from nox_variants.engines.docker import contexts
from nox_variants.errors import EngineUnavailable, ImageError
from nox_variants.images import credentials

NAMED = hashlib.sha256(b"named").hexdigest()


def target(data: bytes) -> None:
    """Read a file as the client's configuration, and as a context's."""
    with tempfile.TemporaryDirectory() as name:
        environ = {"DOCKER_CONFIG": name, "PATH": f"{name}/none"}
        Path(name, "config.json").write_bytes(data)
        with suppress(ImageError):
            found = credentials._credentials("image", "registry.example.com", environ)
            assert found.basic().isprintable()
        assert isinstance(contexts.current(environ), str)
        meta = Path(name, "contexts", "meta", NAMED)
        meta.mkdir(parents=True)
        (meta / "meta.json").write_bytes(data)
        with suppress(EngineUnavailable):
            host, _ = contexts.endpoint("named", environ)
            assert isinstance(host, str)
