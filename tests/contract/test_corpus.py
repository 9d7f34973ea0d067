"""What is predicted is what is seen: programs of every kind in roots of every kind."""

from __future__ import annotations

import functools
import platform
from typing import TYPE_CHECKING

import pytest

import corpus
from conftest import CORPUS
from dockerbench import open_docker
from handmade import Bench, open_engine
from nox_variants import programfile, rootfs
from nox_variants.diagnosis import PREDICTABLE, contradiction, judge, predict
from nox_variants.model import Cause, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from daemons import Service
    from nox_variants.plan import BuildStage
    from nox_variants.results import Build

pytestmark = [
    pytest.mark.apt,
    pytest.mark.sandbox,
    pytest.mark.skipif(platform.machine() != "x86_64", reason="the programs are for x86_64"),
]

CAUSES = {
    "ok": None,
    "loader": Cause.MISSING_LOADER,
    "library": Cause.MISSING_LIBRARY,
    "libc": Cause.LIBC_TOO_OLD,
    "c++": Cause.LIBSTDCXX_TOO_OLD,
    "machine": Cause.WRONG_ARCHITECTURE,
    "shell": Cause.MISSING_SHELL,
    "shebang": Cause.BAD_SHEBANG,
    "exec": Cause.NOT_EXECUTABLE,
    "runner": Cause.MISSING_INTERPRETER,
    "zones": Cause.MISSING_TIMEZONE_DATA,
    "user": Cause.MISSING_USER,
    "class": Cause.CLASS_VERSION,
}
"""The words of the tables below."""

TABLE = """
program            scratch busybox alpine  glibc   debian  old     old-c++
c-dynamic          loader  loader  loader  ok      ok      libc    libc
c-older            loader  loader  loader  ok      ok      ok      ok
c-newer            loader  loader  loader  libc    libc    libc    libc
c-static           ok      ok      ok      ok      ok      ok      ok
c-static-pie       ok      ok      ok      ok      ok      ok      ok
c-musl             ok      ok      ok      ok      ok      ok      ok
musl-dynamic       loader  loader  ok      loader  loader  loader  loader
cxx-dynamic        loader  loader  loader  library ok      library libc
cxx-older          loader  loader  loader  library ok      library ok
cxx-newer          loader  loader  loader  library c++     library libc
cxx-digits         loader  loader  loader  library ok      library libc
cxx-digits-older   loader  loader  loader  library ok      library c++
cxx-static         ok      ok      ok      ok      ok      ok      ok
cxx-own            loader  loader  loader  ok      ok      libc    libc
use                loader  loader  loader  library library library library
runpath-alone      loader  loader  loader  library library library library
runpath            loader  loader  loader  ok      ok      libc    libc
runpath-lacks      loader  loader  loader  library library library library
runpath-chain      loader  loader  loader  library library library library
rpath-alone        loader  loader  loader  library library library library
rpath              loader  loader  loader  ok      ok      libc    libc
rpath-lacks        loader  loader  loader  library library library library
rpath-chain        loader  loader  loader  ok      ok      libc    libc
runpath-newer      loader  loader  loader  libc    libc    libc    libc
foreign-library    loader  loader  loader  library library library library
library-path       loader  loader  loader  ok      ok      libc    libc
musl-use           loader  loader  library loader  loader  loader  loader
musl-runpath-alone loader  loader  library loader  loader  loader  loader
musl-runpath       loader  loader  ok      loader  loader  loader  loader
musl-foreign       loader  loader  library loader  loader  loader  loader
musl-no-library    loader  loader  library loader  loader  loader  loader
musl-runpath-chain loader  loader  ok      loader  loader  loader  loader
aarch64-static     machine machine machine machine machine machine machine
aarch64-dynamic    machine machine machine machine machine machine machine
riscv64-static     machine machine machine machine machine machine machine
riscv64-dynamic    machine machine machine machine machine machine machine
i686-static        ok      ok      ok      ok      ok      ok      ok
i686-dynamic       loader  loader  loader  loader  loader  loader  loader
truncated          exec    exec    exec    exec    exec    exec    exec
text               exec    exec    exec    exec    exec    exec    exec
empty              exec    exec    exec    exec    exec    exec    exec
locked             exec    exec    exec    exec    exec    exec    exec
folder             exec    exec    exec    exec    exec    exec    exec
absent             exec    exec    exec    exec    exec    exec    exec
sh                 shell   ok      ok      ok      ok      shell   shell
sh-crlf            shebang shebang shebang shebang shebang shebang shebang
env-python         shell   shell   shell   shell   shell   shell   shell
env-python-crlf    shell   shebang shebang shebang shebang shell   shell
for-nobody         shell   shell   shell   shell   shell   shell   shell
for-runner         shell   ok      ok      ok      ok      shell   shell
for-program        loader  loader  loader  ok      ok      libc    libc
five-scripts       shell   ok      ok      ok      ok      shell   shell
six-scripts        shebang shebang shebang shebang shebang shebang shebang
library            exec    exec    exec    exec    exec    exec    exec
for-text           exec    exec    exec    exec    exec    exec    exec
bare               shebang shebang shebang shebang shebang shebang shebang
shell-form         shell   ok      ok      ok      ok      shell   shell
user-dynamic       loader  loader  loader  user    ok      libc    libc
user-older         loader  loader  loader  user    ok      user    user
user-static        user    user    user    user    ok      user    user
user-musl          user    user    user    user    ok      user    user
zone-dynamic       loader  loader  loader  zones   zones   libc    libc
zone-static        zones   zones   zones   zones   zones   zones   zones
zone-musl          zones   zones   zones   zones   zones   zones   zones
go-static          ok      ok      ok      ok      ok      ok      ok
go-cgo             loader  loader  loader  ok      ok      libc    libc
rust-dynamic       loader  loader  loader  library ok      library libc
java               runner  runner  runner  runner  runner  runner  runner
"""

