"""`nox-variants publish` as a user types it: after a run, into real registries."""

from __future__ import annotations

import base64
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import requests

import registries
from nox_variants.history import History
from registries import PASSWORD, USER, Fault, FaultProxy

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from projects import Project

pytestmark = [pytest.mark.apt, pytest.mark.sandbox]

GIVEN = """\
version: 1
programs:
  hello-c:
    language: c
    source: hello-c
    run: [alpine, scratch]
    link: [dynamic, static]
    expect:
      - {run: [alpine, scratch], link: dynamic, verdict: fails, cause: missing-loader}
    smoke: {stdout: "Hello, world!\\n"}
  wrong:
    language: c
    source: hello-c
    run: scratch
    link: static
    smoke: {stdout: "Bye!\\n"}
"""
PUBLISHED = {"hello-c(alpine,static)", "hello-c(scratch,static)"}
"""What passes of it, and nothing else does."""

TAGS = {"gcc-static.alpine", "gcc-static.scratch"}


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[FaultProxy]:
    """Give a registry that wants a password, and what stands in front of it."""
    folder = tmp_path / "guarded"
    with (
        registries.registry(folder, htpasswd=registries.HTPASSWD) as address,
        FaultProxy(address) as proxy,
    ):
        yield proxy


def with_login(project: Project, address: str, *, helper: bool) -> Project:
    """Return a project whose user has logged in, and whose helper keeps that."""
    folder = project.folder.parent / "docker"
    folder.mkdir()
    path = os.environ["PATH"]
    if helper:
        said = shlex.quote(json.dumps({"Username": USER, "Secret": PASSWORD}))
        program = folder / "docker-credential-tests"
        program.write_text(f"#!/bin/sh\necho {said}\n", encoding="utf-8")
        program.chmod(0o755)
        config: object = {"credsStore": "tests"}
        path = f"{folder}{os.pathsep}{path}"
    else:
        auth = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        config = {"auths": {address: {"auth": auth}}}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return replace(project, environ={"DOCKER_CONFIG": str(folder), "PATH": path})


def asked(address: str, path: str) -> requests.Response:
    """Ask a guarded registry directly."""
    with requests.Session() as session:
        session.trust_env = False
        return session.get(
            f"http://{address}/v2/{path}",
            headers={"Accept": registries.MANIFEST},
            auth=(USER, PASSWORD),
            timeout=60,
        )


def published(project: Project) -> dict[str, tuple[str, ...]]:
    """Return where the history says that the last run's images are."""
    with History(project.folder / ".variants" / "history.sqlite") as history:
        records = history.run(history.runs()[0])
    return {each.variant: each.image.published for each in records if each.image}


@pytest.mark.parametrize("helper", [False, True], ids=["auths", "helper"])
def test_publish(project: Project, guarded: FaultProxy, *, helper: bool) -> None:
    """What passed is pushed with docker's login, and recorded; nothing else is, and none twice."""
    address = guarded.address
    project = with_login(project, address, helper=helper)
    project.write("variants.yaml", GIVEN)
    assert project.nox("-s", "matrix").returncode == 1  # for `wrong`
    command = ("publish", "*", "--to", f"{address}/me/demo", "--insecure", "--stand-ins")

    first = project.cli(*command)
    before = len(guarded.requests)
    second = project.cli(*command)
    methods = {each.method for each in guarded.requests[before:]}

    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    lines = dict(line.split(": ", 1) for line in first.stdout.splitlines())
    assert set(lines) == PUBLISHED
    assert "wrong(scratch,static): left out: failed: " in first.stderr
    assert "hello-c(scratch,dynamic): left out: xfailed: " in first.stderr
    assert set(asked(address, "me/demo/hello-c/tags/list").json()["tags"]) == TAGS
    assert asked(address, "me/demo/wrong/tags/list").status_code == 404
    for variant, reference in lines.items():
        name, _, digest = reference.removeprefix(f"{address}/").partition("@")
        repository, _, tag = name.partition(":")
        answer = asked(address, f"{repository}/manifests/{tag}")
        assert registries.sha256(answer.content) == digest
        assert published(project)[variant] == (reference,)
    assert second.stdout == first.stdout
    assert methods == {"HEAD"}
    for text in (first.stdout, first.stderr, second.stderr):
        assert PASSWORD not in text
        assert base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode() not in text


