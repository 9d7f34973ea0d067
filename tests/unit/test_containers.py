"""Containers of smoke runs: killed at once, and without a network."""

from __future__ import annotations

import signal
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
from docker.errors import APIError

from nox_variants.engines.docker import containers
from nox_variants.engines.docker.offline import Offline
from nox_variants.results import EngineName, Observation

if TYPE_CHECKING:
    from nox_variants.engines.docker.connection import Daemon

KILLED = Observation(started=True, signal=signal.SIGKILL, seconds=0.1)
MEMORY = Observation(started=True, out_of_memory=True, seconds=0.2)
LATE = Observation(started=True, signal=signal.SIGKILL, seconds=1.5)
ENDED = Observation(started=True, signal=signal.SIGTERM, seconds=0.1)


@pytest.mark.parametrize(
    ("name", "runs", "seen", "count"),
    [
        pytest.param("docker", [KILLED, KILLED, MEMORY], MEMORY, 3, id="heard at last"),
        pytest.param("docker", [KILLED] * 9, KILLED, 1 + containers.AGAIN, id="never heard"),
        pytest.param("docker", [MEMORY], MEMORY, 1, id="heard at once"),
        pytest.param("docker", [LATE], LATE, 1, id="the daemon listened by then"),
        pytest.param("docker", [ENDED], ENDED, 1, id="another signal"),
        pytest.param("podman", [KILLED], KILLED, 1, id="podman, which never hears"),
    ],
)
def test_killed_at_once(
    name: str,
    runs: list[Observation],
    seen: Observation,
    count: int,
) -> None:
    """What counts is the run of which the daemon heard, or the first one."""
    left = iter(runs)

    found = containers.heard_of(EngineName(name), lambda: next(left))

    assert (found, len(runs) - len(list(left))) == (seen, count)


class Refusing:
    """A daemon that makes volumes, but does not mount what they hold."""

    def __init__(self) -> None:
        self.left: list[str] = []
        self.volumes = SimpleNamespace(create=self._volume)
        self.containers = SimpleNamespace(create=self._container)

    def _made(self, name: str, **more: Any) -> Any:
        self.left.append(name)
        return SimpleNamespace(name=name, remove=lambda **_: self.left.remove(name), **more)

    def _volume(self, **_: Any) -> Any:
        return self._made("volume", attrs={"Mountpoint": "/nowhere"})

    def _container(self, *_: Any, mounts: list[dict[str, Any]], **__: Any) -> Any:
        if mounts[0]["Type"] == "bind":
            raise APIError("bind source path does not exist: /nowhere/hosts")
        return self._made("container", put_archive=lambda *_: True)


@pytest.mark.parametrize("name", ["docker", "podman"])
def test_own_way(name: str) -> None:
    """A daemon that mounts nothing out of a volume gives no network in its own way, as Podman."""
    client = Refusing()
    info = SimpleNamespace(name=EngineName(name))
    offline = Offline(cast("Daemon", SimpleNamespace(info=info, client=client)))

    assert [offline.options("image") for _ in range(2)] == [{"network_mode": "none"}] * 2
    assert client.left == ([] if name == "podman" else ["volume", "container"])
    offline.close()
    assert client.left == []
