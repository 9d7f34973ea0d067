"""Which builder builds: the one that is asked for, else the best that works.

What works is found out by trying, once, with an image of nothing: version numbers do not say
whether a client has its plugin and a daemon its BuildKit.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
import secrets
import shutil
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from nox_variants.engines.docker.builders import (
    BUILDX,
    OWN_DRIVER,
    Classic,
    Client,
    ask,
    unheard,
)
from nox_variants.errors import EngineUnavailable, StoreError, UsageError
from nox_variants.oci.digest import canonical_json
from nox_variants.results import EngineName

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from nox_variants.engines.docker.builders import Builder, Said
    from nox_variants.engines.docker.connection import Daemon
    from nox_variants.registrycache import RegistryCache
    from nox_variants.store import Store

VARIABLE = "BUILDX_BUILDER"
"""buildx's own variable for the builder that builds."""

TRIALS = "nox-variants/trial"
"""The repository of images that only show that a builder builds."""

_TRIAL_SECONDS = 30
_PATIENCE = 3.0
_BOOT_SECONDS = 180
"""How long a builder may take that has to be started first: a container, pods of a cluster."""

_PLUGIN = "docker-buildx"
_PLUGIN_FOLDERS = tuple(
    Path("/usr", folder, "docker/cli-plugins")
    for folder in ("local/lib", "local/libexec", "lib", "libexec")
)
"""Where docker clients look for plugins, besides the user's own folder (docker/cli, manager)."""

_NAME = re.compile(r"[A-Za-z0-9][\w.+-]*", re.ASCII)
"""Builders and docker contexts, which are builders, too (docker/buildx, store/util.go)."""

_DRIVER = re.compile(r"^Driver:[ \t]*([\w.-]+)", re.MULTILINE)
_CONTAINERD = ["driver-type", "io.containerd.snapshotter.v1"]
"""What `docker info` says of a daemon whose images are containerd's."""

_HINT = (
    "`docker buildx ls` shows the builders that there are; `docker buildx create --name NAME"
    " --driver remote tcp://HOST:PORT` makes one."
)


def choose(
    daemon: Daemon,
    environ: Mapping[str, str],
    store: Store | None = None,
    *,
    name: str = "",
    note: Callable[[str], None] = unheard,
) -> Builder:
    """Return the builder that is asked for, or the best that works with a daemon.

    Args:
        daemon: The daemon.
        environ: The environment, for PATH and what clients need.
        store: Where the answer is kept until a client, a plugin or the daemon changes.
        name: A builder of buildx; empty for the one that the environment names, if it does.
        note: Told when a builder lets wait.

    Raises:
        UsageError: There can be no builder of that name.
        EngineUnavailable: The builder that is asked for does not answer.
    """
    if daemon.info.name is EngineName.DOCKER:
        name = name or environ.get(VARIABLE, "")
    if name:
        return _named(daemon, environ, name, note)
    offered = {client.command: client for client in _offered(daemon, environ)}
    if store is None:
        return _best(offered, *_tried(offered.values(), daemon), daemon)
    key = _circumstances(daemon, environ)
    known = _remembered(store, key)
    if known is None or (known[0] and known[0] not in offered):
        known = _tried(offered.values(), daemon)
        with store.publish("facts", key, replace=True) as staging:
            values = {"command": known[0], "driver": known[1]}
            store.write_json(staging / "builder.json", values)
    return _best(offered, *known, daemon)


def _best(
    offered: Mapping[tuple[str, ...], Client],
    command: tuple[str, ...],
    driver: str,
    daemon: Daemon,
) -> Builder:
    if command not in offered:
        return Classic(daemon)
    return _described(offered[command], "", driver)


def _described(client: Client, builder: str, driver: str) -> Client:
    """Return a client that knows, and says, where it builds."""
    which = f"builder {builder}" if builder else "its builder"
    name = client.name if driver == OWN_DRIVER and not builder else f"{BUILDX}, {which} ({driver})"
    return dataclasses.replace(client, name=name, driver=driver)


def _remembered(store: Store, key: str) -> tuple[tuple[str, ...], str] | None:
    folder = store.find("facts", key)
    if folder is None:
        return None
    with suppress(StoreError, LookupError):
        values = store.read_json(folder / "builder.json")
        return tuple(values["command"]), str(values["driver"])
    return None


def _offered(daemon: Daemon, environ: Mapping[str, str]) -> Iterator[Client]:
    settings = {**environ, **dict(daemon.environ)}
    for client in _clients(environ.get("PATH", "")):
        yield Client(name=BUILDX, command=(client, BUILDX, "build"), environ=settings)
        yield Client(
            name="docker build (BuildKit)",
            command=(client, "build"),
            environ={**settings, "DOCKER_BUILDKIT": "1"},
        )


def _tried(clients: Iterable[Client], daemon: Daemon) -> tuple[tuple[str, ...], str]:
    """Return the command of the first client that can build, and its driver; else nothing."""
    for client in clients:
        made = client.trial(_TRIAL_SECONDS)
        if made.good and made.words:
            with suppress(Exception):
                daemon.client.images.remove(made.words)
            return client.command, _driver_of(client)
    return (), OWN_DRIVER


