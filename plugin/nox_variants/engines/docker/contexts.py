"""Docker contexts: where the configuration of the user's client says that daemons are.

The SDK finds none where there is no ``config.json``, which `docker context create` does not make.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from nox_variants import jsontext
from nox_variants.errors import EngineUnavailable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from docker.tls import TLSConfig


def current(environ: Mapping[str, str]) -> str:
    """Return the name of the context in use; empty where the configuration names none."""
    if name := environ.get("DOCKER_CONTEXT"):
        return name
    try:
        values = jsontext.parsed((_folder(environ) / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ""
    return str(values.get("currentContext") or "") if isinstance(values, dict) else ""


def endpoint(name: str, environ: Mapping[str, str]) -> tuple[str, TLSConfig | None]:
    """Return the address of a context's daemon, and how it is encrypted.

    Raises:
        EngineUnavailable: There is no such context, or it cannot be read.
    """
    key = hashlib.sha256(name.encode()).hexdigest()
    file = _folder(environ) / "contexts" / "meta" / key / "meta.json"
    try:
        found = jsontext.parsed(file.read_text(encoding="utf-8"))["Endpoints"]["docker"]
        host, unverified = str(found["Host"]), bool(found.get("SkipTLSVerify"))
    except FileNotFoundError as error:
        raise EngineUnavailable(f"there is no docker context {name!r}") from error
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise EngineUnavailable(f"docker context {name!r} cannot be read: {file}") from error
    files = _folder(environ) / "contexts" / "tls" / key / "docker"
    return host, _tls(files, unverified=unverified)


def _folder(environ: Mapping[str, str]) -> Path:
    return Path(environ.get("DOCKER_CONFIG") or Path(environ.get("HOME", "/"), ".docker"))


def _tls(folder: Path, *, unverified: bool) -> TLSConfig | None:
    from docker.tls import TLSConfig  # noqa: PLC0415  # with the SDK

    ca, cert, key = (folder / f"{name}.pem" for name in ("ca", "cert", "key"))
    own = (str(cert), str(key)) if cert.exists() and key.exists() else None
    if not (own or ca.exists() or unverified):
        return None
    known = str(ca) if ca.exists() else None
    return TLSConfig(client_cert=own, ca_cert=known, verify=not unverified)
