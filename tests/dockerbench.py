"""The docker engine on hand-made images, against a daemon of the tests' own."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any

from handmade import Bench, HandMade, open_engine
from nox_variants.engines.docker import builders, choosing, connection
from nox_variants.engines.docker.engine import DockerEngine
from nox_variants.engines.docker.pulling import Puller
from nox_variants.images.provider import Images
from nox_variants.model import Image
from nox_variants.store import Store
from samples import APT

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    import pytest

    from daemons import Service
    from nox_variants.registrycache import RegistryCache

WAYS = {"buildkit": "docker", "classic": "docker", "podman": "podman"}
"""Each way to build, and the daemon that it needs."""


def environment(way: str, service: Service | None) -> dict[str, str]:
    """Return an environment in which an engine finds a daemon, or this process's own."""
    if service is None:
        return dict(os.environ)
    name = "CONTAINER_HOST" if WAYS[way] == "podman" else "DOCKER_HOST"
    kept = {key: value for key, value in os.environ.items() if not key.startswith("DOCKER_")}
    return {**kept, name: service.url}


def open_docker(
    way: str,
    service: Service | None,
    *,
    home: Path,
    roots: Mapping[str, Path],
    source: Path,
    builder: str = "",
    cache: RegistryCache | None = None,
    **changes: Any,
) -> Bench:
    """Return an engine on a daemon, and the project of a program's source."""
    environ = environment(way, service)
    daemon = connection.connect(WAYS[way], environ)
    chosen: builders.Builder = builders.Classic(daemon=daemon)
    if way == "buildkit":
        chosen = choosing.choose(daemon, environ, name=builder)
    if cache is not None:
        chosen = choosing.with_cache(chosen, cache, daemon, lambda _: None)
    store = Store(home)
    options: dict[str, Any] = {
        "use_cache": True,
        "epoch": 0,
        "host": "linux/amd64",
        "revision": "0" * 40,
        "cancelled": threading.Event(),
    }
    engine = DockerEngine(
        daemon=daemon,
        builder=chosen,
        store=store,
        images=HandMade(store, roots),
        helper=Image(name="python", sources=(APT,)),
        roots=(source.parent,),
        output=source.parent / ".variants",
        **options | changes,
    )
    return Bench(engine, source)


def opened(
    request: pytest.FixtureRequest, *, home: Path, roots: Mapping[str, Path], source: Path
) -> Iterator[Bench]:
    """Yield the engine that a fixture's parameter names: a way to build, or ``embedded``."""
    if request.param == "embedded":
        yield Bench(open_engine(home, roots, source.parent), source)
        return
    service = request.getfixturevalue(f"{WAYS[request.param]}_service")
    made = open_docker(request.param, service, home=home, roots=roots, source=source)
    yield made
    made.engine.close()


def open_pulling(
    service: Service,
    home: Path,
    source: Path,
    said: list[str],
    *,
    refresh: bool = False,
    builder: str = "",
) -> tuple[Bench, Images]:
    """Return an engine that pulls, built with BuildKit, and its images."""
    environ = environment("buildkit", service)
    daemon = connection.connect("docker", environ)
    chosen = choosing.choose(daemon, environ, name=builder)
    store, cancelled = Store(home), threading.Event()
    puller = Puller(
        daemon=daemon,
        builder=chosen,
        store=store,
        refresh=refresh,
        progress=said.append,
        cancelled=cancelled,
    )
    images = Images(
        store,
        policy="auto",
        refresh=refresh,
        progress=said.append,
        cancelled=cancelled,
        root=home,
        host="linux/amd64",
        environ=environ,
        pull=puller,
    )
    engine = DockerEngine(
        daemon=daemon,
        builder=chosen,
        store=store,
        images=images,
        helper=Image(name="python", sources=()),
        roots=(source.parent,),
        output=source.parent / ".variants",
        use_cache=True,
        epoch=0,
        host="linux/amd64",
        revision="",
        cancelled=cancelled,
    )
    return Bench(engine, source), images
