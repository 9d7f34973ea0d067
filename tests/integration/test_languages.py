"""Languages beside the compiled ones: built and run as the catalogue says."""

from __future__ import annotations

import gzip
import io
import json
import shutil
import tarfile
import zipfile
from importlib import metadata
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Literal

import pytest

import standins
from nox_variants import rootfs
from nox_variants.config import load
from nox_variants.errors import ConfigError
from projects import NOXFILE, REPOSITORY, Project

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.apt, pytest.mark.sandbox]

FILE = r"""
version: 1
programs:
  hello-java:
    language: java
    source: hello-java
    run: [jre, "jre:alpine", distroless/base]
    flags: [--release, "11"]
    expect: [{run: distroless/base, verdict: fails, cause: missing-interpreter}]
    smoke: &hello {stdout: "Hello, world!\n"}
  newer-java:
    language: newer-java
    source: hello-java
    run: jre
    expect: [{verdict: fails, cause: class-version}]
  hello-java-jlink:
    language: java-jlink
    source: hello-java
    run: [debian, alpine]
    expect: [{run: alpine, verdict: fails, cause: missing-loader}]
    smoke: *hello
  hello-node:
    language: node
    source: hello-node
    run: [node, "node:slim", scratch]
    expect: [{run: scratch, verdict: fails, cause: missing-interpreter}]
    smoke: *hello
  locked-node:
    language: node
    source: locked-node
    run: "node:slim"
    network: none
    smoke: *hello
  hello-python:
    language: python
    source: hello-python
    run: [python, "python:slim", debian, scratch]
    expect:
      - {run: debian, verdict: fails, cause: missing-interpreter}
      - {run: scratch, verdict: fails, cause: build-failed}
    smoke: *hello
  pyyaml:
    language: python
    source: pyyaml
    run: [python, "python:slim"]
    build_env: {PIP_NO_INDEX: "1", PIP_FIND_LINKS: /src}
    network: none
    smoke: {stdout: "gcc: 1.1 GB\nscratch: 12 kB\n"}
  hello-ruby:
    language: ruby
    source: hello-ruby
    run: [ruby, "ruby:slim", scratch]
    expect: [{run: scratch, verdict: fails, cause: missing-interpreter}]
    smoke: *hello
  bundled-ruby:
    language: ruby
    source: bundled-ruby
    run: "ruby:slim"
    flags: [--local]
    network: none
    smoke: *hello
  hello-c:
    language: c
    source: hello-c
    run: distroless/base
    smoke: *hello

languages:
  # As a compiler of Java 30 would do it.
  newer-java:
    artifact: /out/Main.class
    cmd: [java, -cp, /, Main]
    link:
      dynamic:
        build: jdk
        commands: >-
          javac -d /out Main.java &&
          printf '\000\112' | dd of=/out/Main.class bs=1 seek=6 conv=notrunc
"""

LOCKED_NODE = {
    "index.js": "console.log(require('greeting'));\n",
    "package.json": '{"dependencies": {"greeting": "file:greeting"}}\n',
    "package-lock.json": json.dumps(
        {
            "lockfileVersion": 3,
            "packages": {
                "": {"dependencies": {"greeting": "file:greeting"}},
                "greeting": {"version": "1.0.0"},
                "node_modules/greeting": {"resolved": "greeting", "link": True},
            },
        }
    ),
    "greeting/package.json": '{"name": "greeting", "version": "1.0.0"}\n',
    "greeting/index.js": "module.exports = 'Hello, world!';\n",
}

BUNDLED_RUBY = {
    "main.rb": 'require_relative "bundle/bundler/setup"\nrequire "greeting"\nputs GREETING\n',
    "Gemfile": 'source "https://rubygems.org"\ngem "greeting"\n',
    "Gemfile.lock": """\
GEM
  remote: https://rubygems.org/
  specs:
    greeting (1.0)

PLATFORMS
  ruby

DEPENDENCIES
  greeting
""",
}

