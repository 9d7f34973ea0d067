"""Which builder is chosen, for how long that is remembered, and what buildx is told."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
from docker.errors import ImageNotFound

from nox_variants.engines import selection
from nox_variants.engines.docker import builders, choosing
from nox_variants.errors import EngineUnavailable, UsageError
from nox_variants.options import Options, parse
from nox_variants.registrycache import RegistryCache
from nox_variants.results import EngineName
from nox_variants.store import Store
from recording import Recording

if TYPE_CHECKING:
    from nox_variants.engines.docker.connection import Daemon

pytestmark = pytest.mark.subprocess

CACHE = RegistryCache(repository="registry.example.com/team/cache")
PLACE = "type=registry,ref=registry.example.com/team/cache"
CONTAINERD = [["Backing Filesystem", "extfs"], ["driver-type", "io.containerd.snapshotter.v1"]]


@pytest.fixture
def recording(tmp_path: Path) -> Recording:
    """What clients are asked."""
    return Recording(tmp_path / "log")


@pytest.fixture
def environ(tmp_path: Path, recording: Recording) -> dict[str, str]:
    """Two docker clients on PATH: the second can build with BuildKit, none has buildx."""
    first = recording.client(tmp_path / "first", buildx=False, builds=[])
    second = recording.client(tmp_path / "second", buildx=False, builds=["build"])
    return {"PATH": f"{first}:{second}", "HOME": str(tmp_path)}


@pytest.fixture
def buildx(tmp_path: Path, recording: Recording) -> dict[str, str]:
    """A docker client with buildx."""
    return {"PATH": str(recording.client(tmp_path / "one")), "HOME": str(tmp_path)}


def daemon(name: EngineName = EngineName.DOCKER, **changes: Any) -> Daemon:
    """Return a daemon that has every image, and removes it."""
    removed: list[str] = []
    client = SimpleNamespace(
        images=SimpleNamespace(remove=removed.append), info=lambda: {"DriverStatus": []}
    )
    values = {
        "id": "D",
        "info": SimpleNamespace(version="1", name=name),
        "environ": (("DOCKER_HOST", "unix:///socket"),),
        "why": "DOCKER_HOST",
        "client": client,
        "removed": removed,
    }
    return cast("Daemon", SimpleNamespace(**values | changes))


def command(builder: builders.Builder) -> tuple[str, ...]:
    return builder.command if isinstance(builder, builders.Client) else ()


def tried(recording: Recording) -> list[tuple[str, str]]:
    """Return which client was tried in which way."""
    return [
        (Path(each.client).parent.name, each.words[0])
        for each in recording.calls
        if "build" in each.words
    ]


# --- the best that works ------------------------------------------------------------------------


def test_first_that_works(environ: dict[str, str], recording: Recording) -> None:
    """Clients are tried in the order of PATH, buildx first; without a store every time."""
    for _ in range(2):
        made = choosing.choose(daemon(), environ)
        assert command(made)[0].endswith("second/docker")
        assert (made.name, made.remote) == ("docker build (BuildKit)", False)
    ways = [("first", "buildx"), ("first", "build"), ("second", "buildx"), ("second", "build")]
    assert tried(recording) == ways * 2


def test_remembered(home: Path, environ: dict[str, str], recording: Recording) -> None:
    """What was found out is not tried again."""
    first = choosing.choose(daemon(), environ, Store(home))
    assert len(tried(recording)) == 4

    assert command(choosing.choose(daemon(), environ, Store(home))) == command(first)
    assert len(tried(recording)) == 4


def test_no_client(home: Path, environ: dict[str, str], recording: Recording) -> None:
    """That nothing but the daemon's own builder works is remembered, too."""
    environ["PATH"] = environ["PATH"].partition(":")[0]

    for _ in range(2):
        assert isinstance(choosing.choose(daemon(), environ, Store(home)), builders.Classic)
    assert len(tried(recording)) == 2


