"""Finding a daemon: environment, docker context, the usual sockets; and its answer in our words."""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nox_variants.engines.docker import contexts
from nox_variants.errors import EngineUnavailable, VariantsError
from nox_variants.results import EngineInfo, EngineName

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from docker import DockerClient

    from nox_variants.engines.docker.ssh import Tunnel

PROBE_SECONDS = 10
"""How long a daemon may take to say who it is."""

ANSWER_SECONDS = 120
"""How long it may take for anything else that is no build, load or smoke run."""

_PODMAN_NOTE = (
    "podman does not always say what was killed for its memory: that may be recorded as killed by"
    " SIGKILL, or not at all for a child"
)
_UNIX = "unix://"
_SSH = "ssh://"
_CONNECTIONS = 32
_DOCKER_SOCKET = "/var/run/docker.sock"
_PODMAN_SOCKET = "podman/podman.sock"


class DaemonError(VariantsError):
    """The daemon did not do what it was asked; says nothing about the program."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """A place where a daemon may answer.

    Attributes:
        url: ``unix:///var/run/docker.sock``; empty where a docker context says it.
        context: The docker context, or empty.
        why: Where the address comes from.
    """

    url: str = ""
    context: str = ""
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Daemon:
    """A daemon that answered.

    Attributes:
        client: The SDK's client.
        info: Docker or Podman, its version, and what it cannot do here.
        id: The daemon's own name for itself.
        why: Where its address comes from.
        environ: What makes a docker client on the command line use it, too.
    """

    client: DockerClient
    info: EngineInfo
    id: str
    why: str
    environ: tuple[tuple[str, str], ...]


def addresses(
    name: str, environ: Mapping[str, str], *, thorough: bool = True
) -> tuple[Address, ...]:
    """Return where an engine may answer, the likeliest first; nothing is asked yet.

    Args:
        name: ``docker`` or ``podman``.
        environ: The environment.
        thorough: Whether `podman info` is asked, too, which takes a moment.
    """
    if name == EngineName.PODMAN:
        return _podman_addresses(environ, thorough=thorough)
    if host := environ.get("DOCKER_HOST"):
        return (Address(url=host, why="DOCKER_HOST"),)
    context = contexts.current(environ)
    if context and context != "default":
        return (Address(context=context, why=f"docker context {context!r}"),)
    return (Address(url=f"{_UNIX}{_DOCKER_SOCKET}", why="the usual socket"),)


def _podman_addresses(environ: Mapping[str, str], *, thorough: bool) -> tuple[Address, ...]:
    if host := environ.get("CONTAINER_HOST"):
        return (Address(url=host, why="CONTAINER_HOST"),)
    paths = [Path("/run", _PODMAN_SOCKET)] if os.geteuid() == 0 else []
    runtime = environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.geteuid()}"
    paths.append(Path(runtime, _PODMAN_SOCKET))
    found = [Address(url=f"{_UNIX}{path}", why="the usual socket") for path in paths]
    if thorough and not any(path.exists() for path in paths) and (said := _podman_socket()):
        found.insert(0, Address(url=f"{_UNIX}{said}", why="podman info"))
    return tuple(found)


def _podman_socket() -> str:
    """Return the socket that `podman info` names, when it is there."""
    if shutil.which("podman") is None:
        return ""
    try:
        done = subprocess.run(
            ["podman", "info", "--format", "{{.Host.RemoteSocket.Path}}"],
            capture_output=True,
            text=True,
            check=False,
            timeout=PROBE_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    path = done.stdout.strip().removeprefix(_UNIX)
    return path if path.startswith("/") and Path(path).exists() else ""


def connect(name: str, environ: Mapping[str, str], *, thorough: bool = True) -> Daemon:
    """Return the daemon of an engine.

    Args:
        name: ``docker`` or ``podman``.
        environ: The environment.
        thorough: Whether to look everywhere.

    Raises:
        EngineUnavailable: None answers; the message says what was tried and why it failed.
    """
    tried = []
    for address in addresses(name, environ, thorough=thorough):
        reason = _absent(address)
        if not reason:
            try:
                return _open(name, address, environ)
            except EngineUnavailable as error:
                reason = error.message
        tried.append(f"{address.url or address.context} ({address.why}): {reason}")
    raise EngineUnavailable(f"{name} does not answer: {'; '.join(tried)}", hint=_hint(name))


def _hint(name: str) -> str:
    if name == EngineName.PODMAN:
        return "Start its service: systemctl --user start podman.socket, or podman system service."
    return "Is the daemon running, and is this the right address? docker info shows it."


def _absent(address: Address) -> str:
    """Return why an address cannot work, as far as that is known without asking it."""
    path = address.url.removeprefix(_UNIX)
    if path == address.url:
        return ""
    if not Path(path).exists():
        return "there is no such socket"
    if not os.access(path, os.R_OK | os.W_OK):
        return "this user may not use it: join its group, or run rootless"
    return ""


def _open(name: str, address: Address, environ: Mapping[str, str]) -> Daemon:
    from docker.errors import DockerException  # noqa: PLC0415  # 100 ms that no daemon needs
    from requests.exceptions import RequestException, Timeout  # noqa: PLC0415

    with ExitStack() as failed:
        tunnel = None
        try:
            url, tls = _place(address, environ)
            if url.startswith(_SSH):
                tunnel = _tunnel(url, environ)
                failed.callback(tunnel.close)
            client = _client(url, tls, tunnel)
            version, info = client.version(), client.info()
        except Timeout as error:
            raise EngineUnavailable(_reason(error)) from error
        except (DockerException, RequestException, OSError) as error:
            said = tunnel.said() if tunnel else ""
            raise EngineUnavailable(f"ssh says: {said}" if said else _reason(error)) from error
        client.api.timeout = ANSWER_SECONDS
        made = _daemon(name, address, url, client, version, info)
        failed.pop_all()
    return made


def _place(address: Address, environ: Mapping[str, str]) -> tuple[str, Any]:
    """Return the address of a daemon, and how it is encrypted."""
    from docker.utils import kwargs_from_env  # noqa: PLC0415

    if address.context:
        return contexts.endpoint(address.context, environ)
    return address.url, kwargs_from_env().get("tls")


def _tunnel(url: str, environ: Mapping[str, str]) -> Tunnel:
    from nox_variants.engines.docker import ssh  # noqa: PLC0415  # few daemons are behind ssh

    # A little less than an answer may take: ssh says why, a clock does not.
    return ssh.Tunnel(ssh.command(url, max(PROBE_SECONDS - 2, 1)), environ)


def _client(url: str, tls: Any, tunnel: Tunnel | None) -> DockerClient:
    import docker  # noqa: PLC0415

    if tunnel is not None:
        from nox_variants.engines.docker import ssh  # noqa: PLC0415

        return ssh.client(tunnel, seconds=PROBE_SECONDS, connections=_CONNECTIONS)
    return docker.DockerClient(
        base_url=url,
        tls=tls or False,
        version="auto",
        timeout=PROBE_SECONDS,
        max_pool_size=_CONNECTIONS,
    )


def _daemon(  # noqa: PLR0917
    name: str,
    address: Address,
    url: str,
    client: DockerClient,
    version: Mapping[str, Any],
    info: Mapping[str, Any],
) -> Daemon:
    parts = {part.get("Name"): part for part in version.get("Components") or ()}
    podman = parts.get("Podman Engine")
    found = EngineName.PODMAN if podman else EngineName.DOCKER
    if found is not EngineName(name) and address.why != "DOCKER_HOST":
        raise EngineUnavailable(f"that is {found}, not {name}")
    environ = (("DOCKER_CONTEXT", address.context),) if address.context else (("DOCKER_HOST", url),)
    return Daemon(
        client=client,
        info=EngineInfo(
            name=found,
            version=str((podman or version)["Version"]),
            notes=_podman_notes(client, info) if podman else _notes(info, _is_rootless(info)),
        ),
        id=_identity(info) if podman else str(info["ID"]),
        why=address.why,
        environ=environ,
    )


def _identity(info: Mapping[str, Any]) -> str:
    """Return what tells one Podman from another: the ID that it gives is new with every answer."""
    return f"{info.get('Name')}:{info.get('DockerRootDir')}"


def _is_rootless(info: Mapping[str, Any]) -> bool:
    return any("rootless" in option for option in info.get("SecurityOptions") or ())


def _podman_notes(client: DockerClient, info: Mapping[str, Any]) -> tuple[str, ...]:
    """Ask Podman itself: what it tells Docker's clients leaves out that it is rootless."""
    from requests.exceptions import RequestException  # noqa: PLC0415

    try:
        answer = client.api.get(f"{client.api.base_url}/v4.0.0/libpod/info").json()
        rootless = bool(answer["host"]["security"]["rootless"])
    except (RequestException, LookupError, TypeError, ValueError):
        rootless = False
    return (*_notes(info, rootless), _PODMAN_NOTE)