GEM = """\
--- !ruby/object:Gem::Specification
name: greeting
version: !ruby/object:Gem::Version
  version: '1.0'
summary: Greets
authors: [nobody]
files: [lib/greeting.rb]
require_paths: [lib]
specification_version: 4
"""

OUTCOMES = {
    "hello-java(jre,dynamic)": "passed",
    "hello-java(jre:alpine,dynamic)": "skipped",
    "hello-java(distroless/base,dynamic)": "xfailed",
    "newer-java(jre,dynamic)": "xfailed",
    "hello-java-jlink(debian,dynamic)": "passed",
    "hello-java-jlink(alpine,dynamic)": "xfailed",
    "hello-node(node,dynamic)": "passed",
    "hello-node(node:slim,dynamic)": "passed",
    "hello-node(scratch,dynamic)": "xfailed",
    "locked-node(node:slim,dynamic)": "passed",
    "hello-python(python,dynamic)": "passed",
    "hello-python(python:slim,dynamic)": "passed",
    "hello-python(debian,dynamic)": "xfailed",
    "hello-python(scratch,dynamic)": "xfailed",
    "pyyaml(python,dynamic)": "passed",
    "pyyaml(python:slim,dynamic)": "passed",
    "hello-ruby(ruby,dynamic)": "passed",
    "hello-ruby(ruby:slim,dynamic)": "passed",
    "hello-ruby(scratch,dynamic)": "xfailed",
    "bundled-ruby(ruby:slim,dynamic)": "passed",
    "hello-c(distroless/base,dynamic)": "passed",
}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, shared_home: Path) -> Project:
    """The examples, with what their package managers would download beside them."""
    made = Project(folder=tmp_path_factory.mktemp("languages"), home=shared_home)
    made.write("noxfile.py", NOXFILE)
    made.write("variants.yaml", FILE)
    for name in ("c", "java", "node", "python", "ruby"):
        shutil.copytree(REPOSITORY / f"examples/hello-{name}", made.folder / f"hello-{name}")
    shutil.copytree(REPOSITORY / "examples/pyyaml", made.folder / "pyyaml")
    pack_yaml(made.folder / "pyyaml")
    for folder, files in {"locked-node": LOCKED_NODE, "bundled-ruby": BUNDLED_RUBY}.items():
        for name, text in files.items():
            made.write(f"{folder}/{name}", text)
    pack_gem(made.folder / "bundled-ruby/vendor/cache/greeting-1.0.gem")
    return made


