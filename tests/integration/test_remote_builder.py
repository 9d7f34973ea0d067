"""Builders that do not see the daemon's images: what they are given, and what comes back.

A stand-in for the client shows what is asked of one. Where a client has buildx, and the daemon's
own BuildKit can be taken for another machine's, all of it is done for real.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import docker
import pytest

import daemons
from conftest import require
from dockerbench import environment, open_docker, open_pulling
from handmade import GREETING, HandMade
from nox_variants import checkup, config, invocation
from nox_variants.checkup import State
from nox_variants.engines.docker import choosing, connection
from nox_variants.engines.docker.bringing import STAND_INS
from nox_variants.engines.docker.engine import DockerEngine
from nox_variants.errors import EngineUnavailable
from nox_variants.model import Image, ImageSource, LinkMode, SourceKind
from nox_variants.oci.layer import write_tree
from nox_variants.oci.validation import validate
from nox_variants.options import Options
from nox_variants.registrycache import RegistryCache
from nox_variants.results import EngineName
from nox_variants.store import Store
from projects import REPOSITORY
from recording import Recording

if TYPE_CHECKING:
    from collections.abc import Iterator

    from daemons import Service
    from recording import Call

pytestmark = [pytest.mark.docker, pytest.mark.sandbox]


def stand_ins(service: Service) -> set[str]:
    """Return the tags of stand-ins that a daemon has."""
    with contextlib.closing(docker.DockerClient(base_url=service.url)) as client:
        return {tag for each in client.images.list(name=STAND_INS) for tag in each.tags}


# --- what a builder is asked --------------------------------------------------------------------


def client_here() -> str:
    """Return the first docker client of this machine."""
    found = shutil.which("docker")
    if found is None:
        require("docker", "docker is not installed")
    return found


@dataclass(frozen=True)
class Builders:
    """A client on PATH that knows a remote builder, and does as if that built.

    Attributes:
        recording: What it was asked.
        folder: Where it is.
        ways: How it answers.
    """

    recording: Recording
    folder: Path
    ways: dict[str, Any]

    def change(self, **changes: Any) -> None:
        """Let it answer otherwise."""
        self.recording.client(self.folder, **self.ways, **changes)


@pytest.fixture
def standin(roots: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Builders:
    """Put a client on PATH that knows a remote builder, and does as if that built."""
    artifact = roots["gcc"] / "usr/lib/hello-static"
    made = Builders(
        Recording(tmp_path / "log"),
        tmp_path / "client",
        {"artifact": str(artifact), "real": client_here()},
    )
    made.change()
    monkeypatch.setenv("PATH", f"{made.folder}:{os.environ['PATH']}")
    return made


def layout_of(call: Call) -> dict[str, Path]:
    """Return the layouts that a build was given, by the image; each is whole."""
    found = {}
    for value in call.values("--build-context"):
        name, _, where = value.partition("=")
        place, _, digest = where.removeprefix("oci-layout://").partition("@")
        folder = Path(place)
        validate(folder)
        index = json.loads((folder / "index.json").read_bytes())
        assert [each["digest"] for each in index["manifests"]] == [digest]
        found[name] = folder
    return found


def test_what_a_builder_is_asked(
    standin: Builders, home: Path, roots: dict[str, Path], source: Path
) -> None:
    """Stand-ins travel as layouts out of the store, and the daemon gets what it runs."""
    with daemons.docker() as service:
        bench = open_docker(
            "buildkit", service, home=home, roots=roots, source=source, builder="far"
        )
        plan = bench.plan(run="alpine")

        seen = bench.run(plan)

        assert stand_ins(service) == set()
        assert bench.engine.probe().builder == "buildx, builder far (remote)"
        compiled, assembled = standin.recording.builds()
        for call in (compiled, assembled):
            assert call.words[:3] == ("buildx", "build", "--builder=far")
        names = [
            f"{STAND_INS}:{bench.engine.prepare(each.image).digest[7:39]}"
            for each in (plan.build, plan.run)
        ]
        assert list(layout_of(compiled)) == names[:1]
        assert list(layout_of(assembled)) == names
        assert f"FROM {names[0]} AS build\n" in compiled.dockerfile
        assert f"FROM {names[1]} AS run\n" in assembled.dockerfile
        assert compiled.values("--output")[0].startswith("type=local,")
        assert assembled.values("--tag") == ("hello-c:gcc-static.alpine",)
        assert "--load" in assembled.words
        assert (seen.started, seen.exit_code, seen.stdout) == (True, 0, GREETING)
        bench.engine.close()


def test_layouts_are_written_once(
    standin: Builders, docker_service: Service, home: Path, roots: dict[str, Path], source: Path
) -> None:
    """Another run finds layouts, builds and images of the first."""
    made = []
    for _ in range(2):
        bench = open_docker(
            "buildkit", docker_service, home=home, roots=roots, source=source, builder="far"
        )
        bench.image(bench.plan(run="alpine"))
        bench.engine.close()
        made.append({file: file.stat().st_ino for file in home.glob("layouts/*/index.json")})

    assert made[0] == made[1]
    assert len(made[0]) == 2
    assert len(standin.recording.builds()) == 2


def test_builders_have_builds_of_their_own(
    standin: Builders, docker_service: Service, home: Path, roots: dict[str, Path], source: Path
) -> None:
    """What one builder compiled is not taken for what another one would."""
    keys = set()
    for name, driver in (("far", "remote"), ("default", "docker")):
        standin.change(driver=driver)
        bench = open_docker(
            "buildkit", docker_service, home=home, roots=roots, source=source, builder=name
        )
        keys.add(bench.build(bench.plan()).key)
        bench.engine.close()

    assert len(keys) == 2


@pytest.mark.usefixtures("standin")
@pytest.mark.parametrize(
    ("name", "state", "words"),
    [
        ("far", State.USABLE, "it builds with buildx, builder far (remote)"),
        ("near", State.TROUBLE, "builder 'near' cannot be used: no builder \"near\" found"),
    ],
)
def test_doctor(name: str, state: State, words: str, docker_service: Service) -> None:
    """Doctor names the builder that the environment asks for, or says why it cannot be used."""
    environ = {**environment("buildkit", docker_service), "BUILDX_BUILDER": name}

    (found,) = checkup.run([("docker", lambda: checkup.daemon(EngineName.DOCKER, environ))])

    assert (found.name, found.state) == ("docker", state)
    assert words in found.words


def test_run_of_a_file(
    standin: Builders, docker_service: Service, home: Path, source: Path
) -> None:
    """What the command line and the file ask for gets to the engine, and is told."""
    cache = RegistryCache(repository="registry.example.com/cache")
    root = source.parent
    settings = replace(config.load(REPOSITORY / "variants.yaml"), root=root, cache=cache)
    environ = {**environment("buildkit", docker_service), "NOX_VARIANTS_HOME": str(home)}
    told: dict[str, tuple[str, list[str]]] = {}
    for name in ("far", "default", "embedded"):
        standin.change(driver="docker" if name == "default" else "remote")
        said: list[str] = []
        options = Options(engine="embedded") if name == "embedded" else Options(builder=name)
        engine, why = invocation.choose_engine(
            settings, options, environ=environ, progress=said.append
        )
        told[name] = (why, said)
        assert engine.probe().builder == ("" if name == "embedded" else why.partition("with ")[2])
        engine.close()

    place = "cache: registry.example.com/cache"
    assert told == {
        "far": (
            "as --builder asks, at DOCKER_HOST; it builds with buildx, builder far (remote)",
            [],
        ),
        "default": (
            "as --builder asks, at DOCKER_HOST; it builds with buildx, builder default (docker)",
            [f"{place} is only read: driver 'docker' cannot write there"],
        ),
        "embedded": ("as asked for", [f"{place} is not used: only buildx can"]),
    }


@pytest.mark.usefixtures("standin")
def test_home_that_buildx_cannot_name(
    docker_service: Service, tmp_path: Path, roots: dict[str, Path], source: Path
) -> None:
    """buildx reads a path with a colon as something else: that is said, and what to do."""
    bench = open_docker(
        "buildkit",
        docker_service,
        home=tmp_path / "a:b",
        roots=roots,
        source=source,
        builder="far",
    )

    with pytest.raises(connection.DaemonError, match="cannot be given to buildx") as caught:
        bench.engine.prepare(bench.plan().build.image)
    assert "NOX_VARIANTS_HOME" in caught.value.hint
    bench.engine.close()


# --- for real -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def far() -> Iterator[Service]:
    """Give another daemon, whose BuildKit is to be another machine's."""
    with daemons.docker(containerd=True) as service:
        yield service


