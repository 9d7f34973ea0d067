"""A container that is killed at once: run again, until the daemon hears why."""

from __future__ import annotations

import signal
import threading
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from nox_variants.engines.docker import containers
from nox_variants.engines.docker.offline import Offline
from nox_variants.model import Smoke
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
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What counts is the run of which the daemon heard, or the first one."""
    done: list[Observation] = []

    def observed(*_: Any) -> Observation:
        done.append(runs[len(done)])
        return done[-1]

    monkeypatch.setattr(containers, "_observed", observed)
    daemon = cast("Daemon", SimpleNamespace(info=SimpleNamespace(name=EngineName(name))))
    run = containers.Run(image="i", cmd=(), env=(), labels=(), agrees=lambda _: True)
    reaper = containers.Reaper()

    found = containers.observe(daemon, run, Smoke(), Offline(daemon), reaper, threading.Event())

    assert (found, len(done)) == (seen, count)
    reaper.close()