def test_builder_of_the_users_choice(
    home: Path, buildx: dict[str, str], recording: Recording
) -> None:
    """What `docker buildx use` chose may build elsewhere: that is found out, and remembered."""
    for _ in range(2):
        made = choosing.choose(daemon(), buildx, Store(home))
        assert (made.name, made.remote) == ("buildx, its builder (remote)", True)
    assert len(recording.calls) == 2


@pytest.mark.parametrize("what", ["client", "plugin", "builder", "daemon", "version", "damage"])
def test_tried_anew(
    home: Path, tmp_path: Path, environ: dict[str, str], recording: Recording, what: str
) -> None:
    """Whatever could change the answer asks the question again."""
    choosing.choose(daemon(), environ, Store(home))
    changed = daemon()
    match what:
        case "client":
            recording.client(tmp_path / "first", buildx=False, builds=[], log="newer")
        case "plugin":
            (tmp_path / ".docker" / "cli-plugins").mkdir(parents=True)
            (tmp_path / ".docker" / "cli-plugins" / "docker-buildx").touch()
        case "builder":
            (tmp_path / ".docker" / "buildx").mkdir(parents=True)
            (tmp_path / ".docker" / "buildx" / "current").touch()
        case "daemon":
            changed = daemon(id="E")
        case "version":
            changed = daemon(info=SimpleNamespace(version="2", name=EngineName.DOCKER))
        case _:
            (file,) = home.glob("facts/*/builder.json")
            file.write_text("{", encoding="utf-8")

    choosing.choose(changed, environ, Store(home))

    assert len(tried(recording)) == 8


# --- a builder by its name ----------------------------------------------------------------------


@pytest.mark.parametrize("way", ["option", "variable"])
def test_named(way: str, home: Path, buildx: dict[str, str], recording: Recording) -> None:
    """The option and buildx's own variable name a builder, which is tried in every run."""
    name = "far" if way == "option" else ""
    environ = buildx if way == "option" else {**buildx, "BUILDX_BUILDER": "far"}
    for number in (1, 2):
        asked = daemon()
        made = choosing.choose(asked, environ, Store(home), name=name)

        assert isinstance(made, builders.Client)
        assert made.command[1:] == ("buildx", "build", "--builder=far")
        assert (made.name, made.remote) == ("buildx, builder far (remote)", True)
        assert dict(made.environ)["DOCKER_HOST"] == "unix:///socket"
        version, inspected, trial = recording.calls[-3:]
        assert len(recording.calls) == 3 * number
        assert version.words == ("buildx", "version")
        assert inspected.words == ("buildx", "inspect", "far")
        assert trial.words[:4] == ("buildx", "build", "--builder=far", "--load")
        assert asked.removed == list(trial.values("--tag"))  # type: ignore[attr-defined]


def test_the_option_wins(tmp_path: Path, buildx: dict[str, str], recording: Recording) -> None:
    """Both may be there: the option is the more particular one."""
    recording.client(tmp_path / "one", builder="near", driver="docker-container")

    made = choosing.choose(daemon(), {**buildx, "BUILDX_BUILDER": "far"}, name="near")

    assert made.name == "buildx, builder near (docker-container)"


def test_own_builder_by_name(tmp_path: Path, buildx: dict[str, str], recording: Recording) -> None:
    """The BuildKit inside of the daemon has a name, too, and sees its images."""
    recording.client(tmp_path / "one", driver="docker")

    made = choosing.choose(daemon(), buildx, name="default")

    assert (made.name, made.remote) == ("buildx, builder default (docker)", False)


def test_podman_and_the_variable(environ: dict[str, str]) -> None:
    """The variable is about another engine's builders where Podman answers."""
    made = choosing.choose(daemon(EngineName.PODMAN), {**environ, "BUILDX_BUILDER": "far"})

    assert command(made)[0].endswith("second/docker")


