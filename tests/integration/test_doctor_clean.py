"""Doctor and clean with real daemons of the tests' own."""

from __future__ import annotations

import json
import os
import secrets
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from docker.errors import APIError

from nox_variants import checkup, cleanup
from nox_variants.checkup import State
from nox_variants.cleanup import Kept, Removed, Wishes
from nox_variants.cli import main
from nox_variants.engines.docker.connection import connect
from nox_variants.results import EngineName
from nox_variants.sandbox import bubblewrap
from nox_variants.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from daemons import Service
    from nox_variants.engines.docker.connection import Daemon

pytestmark = pytest.mark.docker

VARIABLES = {EngineName.DOCKER: "DOCKER_HOST", EngineName.PODMAN: "CONTAINER_HOST"}
HERE = socket.gethostname()
DEAD = f"{HERE}:4194305"
"""An owner whose process cannot be there: no process has such a number (proc(5))."""

SIZE = 2_000_000
STAGE = {"nox-variants.stage": "ab"}
VARIANT = {
    "nox-variants.variant": "hello-c(scratch,static)",
    "org.opencontainers.image.title": "hello-c",
}
MINE = {"maintainer": "me"}


@pytest.fixture(params=list(VARIABLES))
def daemon(request: pytest.FixtureRequest) -> Iterator[Daemon]:
    """Give a daemon with nothing in it; what a test made goes at its end."""
    name = request.param
    service: Service = request.getfixturevalue(f"{name}_service")
    found = connect(name, {VARIABLES[name]: service.url})
    empty(found)
    yield found
    empty(found)
    found.client.close()


def empty(daemon: Daemon) -> None:
    """Remove everything."""
    for container in daemon.client.containers.list(all=True):
        container.remove(force=True)
    while images := daemon.client.api.images():
        before = len(images)
        for image in images:  # one that others stand on goes in the next turn
            with suppress(APIError):
                daemon.client.api.remove_image(image["Id"], force=True)
        assert len(daemon.client.api.images()) < before


def make(daemon: Daemon, folder: Path, tag: str, labels: dict[str, str], base: str = "") -> None:
    """Build an image with a file of its own; without a base it stands on nothing."""
    context = folder / secrets.token_hex(4)
    context.mkdir()
    (context / "file").write_bytes(secrets.token_bytes(SIZE))
    (context / "Dockerfile").write_text(
        f"FROM {base or 'scratch'}\nCOPY file /{context.name}\n", encoding="ascii"
    )
    daemon.client.images.build(path=str(context), tag=tag, labels=labels, rm=True)


def contain(daemon: Daemon, image: str, **labels: str) -> str:
    """Make a container that is never started."""
    made = daemon.client.containers.create(
        image, command=["-"], labels={f"nox-variants.{name}": text for name, text in labels.items()}
    )
    return str(made.id)


def tags(daemon: Daemon) -> set[str]:
    """Return the names of images, as Docker has them."""
    return {
        name.removeprefix("docker.io/").removeprefix("library/").removeprefix("localhost/")
        for image in daemon.client.api.images()
        for name in image["RepoTags"] or ("<none>:<none>",)
    }


def containers(daemon: Daemon) -> set[str]:
    return {each["Id"] for each in daemon.client.api.containers(all=True)}


def cleaned(daemon: Daemon, home: Path, **wishes: Any) -> list[cleanup.Result]:
    return [*cleanup.clean_daemon(daemon, home, Wishes(**wishes))]


def whats(results: list[cleanup.Result]) -> list[str]:
    return [each.what for each in results if isinstance(each, Removed)]


def test_means_go_and_the_rest_stays(daemon: Daemon, home: Path, tmp_path: Path) -> None:
    """Stages, stand-ins and what lost its name go; variants, and all that is the user's, stay."""
    for tag, labels in {
        "nox-variants/build:ab": STAGE,
        "nox-variants/stand-in:cd": {"nox-variants.stand-in": "gcc"},
        "hello-c:gcc-static.scratch": VARIANT,
        "mine:1": MINE,
    }.items():
        make(daemon, tmp_path, tag, labels)
    make(daemon, tmp_path, "mine:2", {}, base="hello-c:gcc-static.scratch")
    make(daemon, tmp_path, "nox-variants/build:ab", STAGE)
    named = tags(daemon)
    dry = cleaned(daemon, home, dry_run=True)
    untouched = tags(daemon)
    found = cleaned(daemon, home)
    left = tags(daemon)
    again = cleaned(daemon, home)

    assert named == untouched
    assert "<none>:<none>" in named
    assert whats(dry) == whats(found) == ["3 images"]
    assert left == {"hello-c:gcc-static.scratch", "mine:1", "mine:2"}
    assert again == []