SPECIAL = """
no-libc          c-dynamic library  c-static ok  cxx-dynamic library  sh library
no-libc          shell-form library  env-python library
loader-locked    c-dynamic exec     c-static ok  sh exec  env-python exec
loader-dangling  c-dynamic loader   c-static ok  sh loader
loader-text      c-dynamic exec     c-static ok  sh exec
loader-foreign   c-dynamic exec     c-static ok  sh exec
loader-cycle     c-dynamic loader   c-static ok
libc-dangling    c-dynamic library  c-static ok  sh library
libc-cycle       c-dynamic library  c-static ok
conf-only        use library        library-path ok
conf-cache       use ok             c-dynamic ok  runpath-alone ok
cache-stale      use library        c-dynamic ok
lib-default      use ok             rpath-alone ok
lib-usr          use ok
lib-local        use library
lib-hwcaps       use ok
lib-foreign      use library        runpath ok
both-libcs       c-dynamic ok       musl-dynamic ok
musl-path        musl-use ok        musl-dynamic ok
musl-no-path     musl-use library
musl-usr         musl-use ok
musl-elsewhere   musl-use library   musl-dynamic ok
python           env-python ok      env-python-crlf shebang
python-dynamic   env-python loader
python-locked    env-python exec
sh-dangling      sh shell           shell-form shell  c-static ok
users            user-static ok     user-musl ok  user-dynamic loader
old-users        user-older ok      user-static ok
old-no-nss       user-older user    user-static ok
libc-users       user-dynamic ok    user-static ok
distroless       user-static ok     zone-static ok  zone-musl ok  c-dynamic loader  sh shell
java             java ok            java-newer class  c-dynamic ok
"""


def pairs() -> dict[tuple[str, str], Cause | None]:
    """Return what is expected of each program in each root."""
    (_, *roots), *rows = (line.split() for line in TABLE.strip().splitlines())
    found = {
        (program, root): CAUSES[word]
        for program, *words in rows
        for root, word in zip(roots, words, strict=True)
    }
    for root, *words in (line.split() for line in SPECIAL.strip().splitlines()):
        for program, word in zip(words[::2], words[1::2], strict=True):
            found[program, root] = CAUSES[word]
    return found


PAIRS = pairs()

WITHOUT_FIXTURES = PREDICTABLE - {Cause.MISSING_CERTIFICATES, Cause.NAME_RESOLUTION}

SAMPLE = """
c-dynamic scratch, c-dynamic glibc, c-dynamic alpine, c-dynamic old, c-dynamic no-libc
c-dynamic loader-locked, c-dynamic loader-dangling, c-dynamic libc-cycle, c-older old
c-newer glibc, c-static scratch, musl-dynamic alpine, musl-dynamic glibc, cxx-dynamic glibc
cxx-newer old-c++, cxx-digits-older old-c++, runpath glibc, runpath-chain glibc
rpath-chain glibc, musl-runpath-alone alpine, aarch64-static scratch, riscv64-dynamic glibc
truncated busybox, text busybox, empty busybox, locked scratch, folder scratch, sh scratch
sh busybox, sh-crlf busybox, env-python busybox, env-python-crlf busybox, bare busybox
for-text busybox, shell-form scratch, user-static scratch, zone-musl busybox, use conf-cache
use conf-only, musl-use musl-path, env-python python-dynamic, java java, java-newer java
c-dynamic loader-foreign, c-dynamic loader-text, library scratch, six-scripts busybox
five-scripts busybox, env-python python-locked, env-python no-libc, musl-foreign alpine
java scratch
"""
"""Programs and roots for daemons, too."""

