"""Docker contexts: which is in use, and where it leads."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import pytest

from nox_variants.engines.docker import connection, contexts
from nox_variants.engines.docker.connection import Address
from nox_variants.errors import EngineUnavailable

if TYPE_CHECKING:
    from pathlib import Path


def written(folder: Path, name: str, meta: Any, *files: str) -> dict[str, str]:
    """Write a context as `docker context create` does, without a config.json."""
    key = hashlib.sha256(name.encode()).hexdigest()
    place, secrets = folder / "contexts/meta" / key, folder / "contexts/tls" / key / "docker"
    for each in (place, secrets):
        each.mkdir(parents=True)
    (place / "meta.json").write_text(meta if isinstance(meta, str) else json.dumps(meta), "utf-8")
    for file in files:
        (secrets / file).write_text("-", encoding="utf-8")
    return {"DOCKER_CONFIG": str(folder)}


def meta(host: str, **changes: Any) -> dict[str, Any]:
    return {"Name": "mine", "Metadata": {}, "Endpoints": {"docker": {"Host": host, **changes}}}


def test_where_it_leads(tmp_path: Path) -> None:
    """A context is found where no config.json names one."""
    environ = written(tmp_path, "mine", meta("ssh://user@server", SkipTLSVerify=False))

    assert contexts.endpoint("mine", environ) == ("ssh://user@server", None)


@pytest.mark.parametrize("files", [(), ("ca.pem",), ("ca.pem", "cert.pem", "key.pem")])
@pytest.mark.parametrize("unverified", [True, False])
def test_certificates(tmp_path: Path, files: tuple[str, ...], *, unverified: bool) -> None:
    """A context's certificates are used, as far as it has some."""
    said = meta("tcp://server:2376", SkipTLSVerify=unverified)
    environ = written(tmp_path, "mine", said, *files)

    _, tls = contexts.endpoint("mine", environ)

    if not files and not unverified:
        assert tls is None
        return
    assert tls is not None
    found = {str(path).rpartition("/")[2] for path in (tls.ca_cert, *(tls.cert or ())) if path}
    assert found == set(files)
    assert tls.verify is not unverified


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"Endpoints": {}}', '{"Endpoints": {"docker": []}}']
)
def test_damaged(tmp_path: Path, text: str) -> None:
    """What cannot be read is no traceback."""
    environ = written(tmp_path, "mine", text)

    with pytest.raises(EngineUnavailable, match="docker context 'mine' cannot be read"):
        contexts.endpoint("mine", environ)


def test_unknown(tmp_path: Path) -> None:
    """A name that leads nowhere is told, whatever it is made of."""
    for name in ("mine", "../../x"):
        with pytest.raises(EngineUnavailable, match="there is no docker context"):
            contexts.endpoint(name, {"DOCKER_CONFIG": str(tmp_path)})


@pytest.mark.parametrize(
    ("environ", "config", "expected"),
    [
        ({}, None, ""),
        ({}, "{", ""),
        ({}, "[]", ""),
        ({}, '{"currentContext": "mine"}', "mine"),
        ({"DOCKER_CONTEXT": "other"}, '{"currentContext": "mine"}', "other"),
    ],
)
def test_in_use(environ: dict[str, str], config: str | None, expected: str, tmp_path: Path) -> None:
    """The variable comes before the configuration."""
    if config is not None:
        (tmp_path / ".docker").mkdir()
        (tmp_path / ".docker/config.json").write_text(config, encoding="utf-8")

    assert contexts.current({"HOME": str(tmp_path), **environ}) == expected


def test_host_comes_first() -> None:
    """DOCKER_HOST is before any context, as it is for docker's own client."""
    environ = {"DOCKER_HOST": "ssh://server", "DOCKER_CONTEXT": "mine"}

    assert connection.addresses("docker", environ) == (
        Address(url="ssh://server", why="DOCKER_HOST"),
    )