def _driver_of(client: Client) -> str:
    """Return the driver of the builder that a client uses: it may be one of the user's choice."""
    if not client.buildx:
        return OWN_DRIVER
    said = ask((client.command[0], BUILDX, "inspect"), client.environ, _TRIAL_SECONDS)
    return _driver(said) or OWN_DRIVER


def _driver(said: Said) -> str:
    """Return the driver of the builder that `docker buildx inspect` tells of."""
    found = _DRIVER.search(said.words) if said.good else None
    return found[1] if found else ""


def _clients(path: str) -> Iterator[str]:
    """Yield every docker client on PATH: the first may lack the plugin that a later one has."""
    for folder in dict.fromkeys(path.split(os.pathsep)):
        found = shutil.which("docker", path=folder) if folder else None
        if found:
            yield found


def _circumstances(daemon: Daemon, environ: Mapping[str, str]) -> str:
    """Return the identity of all that decides which builder works."""
    config = Path(environ.get("DOCKER_CONFIG") or Path(environ.get("HOME", "/"), ".docker"))
    plugins = [folder / _PLUGIN for folder in (config / "cli-plugins", *_PLUGIN_FOLDERS)]
    chosen = [config / "buildx" / name for name in ("current", "instances")]
    files = [*map(Path, _clients(environ.get("PATH", ""))), *plugins, *chosen]
    value = [
        daemon.id,
        daemon.info.version,
        daemon.environ,
        environ.get(VARIABLE, ""),
        [(os.fspath(file), _changed(file)) for file in files],
    ]
    return hashlib.sha256(canonical_json(value)).hexdigest()


def _changed(file: Path) -> tuple[int, int] | None:
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size


# --- a builder by its name ----------------------------------------------------------------------


def _named(
    daemon: Daemon, environ: Mapping[str, str], name: str, note: Callable[[str], None]
) -> Client:
    """Return a builder of buildx; nothing of it is remembered, for it may be gone any time."""
    if not _NAME.fullmatch(name):
        raise UsageError(f"--builder: {name!r} is no builder's name", hint=_HINT)
    settings = {**environ, **dict(daemon.environ)}
    for docker in _clients(environ.get("PATH", "")):
        if ask((docker, BUILDX, "version"), settings, _TRIAL_SECONDS).good:
            break
    else:
        raise EngineUnavailable(
            f"builder {name!r}: no docker client on PATH has buildx",
            hint="Install its plugin, docker-buildx or docker-buildx-plugin.",
        )
    found = ask((docker, BUILDX, "inspect", name), settings, _TRIAL_SECONDS)
    driver = _driver(found)
    if not driver:
        why = "buildx does not say its driver" if found.good else found.words
        raise EngineUnavailable(f"builder {name!r} cannot be used: {why}", hint=_HINT)
    command = (docker, BUILDX, "build", f"--builder={name}")
    client = _described(Client(name=BUILDX, command=command, environ=settings), name, driver)
    waiting = threading.Timer(_PATIENCE, note, (f"builder {name} ({driver}): waiting for it",))
    waiting.start()
    try:
        _check(client, daemon, name)
    finally:
        waiting.cancel()
    return client


def _check(client: Client, daemon: Daemon, name: str) -> None:
    """Refuse a builder that does not answer, or whose images do not come to the daemon."""
    from docker.errors import DockerException  # noqa: PLC0415  # with the SDK

    tag = f"{TRIALS}:{secrets.token_hex(8)}"
    made = client.trial(_BOOT_SECONDS, tag)
    if not made.good:
        raise EngineUnavailable(f"builder {name!r} does not answer: {made.words}", hint=_HINT)
    try:
        daemon.client.images.remove(tag)
    except (DockerException, OSError) as error:
        raise EngineUnavailable(
            f"builder {name!r} builds, but for another daemon than the one at {daemon.why}",
            hint="A docker context is a builder of its own daemon: DOCKER_CONTEXT chooses that.",
        ) from error


# --- a registry cache ---------------------------------------------------------------------------


def with_cache(
    builder: Builder, cache: RegistryCache, daemon: Daemon, note: Callable[[str], None]
) -> Builder:
    """Return a builder that uses a registry cache as far as it can; what it cannot is noted."""
    if not isinstance(builder, Client) or not builder.buildx:
        note(f"cache: {cache.repository} is not used: only buildx can, not {builder.name}")
        return builder
    if cache.write and not builder.remote and not _keeps_layers(daemon):
        note(f"cache: {cache.repository} is only read: driver {OWN_DRIVER!r} cannot write there")
        cache = dataclasses.replace(cache, write=False)
    return dataclasses.replace(builder, cache=cache, note=_once(note))


def _keeps_layers(daemon: Daemon) -> bool:
    """Tell whether the BuildKit in a daemon can give away layers (docker/buildx, driver/docker)."""
    from nox_variants.engines.docker.connection import explained  # noqa: PLC0415  # a cache needs it

    with explained("asking for its image store"):
        return _CONTAINERD in (daemon.client.info().get("DriverStatus") or ())


def _once(note: Callable[[str], None]) -> Callable[[str], None]:
    """Return what passes on the first text it gets, and no other."""
    said = threading.Lock()

    def say(text: str) -> None:
        if said.acquire(blocking=False):
            note(text)

    return say