def test_another_run(project: Project, tmp_path: Path) -> None:
    """A run that was not the last one is named; what another one has replaced is not published."""
    project.write("variants.yaml", GIVEN)
    variant = ("-s", "hello-c(scratch,static)")
    assert project.nox(*variant).returncode == 0
    with History(project.folder / ".variants" / "history.sqlite") as history:
        (earlier,) = history.runs()
    assert project.nox("-s", "hello-c(alpine,static)").returncode == 0

    with registries.registry(tmp_path / "registry") as address:
        command = ("publish", variant[1], "--insecure", "--to", address)
        last = project.cli(*command)
        named = project.cli(*command, "--run", earlier)
        source = project.folder / "hello-c" / "hello.c"
        source.write_text(source.read_text(encoding="utf-8") + "int more;\n", encoding="utf-8")
        assert project.nox(*variant).returncode == 0
        replaced = project.cli(*command, "--run", earlier)

    assert last.returncode == 1
    assert "left out: it is not in this run: nox -s matrix runs all, --run ID" in last.stderr
    assert named.returncode == 0, named.stderr
    assert replaced.returncode == 1
    assert "not published: its image is another one now: " in replaced.stderr


def test_mistakes(project: Project) -> None:
    """A name that is none, and a registry that is not there, are said in one line each."""
    project.write("variants.yaml", GIVEN)
    assert project.nox("-s", "hello-c(scratch,static)").returncode == 0
    nowhere = f"127.0.0.1:{registries.free_port()}/me"

    typo = project.cli("publish", "hello-c(scrach,static)", "--to", nowhere)
    dead = project.cli("publish", "hello-c(scratch,static)", "--insecure", "--to", nowhere)

    assert (typo.returncode, typo.stdout) == (2, "")
    assert typo.stderr == (
        "nox-variants: no variant matches 'hello-c(scrach,static)'."
        " Did you mean 'hello-c(scratch,static)'?\n"
    )
    assert (dead.returncode, dead.stdout) == (1, "")
    assert "cannot be reached from here. Is the name right, and the network up?" in dead.stderr
    assert "Traceback" not in dead.stderr


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_ctrl_c(project: Project, tmp_path: Path, number: signal.Signals, status: int) -> None:
    """Who is interrupted while a layer is sent says what was pushed, and leaves no tag."""
    project.write("variants.yaml", GIVEN)
    assert project.nox("-s", "hello-c(scratch,static)").returncode == 0
    with (
        registries.registry(tmp_path / "registry") as address,
        FaultProxy(address, Fault(what="silent", path="digest=sha256")) as proxy,
    ):
        words = ["publish", "hello-c(scratch,static)", "--insecure", "--to", proxy.address]
        with subprocess.Popen(
            [sys.executable, "-m", "nox_variants", *words],
            cwd=project.folder,
            env=project.environment(),
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            end = time.monotonic() + registries.PATIENCE
            while not proxy.paths("digest=sha256"):
                assert process.poll() is None, process.communicate()[1]
                assert time.monotonic() < end
                time.sleep(0.01)
            process.send_signal(number)
            said = process.communicate()[1]
        assert asked(address, "hello-c/tags/list").status_code == 404
        again = project.cli(*words)

    assert process.returncode == status
    lines = said.splitlines()
    assert lines[0] == "0 of 1 variants were pushed, each of them whole"
    assert lines[1:] == (["nox-variants: interrupted"] if number == signal.SIGINT else [])
    assert again.returncode == 0, again.stderr


@pytest.mark.docker
@pytest.mark.parametrize("engine", ["docker", "podman"])
def test_daemons(
    project: Project, tmp_path: Path, engine: str, request: pytest.FixtureRequest
) -> None:
    """What a daemon built is taken out of it: the registry has the very image that was tried."""
    service = request.getfixturevalue(f"{engine}_service")
    name = "CONTAINER_HOST" if engine == "podman" else "DOCKER_HOST"
    project = replace(project, environ={name: service.url, "NOX_VARIANTS_ENGINE": engine})
    project.write("variants.yaml", GIVEN)
    arguments = ("-s", "matrix", "--", "--only", "*(scratch,static)", "--json", "out.json")
    assert project.nox(*arguments).returncode == 1  # for `wrong`
    record = project.records()["hello-c(scratch,static)"]

    with registries.registry(tmp_path / "registry") as address:
        done = project.cli("publish", "*(scratch,static)", "--insecure", "--to", address)
        manifest = asked(address, "hello-c/manifests/gcc-static.scratch").json()
        wrong = asked(address, "wrong/tags/list")

    assert (record["engine"]["name"], record["outcome"]) == (engine, "passed")
    assert done.returncode == 0, done.stderr
    assert manifest["config"]["digest"] == record["image"]["config_digest"]
    assert wrong.status_code == 404
    assert "wrong(scratch,static): left out: failed: " in done.stderr
