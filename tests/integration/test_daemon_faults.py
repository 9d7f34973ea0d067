"""A Docker daemon that is stopped or paused in the middle of a run: an error, and no verdict."""

from __future__ import annotations

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING

import docker
import pytest
from docker.errors import APIError

import daemons
from dockerbench import open_docker
from nox_variants import runner
from nox_variants.engines.docker import pulse
from nox_variants.invocation import _context
from nox_variants.model import Smoke
from nox_variants.results import Outcome
from samples import SETTINGS
from sandboxed import processes, program_runs, token, wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from handmade import Bench
    from nox_variants.plan import Plan
    from nox_variants.record import Record
    from nox_variants.runner import Task

pytestmark = [pytest.mark.docker, pytest.mark.sandbox]

YIELDS = "trap 'exit 7' TERM; sleep 600 & wait"
"""A program that ends by itself when it is asked to: only the daemon knows that it was."""


class Silent:
    """An observer that says nothing."""

    def started(self, task: Task) -> None:
        """Say nothing."""

    def finished(self, task: Task, result: object) -> None:
        """Say nothing."""

    def recorded(self, record: Record) -> None:
        """Say nothing."""


def records(bench: Bench, *plans: Plan) -> tuple[Record, ...]:
    """Run plans."""
    context = _context(SETTINGS, bench.engine.probe())
    return runner.run(plans, bench.engine, context, Silent(), jobs=2)


def end(word: str) -> None:
    """End what a daemon left of a build."""
    for number, _ in processes(word):
        with suppress(ProcessLookupError):
            os.kill(number, signal.SIGKILL)


def test_daemon_that_is_stopped(home: Path, roots: dict[str, Path], source: Path) -> None:
    """What it ended, as `systemctl stop docker` does, says nothing about the program."""
    words = token(), token()

    def stop() -> None:
        wait_until(lambda: all(map(program_runs, words)), "both run")
        service.process.send_signal(signal.SIGTERM)

    with daemons.docker() as service, ThreadPoolExecutor(1) as beside:
        bench = open_docker("buildkit", service, home=home, roots=roots, source=source)
        command = ("/bin/sh", "-c", YIELDS, words[0])
        smoked = bench.plan(run="alpine", run_cmd=command, smoke=Smoke(timeout=60.0))
        built = bench.plan(f"sh -c 'while :; do sleep 1; done' {words[1]}", run="gcc")
        stopping = beside.submit(stop)
        seen = records(bench, smoked, built)
        stopping.result()
        service.process.wait(daemons.PATIENCE)
        end(words[1])  # BuildKit leaves that when it is stopped

        assert [(each.outcome, each.verdict) for each in seen] == [(Outcome.ERROR, None)] * 2
        assert "the daemon" in seen[0].reason  # it ended it, or is gone, whatever is seen first
        assert "the build could not be done" in seen[1].reason
        with daemons.docker(data=str(service.folder / "data")) as again:
            later = open_docker("buildkit", again, home=home, roots=roots, source=source)
            (record,) = records(later, later.plan())
            later.engine.close()

    assert record.outcome is Outcome.PASSED


def test_container_that_somebody_ends(
    docker_service: daemons.Service, home: Path, roots: dict[str, Path], source: Path
) -> None:
    """A program that was ended from outside, as a daemon does while it stops, did not fail."""
    word = token()
    client = docker.DockerClient(base_url=docker_service.url)

    def end() -> None:
        wait_until(lambda: program_runs(word), "it runs")
        while program_runs(word):  # the first signals may come before its trap is set
            for container in client.containers.list(ignore_removed=True):
                if word in container.attrs["Config"]["Cmd"]:
                    with suppress(APIError):  # it has just ended
                        container.kill(signal="SIGTERM")
            time.sleep(0.1)

    bench = open_docker("buildkit", docker_service, home=home, roots=roots, source=source)
    command = ("/bin/sh", "-c", YIELDS, word)
    with ThreadPoolExecutor(1) as beside:
        beside.submit(end)
        plan = bench.plan(run="alpine", run_cmd=command, smoke=Smoke(timeout=60.0))
        (record,) = records(bench, plan)
    bench.engine.close()
    client.close()

    assert (record.outcome, record.verdict) == (Outcome.ERROR, None)
    assert "the daemon ended the container. Was it stopped or restarted" in record.reason


@pytest.mark.parametrize("way", ["buildkit", "classic", "podman"])
def test_daemon_that_is_paused_while_it_builds(
    way: str, home: Path, roots: dict[str, Path], source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A build has no time limit, but a daemon that does not answer meanwhile is given up."""
    monkeypatch.setattr(pulse, "EVERY", 0.5)
    word = token()

    def pause() -> None:
        wait_until(lambda: program_runs(word), "it runs")
        bench.engine._daemon.client.api.timeout = 1  # type: ignore[attr-defined]
        service.process.send_signal(signal.SIGSTOP)

    started = daemons.podman() if way == "podman" else daemons.docker()
    with started as service, ThreadPoolExecutor(1) as beside:
        bench = open_docker(way, service, home=home, roots=roots, source=source)
        beside.submit(pause)
        plan = bench.plan(f"sh -c 'while :; do sleep 1; done' {word}", run="gcc")
        (record,) = records(bench, plan)
        service.process.send_signal(signal.SIGCONT)
        if way == "podman":  # it lets a command of a build run to its end, client or not
            end(word)
        wait_until(lambda: not list(processes(word)), "the build ends with its client")

    assert (record.outcome, record.verdict) == (Outcome.ERROR, None)
    assert "the daemon does not answer any more" in record.reason