def test_freed_bytes(daemon: Daemon, home: Path, tmp_path: Path) -> None:
    """Docker says what went; Podman does not, and then nothing is said."""
    make(daemon, tmp_path, "nox-variants/build:ab", STAGE)
    (found,) = cleaned(daemon, home)

    assert isinstance(found, Removed)
    if daemon.info.name is EngineName.PODMAN:
        assert found.freed is None
    else:
        assert found.freed == SIZE


def test_variants_go_when_it_is_asked_for(daemon: Daemon, home: Path, tmp_path: Path) -> None:
    """`--variants` takes variants, and not what the user made of them or called otherwise."""
    make(daemon, tmp_path, "hello-c:gcc-static.scratch", VARIANT)
    make(daemon, tmp_path, "hello-c:gcc-musl.alpine", VARIANT)
    make(daemon, tmp_path, "mine:2", {}, base="hello-c:gcc-musl.alpine")
    daemon.client.images.get("hello-c:gcc-static.scratch").tag("mine", "3")
    found = cleaned(daemon, home, variants=True)

    assert whats(found) == ["2 images"]
    assert tags(daemon) == {"mine:2", "mine:3"}


def test_containers_of_ended_runs(daemon: Daemon, home: Path, tmp_path: Path) -> None:
    """A dead run's container goes, and what it stood on; the user's own stays."""
    make(daemon, tmp_path, "nox-variants/build:ab", STAGE)
    make(daemon, tmp_path, "mine:1", MINE)
    dead, mine = contain(daemon, "nox-variants/build:ab", owner=DEAD), contain(daemon, "mine:1")
    dry = cleaned(daemon, home, dry_run=True)
    before = containers(daemon)
    found = cleaned(daemon, home)

    assert before == {dead, mine}
    assert whats(dry) == whats(found) == ["1 container of ended runs", "1 image"]
    assert containers(daemon) == {mine}
    assert tags(daemon) == {"mine:1"}


def test_containers_of_living_runs(daemon: Daemon, home: Path, tmp_path: Path) -> None:
    """A living run keeps its containers, and the images that it may need."""
    make(daemon, tmp_path, "nox-variants/build:ab", STAGE)
    owner = f"{HERE}:{os.getpid()}"
    alive = contain(daemon, "nox-variants/build:ab", owner=owner)
    contain(daemon, "nox-variants/build:ab", owner=DEAD)
    found = cleaned(daemon, home)

    assert found == [
        Removed(place=daemon.info.name, what="1 container of ended runs"),
        Kept(
            place=daemon.info.name,
            what="images",
            why=f"runs of {owner} have containers; again when they have ended",
        ),
    ]
    assert containers(daemon) == {alive}
    assert tags(daemon) == {"nox-variants/build:ab"}


def test_running_process_keeps_the_images(daemon: Daemon, home: Path, tmp_path: Path) -> None:
    """Images stay as long as a process is in the store, and go when it has left."""
    make(daemon, tmp_path, "nox-variants/build:ab", STAGE)
    user = Store(home)
    (kept,) = cleaned(daemon, home)
    during = tags(daemon)
    user.close()
    found = cleaned(daemon, home)

    assert isinstance(kept, Kept)
    assert kept.why.startswith(f"in use by process {os.getpid()}")
    assert during == {"nox-variants/build:ab"}
    assert whats(found) == ["1 image"]


def test_image_that_the_user_runs(daemon: Daemon, home: Path, tmp_path: Path) -> None:
    """An image in which the user has a container stays, with the daemon's words; others go."""
    make(daemon, tmp_path, "nox-variants/build:ab", STAGE)
    make(daemon, tmp_path, "nox-variants/build:cd", STAGE)
    mine = contain(daemon, "nox-variants/build:ab")
    removed, kept = cleaned(daemon, home)

    assert whats([removed]) == ["1 image"]
    assert isinstance(kept, Kept)
    assert kept.what.endswith("nox-variants/build:ab")
    assert kept.why.startswith("the daemon says: ")
    assert containers(daemon) == {mine}
    assert tags(daemon) == {"nox-variants/build:ab"}