def test_builder_that_lets_wait(
    buildx: dict[str, str], tmp_path: Path, recording: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A builder that is started first is waited for, and that is said."""
    monkeypatch.setattr(choosing, "_PATIENCE", 0.05)
    recording.client(tmp_path / "one", slow=0.5)
    said: list[str] = []

    choosing.choose(daemon(), buildx, name="far", note=said.append)

    assert said == ["builder far (remote): waiting for it"]


def gone(_: str) -> None:
    raise ImageNotFound("no such image")


@pytest.mark.parametrize(
    ("name", "changes", "said"),
    [
        ("near", {}, "builder 'near' cannot be used: no builder \"near\" found"),
        ("far", {"driver": ""}, "builder 'far' cannot be used: buildx does not say its driver"),
        ("far", {"builds": []}, "builder 'far' does not answer: context deadline exceeded"),
        ("far", {"buildx": False}, "builder 'far': no docker client on PATH has buildx"),
    ],
)
def test_builder_that_cannot_be_used(
    name: str,
    changes: dict[str, Any],
    said: str,
    tmp_path: Path,
    buildx: dict[str, str],
    recording: Recording,
) -> None:
    """A builder that is asked for and is not there is an error that says why; no other is taken."""
    recording.client(tmp_path / "one", **changes)

    with pytest.raises(EngineUnavailable) as caught:
        choosing.choose(daemon(), buildx, name=name)

    assert caught.value.message.startswith(said)
    assert "docker-buildx" in caught.value.hint or "docker buildx create" in caught.value.hint


def test_builder_of_another_daemon(buildx: dict[str, str]) -> None:
    """A builder whose images do not come to the daemon that runs them is refused."""
    images = SimpleNamespace(images=SimpleNamespace(remove=gone))

    with pytest.raises(EngineUnavailable, match="for another daemon than the one at DOCKER_HOST"):
        choosing.choose(daemon(client=images), buildx, name="far")


@pytest.mark.parametrize("name", ["--load", "a b", "/far"])
def test_no_name(name: str, buildx: dict[str, str], recording: Recording) -> None:
    """What can be no builder's name is never passed to a client."""
    with pytest.raises(UsageError, match="is no builder's name"):
        choosing.choose(daemon(), buildx, name=name)
    assert recording.calls == []


def test_option() -> None:
    """The option names a builder; buildx's own variable is left to who asks buildx."""
    assert parse(["--builder", "far"], {}, prog="nox") == Options(builder="far")
    assert parse([], {"BUILDX_BUILDER": "far"}, prog="nox") == Options()


@pytest.mark.parametrize("engine", [EngineName.EMBEDDED, EngineName.PODMAN])
def test_engine_without_builders(engine: EngineName) -> None:
    """Only the docker engine has builders: others are no match for one."""
    with pytest.raises(UsageError, match=f"--builder far: the engine {engine} does not build"):
        selection.choose(engine, {}, builder="far")


def test_builder_is_the_docker_engines() -> None:
    """A builder leaves no choice of engines: without Docker there is none."""
    with pytest.raises(EngineUnavailable, match="docker does not answer"):
        selection.choose("auto", {"DOCKER_HOST": "unix:///nowhere/socket"}, builder="far")


# --- what a client is told ----------------------------------------------------------------------


def client(folder: Path, **changes: Any) -> builders.Client:
    """Return buildx on the only client of a folder."""
    program = str(folder / "docker")
    return builders.Client(
        name="buildx", command=(program, "buildx", "build"), environ={}, driver="remote", **changes
    )


def job(**changes: Any) -> builders.Job:
    return builders.Job(dockerfile="FROM a\n", context=Path("/context"), tag="name:tag", **changes)


def built(recording: Recording, client: builders.Client, job: builders.Job) -> tuple[str, ...]:
    """Build, and return what the client was told besides Dockerfile and context."""
    client.build(job, lambda _: None, threading.Event())
    (call,) = recording.builds()
    assert call.dockerfile == job.dockerfile
    assert call.words[2:5] == ("--progress", "plain", "--file")
    assert call.words[-1] == "/context"
    return call.words[6:-1]


def test_contexts(tmp_path: Path, recording: Recording) -> None:
    """Images that the builder cannot find are named contexts; the result is loaded."""
    made = client(recording.client(tmp_path / "one"))
    where = "oci-layout:///store/layouts/a@sha256:1"

    words = built(recording, made, job(contexts=(("nox-variants/stand-in:a", where),)))

    named = f"nox-variants/stand-in:a={where}"
    assert words == ("--load", "--tag", "name:tag", "--build-context", named)


READ = ("--cache-from", f"{PLACE}:one", "--cache-from", f"{PLACE}:two")


@pytest.mark.parametrize(
    ("changes", "cache", "expected"),
    [
        ({}, CACHE, (*READ, "--cache-to", f"{PLACE}:one,mode=max,ignore-error=true")),
        ({"cache": False}, CACHE, ("--cache-to", f"{PLACE}:one,mode=max,ignore-error=true")),
        ({}, replace(CACHE, write=False), READ),
        (
            {},
            replace(CACHE, mode="min"),
            (*READ, "--cache-to", f"{PLACE}:one,mode=min,ignore-error=true"),
        ),
        ({"cache_tags": ()}, CACHE, ()),
        ({}, None, ()),
    ],
)
def test_registry_cache(
    changes: dict[str, Any],
    cache: RegistryCache | None,
    expected: tuple[str, ...],
    tmp_path: Path,
    recording: Recording,
) -> None:
    """Layers are taken from all of a job's tags, and left at the first; anew, none are taken."""
    made = client(recording.client(tmp_path / "one"), cache=cache)

    words = built(recording, made, job(**{"cache_tags": ("one", "two"), **changes}))

    assert tuple(word for word in words[3:] if word != "--no-cache") == expected
    assert ("--no-cache" in words) == ("cache" in changes)


LOG = """#7 exporting cache to registry
#7 preparing build cache for export
#8 importing to docker
#8 DONE 0.0s
#7 ERROR: error writing layer blob: 401 Unauthorized
"""


def test_cache_that_cannot_be_written(tmp_path: Path, recording: Recording) -> None:
    """A registry that takes no layers fails no build: it is said, once in a run."""
    folder, said = recording.client(tmp_path / "one", log=LOG), list[str]()
    made = choosing.with_cache(client(folder), CACHE, daemon(), said.append)

    for _ in range(2):
        made.build(job(cache_tags=("one",)), lambda _: None, threading.Event())

    place = "registry.example.com/team/cache"
    assert said == [
        f"cache: {place} does not take layers: error writing layer blob: 401 Unauthorized"
    ]


@pytest.mark.parametrize(
    ("builder", "status", "does", "said"),
    [
        ("remote", [], "write", ""),
        ("docker", CONTAINERD, "write", ""),
        ("docker", [], "read", "is only read: driver 'docker' cannot write there"),
        ("docker build", [], "", "is not used: only buildx can, not docker build (BuildKit)"),
        ("classic", [], "", "is not used: only buildx can, not the daemon's builder"),
    ],
)
def test_who_uses_a_cache(
    builder: str, status: list[list[str]], does: str, said: str, tmp_path: Path
) -> None:
    """buildx does, as far as its driver can; what is not done is said before the run."""
    images = SimpleNamespace(info=lambda: {"DriverStatus": status})
    noted: list[str] = []
    made: builders.Builder
    match builder:
        case "classic":
            made = builders.Classic(daemon())
        case "docker build":
            made = builders.Client(
                name="docker build (BuildKit)", command=("docker", "build"), environ={}
            )
        case driver:
            made = replace(client(tmp_path), driver=driver)

    found = choosing.with_cache(made, CACHE, daemon(client=images), noted.append)

    cache = found.cache if isinstance(found, builders.Client) else None
    assert ("write" if cache and cache.write else "read" if cache else "") == does
    assert noted == ([f"cache: registry.example.com/team/cache {said}"] if said else [])