@pytest.fixture
def builder(
    far: Service, docker_service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """Give the name of a builder of the driver `remote`."""
    config, name = tmp_path / ".docker", "far"
    plugins = Path(os.environ.get("DOCKER_CONFIG", Path.home() / ".docker")) / "cli-plugins"
    config.mkdir()
    if plugins.is_dir():
        (config / "cli-plugins").symlink_to(plugins)
    monkeypatch.delenv("DOCKER_CONFIG", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    with daemons.buildkit(far) as address:
        create = ["docker", "buildx", "create", "--name", name, "--driver", "remote", address]
        with contextlib.suppress(OSError):
            subprocess.run(create, check=False, capture_output=True)
        environ = environment("buildkit", docker_service)
        daemon = connection.connect("docker", environ)
        try:
            choosing.choose(daemon, environ, name=name)
        except EngineUnavailable as error:
            require("buildx", f"{error}: it takes buildx, and a daemon of version 25 or newer")
        finally:
            daemon.client.close()
        yield name


def test_variants(
    builder: str, docker_service: Service, home: Path, roots: dict[str, Path], source: Path
) -> None:
    """Variants are built elsewhere and run here, with the verdicts and sizes of every engine."""
    bench = open_docker(
        "buildkit", docker_service, home=home, roots=roots, source=source, builder=builder
    )
    before = stand_ins(docker_service)
    for run in ("scratch", "alpine", "gcc"):
        plan = bench.plan(run=run)
        image = bench.image(plan)
        seen = bench.engine.smoke(image, plan.smoke)

        assert (seen.started, seen.exit_code, seen.stdout) == (True, 0, GREETING)
        base = bench.engine.prepare(plan.run.image)
        assert image.layers[: len(base.layers)] == base.layers
        assert image.sizes.content == base.content + image.sizes.above_base
    assert not bench.run(bench.plan(link=LinkMode.DYNAMIC)).started
    assert stand_ins(docker_service) == before
    bench.engine.close()


@pytest.fixture
def registry(far: Service, docker_service: Service, tmp_path: Path) -> Iterator[str]:
    """Give a registry that both daemons reach."""
    with daemons.registry(docker_service, tmp_path) as where, daemons.registry(far, tmp_path):
        yield where


def test_registry_cache(
    builder: str,
    registry: str,
    far: Service,
    docker_service: Service,
    roots: dict[str, Path],
    source: Path,
    tmp_path: Path,
) -> None:
    """What a builder compiled is found by another one that has nothing."""
    cache = RegistryCache(repository=f"{registry}/team/cache")
    cached = []
    for number in (1, 2):
        home = tmp_path / str(number)
        bench = open_docker(
            "buildkit",
            docker_service,
            home=home,
            roots=roots,
            source=source,
            builder=builder,
            cache=cache,
        )
        bench.image(bench.plan("true; cp /usr/lib/hello-static /out/hello-c"))
        bench.engine.close()
        (log,) = home.glob("builds/*/log.txt")
        steps = log.read_text(encoding="utf-8").split("\n\n")
        cached.append(any("RUN" in step and "CACHED" in step for step in steps))
        with contextlib.closing(docker.DockerClient(base_url=far.url)) as client:
            client.api.prune_builds(all=True)

    assert cached == [False, True]


def test_images_of_the_daemon(
    builder: str,
    registry: str,
    docker_service: Service,
    home: Path,
    roots: dict[str, Path],
    source: Path,
    tmp_path: Path,
) -> None:
    """What a registry has is pulled there by its digest; what only the daemon has travels."""
    where = f"{registry}/team/base"
    with contextlib.closing(docker.DockerClient(base_url=docker_service.url)) as client:
        store = Store(home)
        prepared = HandMade(store, roots).prepare(image("gcc", ""))
        with (tmp_path / "root.tar").open("wb") as tar:
            write_tree(store.entry("images", prepared.digest[7:]) / "root", tar, mtime=0)
        store.close()
        for name in (where, "only/here"):
            archive = str(tmp_path / "root.tar")
            said = ["ENV FROM=registry", "LABEL mine=1"]
            client.api.import_image_from_file(archive, repository=name, tag="1", changes=said)
        client.images.push(where, tag="1")
    bench, _ = open_pulling(docker_service, home, source, [], builder=builder)
    mark = "echo set up > /etc/mark"
    bases = {
        "plain": image("plain", f"{where}:1"),
        "changed": image("changed", f"{where}:1", mark),
        "local": image("local", "only/here:1"),
        "both": image("both", "only/here:1", mark),
    }
    froms = {}
    for name, base in bases.items():
        plan = bench.plan(
            run="alpine",
            stage_image=bases["local"],
            run_image=base,
            run_cmd=("/bin/sh", "-c", "cat /etc/mark; /hello-c"),
        )
        made = bench.image(plan)
        seen = bench.engine.smoke(made, plan.smoke)

        assert seen.stdout == ("set up\n" if base.sources[0].setup else "") + GREETING
        assert ("FROM", "registry") in made.env
        file = source.parent / ".variants/dockerfiles/hello-c/gcc-static.alpine.Dockerfile"
        (line,) = (
            each for each in file.read_text("utf-8").splitlines() if each.endswith(" AS run")
        )
        froms[name] = line.split()[1]
    assert froms["plain"].startswith(f"{where}:1@sha256:")
    assert froms["changed"].startswith("nox-variants/image:")
    assert froms["local"] == "only/here:1"
    assert froms["both"].startswith("nox-variants/image:")
    assert isinstance(bench.engine, DockerEngine)
    bench.engine.close()


def image(name: str, reference: str, *setup: str) -> Image:
    source = ImageSource(kind=SourceKind.REGISTRY, reference=reference, setup=setup)
    return Image(name=name, sources=(source,))