def test_doctor_asks_a_daemon(daemon: Daemon, request: pytest.FixtureRequest) -> None:
    """The version, the place and the builder of a daemon that answers are said."""
    name = daemon.info.name
    service: Service = request.getfixturevalue(f"{name}_service")
    environ = {VARIABLES[name]: service.url, "PATH": os.environ["PATH"]}
    found = checkup.daemon(name, environ)

    assert found.state is State.USABLE
    assert found.words.startswith(f"{name} {daemon.info.version} (API 1.")
    assert f" answers at {VARIABLES[name]}; it builds with " in found.words
    assert found.hint == ""


@pytest.fixture
def only_docker(
    docker_service: Service, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """Let the environment name Docker, a Podman that is not there, and a store and project."""
    monkeypatch.setenv("DOCKER_HOST", docker_service.url)
    monkeypatch.setenv("CONTAINER_HOST", f"unix://{tmp_path}/podman.sock")
    monkeypatch.setenv("NOX_VARIANTS_HOME", str(home))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("only_docker")
def test_doctor_for_machines(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All that was checked comes as JSON; one engine is enough; nothing was made."""
    assert main(["doctor", "--offline", "--json"]) == 0

    found = {check["name"]: check for check in json.loads(capsys.readouterr().out)}
    assert [*found] == [
        *("docker", "podman", "embedded", "auto", "apt", "user namespaces", "disk", "store"),
    ]
    assert (found["docker"]["state"], found["podman"]["state"]) == ("usable", "trouble")
    assert found["auto"]["words"] == "docker: it answers at DOCKER_HOST"
    assert not home.exists()


@pytest.mark.usefixtures("only_docker")
def test_doctor_says_what_is_asked_for(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """NOX_VARIANTS_ENGINE decides; one that does not answer is trouble, in plain lines."""
    monkeypatch.setenv("NOX_VARIANTS_ENGINE", "podman")

    assert main(["doctor", "--offline"]) == 0

    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("docker           usable   docker ")
    assert any(
        line.startswith("auto             trouble  podman does not answer") for line in lines
    )


def forget_bwrap() -> None:
    """Let bubblewrap be looked for anew."""
    for cached in (bubblewrap.find_bwrap, bubblewrap.probe):
        cached.cache_clear()


def test_no_usable_engine(
    only_docker: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no engine can be used the status is 1."""
    monkeypatch.setenv("DOCKER_HOST", f"unix://{only_docker}/docker.sock")
    monkeypatch.setattr("sys.platform", "elsewhere")
    forget_bwrap()
    try:
        status = main(["doctor", "--offline"])
    finally:
        forget_bwrap()

    assert status == 1
    said = capsys.readouterr().out
    assert "the embedded engine needs Linux, this is elsewhere" in said


@pytest.mark.sandbox
def test_embedded_engine_is_asked_for() -> None:
    """The embedded engine is tried, not only named."""
    found = checkup.chosen({"NOX_VARIANTS_ENGINE": "embedded"})

    assert (found.state, found.words) == (
        State.USABLE,
        "NOX_VARIANTS_ENGINE is set: embedded: as asked for",
    )


def test_one_daemon_under_two_names(
    podman_service: Service, only_docker: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Podman to which DOCKER_HOST leads is cleaned once, under its own name."""
    for name in VARIABLES.values():
        monkeypatch.setenv(name, podman_service.url)
    found = connect("podman", os.environ)
    empty(found)
    make(found, only_docker, "nox-variants/build:ab", STAGE)
    results = [*cleanup.everything(os.environ, only_docker / "none", Wishes(dry_run=True), now=0)]
    empty(found)
    found.client.close()

    assert results == [Removed(place="podman", what="1 image")]


def test_clean_says_what_went(
    only_docker: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command cleans the store and Docker, and says that Podman does not answer."""
    with_docker = connect("docker", {"DOCKER_HOST": os.environ["DOCKER_HOST"]})
    empty(with_docker)
    make(with_docker, only_docker, "nox-variants/build:ab", STAGE)
    store = Store(home)
    with store.publish("builds", "key") as staging:
        (staging / "file").touch()
    store.close()

    assert main(["clean", "--keep", "0"]) == 1

    left = tags(with_docker)
    with_docker.client.close()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("store: removed 1 of 1 part (builds 1), ")
    assert lines[1] == "docker: removed 1 image, 2 MB"
    assert lines[2].startswith("podman: kept everything: podman does not answer: ")
    assert (left, [*(home / "builds").iterdir()]) == (set(), [])