SAMPLED = [
    (words[0], words[1])
    for line in SAMPLE.strip().splitlines()
    for words in map(str.split, line.split(","))
]


@pytest.fixture(scope="module")
def roots(shared_home: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Give the roots of the corpus, of which one has the programs."""
    return corpus.make_corpus(shared_home, tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a source folder in a project of its own; the home is beside it."""
    folder = tmp_path_factory.mktemp("pairs") / "project" / "hello-c"
    folder.mkdir(parents=True)
    (folder / "hello.c").write_text("", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def embedded(roots: dict[str, Path], project: Path) -> Bench:
    """Give the embedded engine."""
    home = project.parents[1] / "home"
    return Bench(open_engine(home, roots, project.parent), project)


@pytest.fixture(scope="module")
def docker(roots: dict[str, Path], project: Path, docker_service: Service) -> Iterator[Bench]:
    """Give Docker with BuildKit."""
    home = project.parents[1] / "home-of-docker"
    made = open_docker("buildkit", docker_service, home=home, roots=roots, source=project)
    yield made
    made.engine.close()


def test_class_of_a_compiler(roots: dict[str, Path]) -> None:
    """What `javac` makes is for the release of the runtime that came with it."""
    made = roots["build"] / corpus.MADE.lstrip("/")
    release = rootfs.read((roots["java"],)).java

    assert release > 0
    assert programfile.read_facts(made / "Hello.class").class_version == release
    assert programfile.read_facts(made / "Newer.class").class_version == release + 4


@pytest.fixture(scope="module")
def podman(roots: dict[str, Path], project: Path, podman_service: Service) -> Iterator[Bench]:
    """Give Podman."""
    home = project.parents[1] / "home-of-podman"
    made = open_docker("podman", podman_service, home=home, roots=roots, source=project)
    yield made
    made.engine.close()


@functools.cache
def built(bench: Bench, stage: BuildStage) -> Build:
    """Return what the one build stage made."""
    return bench.engine.build(stage, bench.engine.prepare(stage.image))


def ids(each: tuple[str, str]) -> str:
    """Return a pair's name."""
    return " in ".join(each)


def check(bench: Bench, pair: tuple[str, str], request: pytest.FixtureRequest) -> None:
    """Predict, run, judge, and hold all of it against the table; tell the session's summary."""
    plan = corpus.plan(bench, *pair)
    build = built(bench, plan.build)
    image = bench.engine.assemble(plan, bench.engine.prepare(plan.run.image), build)
    subject = corpus.subject(bench, plan, build, image, platform.machine())
    predicted = predict(subject)
    seen = bench.engine.smoke(image, plan.smoke)
    found = judge(subject, seen)
    agree = (predicted.verdict, predicted.cause) == (found.verdict, found.cause)
    engine = bench.engine.probe().name
    request.node.user_properties.append((CORPUS, (str(engine), str(found.cause or ""), agree)))

    expected = PAIRS[pair]
    verdict = Verdict.FAILS if expected else Verdict.WORKS
    assert (predicted.verdict, predicted.cause) == (verdict, expected), (predicted, subject, seen)
    assert (found.verdict, found.cause) == (verdict, expected), (found, subject, seen)
    assert contradiction(predicted, found) is None


@pytest.mark.parametrize("pair", PAIRS, ids=ids)
def test_embedded(embedded: Bench, pair: tuple[str, str], request: pytest.FixtureRequest) -> None:
    """In the sandbox, each program does in each root what its files say."""
    check(embedded, pair, request)


@pytest.mark.docker
@pytest.mark.parametrize("pair", SAMPLED, ids=ids)
def test_docker(docker: Bench, pair: tuple[str, str], request: pytest.FixtureRequest) -> None:
    """In a container of Docker's, too."""
    check(docker, pair, request)


ON_PODMAN = [
    *{PAIRS[pair]: pair for pair in reversed(SAMPLED)}.values(),
    *(("locked", "scratch"), ("folder", "scratch"), ("shell-form", "scratch")),
]
"""A pair of each cause, and those that Podman refuses before it starts a container."""


@pytest.mark.docker
@pytest.mark.parametrize("pair", list(dict.fromkeys(ON_PODMAN)), ids=ids)
def test_podman(podman: Bench, pair: tuple[str, str], request: pytest.FixtureRequest) -> None:
    """And in a container of Podman's, whose runtime has other words."""
    check(podman, pair, request)


def test_sample() -> None:
    """Docker sees every cause that needs no fixtures, in pairs that the sandbox sees, too."""
    causes = {PAIRS[pair] for pair in SAMPLED}

    assert causes == {*WITHOUT_FIXTURES, None}
    assert (len(PAIRS) >= 120, len(set(SAMPLED)) >= 30) == (True, True)