def pack_yaml(folder: Path) -> None:
    """Make a wheel of this machine's PyYAML, without its C part, as the version asked for."""
    _, _, version = (
        (folder / "requirements.txt").read_text(encoding="utf-8").strip().partition("==")
    )
    about = f"pyyaml-{version}.dist-info"
    with zipfile.ZipFile(folder / f"pyyaml-{version}-py3-none-any.whl", "w") as wheel:
        for name, path in _modules("PyYAML"):
            wheel.write(path, name)
        wheel.writestr(
            f"{about}/METADATA", f"Metadata-Version: 2.1\nName: PyYAML\nVersion: {version}\n"
        )
        wheel.writestr(
            f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{about}/RECORD", "")


def pack_gem(file: Path) -> None:
    """Make a gem that holds a greeting."""
    data = archive("w:gz", {"lib/greeting.rb": b'GREETING = "Hello, world!"\n'})
    about = gzip.compress(GEM.encode())
    file.parent.mkdir(parents=True)
    file.write_bytes(archive("w", {"metadata.gz": about, "data.tar.gz": data}))


def archive(mode: Literal["w", "w:gz"], files: dict[str, bytes]) -> bytes:
    """Return a tar archive of files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as tar:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), 0o644
            tar.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def _modules(distribution: str) -> Iterator[tuple[str, Path]]:
    for file in metadata.files(distribution) or ():
        if file.suffix == ".py":
            yield str(file), Path(str(file.locate()))


@pytest.fixture(scope="module")
def records(project: Project) -> dict[str, dict[str, Any]]:
    """What becomes of all variants."""
    done = project.nox("-s", "matrix", "--", "--images", "apt", "--json", "out.json")
    assert done.returncode == 0, done.stdout + done.stderr
    return project.records()


def test_outcomes(records: dict[str, dict[str, Any]]) -> None:
    """Every example works where its interpreter is, and fails elsewhere for the known cause."""
    assert {name: record["outcome"] for name, record in records.items()} == OUTCOMES


@pytest.mark.parametrize(
    "name", [name for name, outcome in OUTCOMES.items() if outcome != "skipped"]
)
def test_predictions(name: str, records: dict[str, dict[str, Any]]) -> None:
    """All of it was known before it ran, but for what fails in a command of the run stage."""
    record = records[name]
    known = {"verdict": record["verdict"], "cause": record["cause"]}

    assert record["predicted"] == (None if record["cause"] == "build-failed" else known)


def test_installed_in_the_run_stage(project: Project, records: dict[str, dict[str, Any]]) -> None:
    """The last layer has what a wheel brings, compiled, and nothing that its tools left behind."""
    assert records["pyyaml(python:slim,dynamic)"]["outcome"] == "passed"
    layout = project.folder / ".variants/images/pyyaml/python-dynamic.python_slim"
    manifest = blob(layout, json.loads((layout / "index.json").read_bytes())["manifests"][0])
    *_, last = json.loads(manifest.read_bytes())["layers"]
    with tarfile.open(blob(layout, last)) as layer:
        names = [PurePosixPath(entry.name) for entry in layer if not entry.isdir()]

    packages = {name for name in names if "dist-packages" in name.parts}
    assert packages == set(names)
    assert {name.name.partition(".")[0] for name in packages} > {"constructor", "RECORD"}
    assert {name.suffix for name in packages} > {".py", ".pyc"}
    assert {"pip", "setuptools"}.isdisjoint(part for name in names for part in name.parts)


def blob(layout: Path, descriptor: dict[str, str]) -> Path:
    """Return a blob of a layout."""
    return layout / "blobs" / descriptor["digest"].replace(":", "/")


def test_small_image_for_dynamic_programs(project: Project) -> None:
    """The image has the C library, certificates, time zones and a user of its own, and no shell."""
    home, file = project.home, project.folder / "variants.yaml"
    root = standins.roots(home, file, ["distroless/base"])["distroless/base"]
    there = (
        *("/etc/ssl/certs/ca-certificates.crt", "/usr/share/zoneinfo/Europe/Berlin"),
        *("/etc/nsswitch.conf", "/home/nonroot"),
    )

    assert [path for path in there if rootfs.resolve((root,), path) is None] == []
    assert "nonroot:x:65532:65532:" in (root / "etc/passwd").read_text(encoding="utf-8")
    assert not [*root.glob("usr/bin/*"), *root.glob("usr/sbin/*")]
    libraries = {path.name.partition(".so")[0] for path in root.glob("usr/lib/*/*.so*")}
    assert {"libc", "libm", "libssl"} < libraries
    assert libraries.isdisjoint({"libselinux", "libgcc_s", "libperl"})


@pytest.mark.parametrize("language", ["java", "java-jlink", "node", "python", "ruby"])
def test_static_makes_no_sense(language: str, tmp_path: Path) -> None:
    """A link mode that makes no sense is a mistake, and the message says why."""
    file = tmp_path / "variants.yaml"
    program = f"{{language: {language}, source: ., run: scratch, link: static}}"
    file.write_text(f"version: 1\nprograms: {{hello: {program}}}\n", encoding="utf-8")

    with pytest.raises(ConfigError, match=r"has no link mode 'static'\. [A-Z].*, so "):
        load(file)