def _notes(info: Mapping[str, Any], rootless: bool) -> tuple[str, ...]:  # noqa: FBT001
    """Return what the daemon cannot do; rootless, it cannot use cgroups of version 1."""
    lacks = [
        word
        for key, word in (("MemoryLimit", "memory"), ("PidsLimit", "processes"))
        if info.get(key) is False or (rootless and str(info.get("CgroupVersion")) == "1")
    ]
    if not lacks:
        return ()
    return (f"limits on {' and '.join(lacks)} are not kept by this daemon (cgroups)",)


def _reason(error: Exception) -> str:
    """Return the innermost reason of a failed connection, in a line."""
    inner: BaseException = error
    while inner.__cause__ or inner.__context__:
        inner = inner.__cause__ or inner.__context__ or inner
    words = " ".join(str(inner).split()) or type(inner).__name__
    return words if len(words) <= 200 else f"{words[:200]}..."  # noqa: PLR2004  # a line


@contextmanager
def explained(what: str, failure: Callable[[str], VariantsError] = DaemonError) -> Iterator[None]:
    """Turn the SDK's errors into ours: the one place that knows them.

    Args:
        what: What was being done, for the sentence.
        failure: The error to raise.
    """
    from http.client import HTTPException  # noqa: PLC0415

    from docker.errors import APIError, DockerException  # noqa: PLC0415
    from requests.exceptions import RequestException, Timeout  # noqa: PLC0415
    from urllib3.exceptions import HTTPError  # noqa: PLC0415

    try:
        yield
    except APIError as error:  # an OSError, too: first
        raise failure(f"{what}: the daemon says: {_said(error)}") from error
    except Timeout as error:
        raise DaemonError(f"{what}: the daemon does not answer in time") from error
    except (DockerException, RequestException, HTTPError, HTTPException, OSError) as error:
        raise DaemonError(f"{what}: the daemon is gone: {_reason(error)}") from error


def _said(error: Any) -> str:
    return " ".join(str(error.explanation or error).split())
