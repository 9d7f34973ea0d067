"""`nox-variants explain` on stand-ins: variants that are built, and files of the user's own."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from conftest import require
from nox_variants import config, invocation, matrix
from nox_variants.cli import main
from nox_variants.options import Options
from projects import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Callable

    from daemons import Service

pytestmark = [pytest.mark.apt, pytest.mark.sandbox]

FILE = """\
version: 1
programs:
  hello-c:
    language: c
    source: hello-c
    run: [alpine, scratch]
    link: [dynamic, static]
    include:
      - {run: scratch, link: dynamic, libs: bundle}
      - {run: alpine, link: dynamic, build: alpine-gcc}
    exclude:
      - {run: scratch, link: static}
    expect:
      - {link: dynamic, build: gcc, verdict: fails, cause: missing-loader}
    smoke: {stdout: "Hello, world!\\n"}
  broken:
    language: c
    source: broken
    run: [scratch]
    link: [static]
  hello-cpp:
    language: c++
    source: broken
    run: [scratch]
    link: [musl]
"""

BROKEN = "hello-c(alpine,dynamic)"
LOADER = "/lib64/ld-linux-x86-64.so.2"


@pytest.fixture
def folder(tmp_path: Path, shared_home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with programs of several fates."""
    for name in ("apt-get", "dpkg-deb"):
        if shutil.which(name) is None:
            require("apt", f"{name} is not installed")
    values = {"HOME": str(shared_home), "ENGINE": "embedded", "IMAGES": "apt"}
    for name, value in values.items():
        monkeypatch.setenv(f"NOX_VARIANTS_{name}", value)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "variants.yaml").write_text(FILE, encoding="utf-8")
    shutil.copytree(REPOSITORY / "examples/hello-c", tmp_path / "hello-c")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/a.c").write_text("no C\n", encoding="utf-8")
    return tmp_path


@pytest.fixture
def explain(folder: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """Run the command; returns its exit code, and its words with single blanks."""
    assert folder.is_dir()

    def run(*arguments: str) -> tuple[int, str]:
        status = main(["explain", *arguments])
        said = capsys.readouterr()
        return status, " ".join((said.err if status > 1 else said.out).split())

    return run


@pytest.fixture
def program(folder: Path) -> Callable[..., Path]:
    """Compile a program of the user's own."""

    def compiled(name: str, *flags: str) -> Path:
        if shutil.which("gcc") is None:
            require("compilers", "gcc is not installed")
        command = ["gcc", *flags, "-o", name, "hello-c/hello.c"]
        subprocess.run(command, cwd=folder, check=True)
        return folder / name

    return compiled


def test_a_variant_that_never_ran(explain: Callable[..., tuple[int, str]]) -> None:
    """It is built, and all that is known of it is shown; what its neighbours do is not known."""
    status, said = explain(BROKEN)

    assert status == 0
    for words in (
        f"Plan of {BROKEN} build image gcc*: a stand-in, apt packages gcc g++",
        "expected fails with missing-loader (variants.yaml:14:9)",
        "# alpine: here a stand-in, not the image of that name.",
        "COPY --from=build /out/hello-c /hello-c CMD",
        f"linked glibc-dynamic machine x86_64, 64 bits interpreter {LOADER} needs libc.so.6",
        "Root of alpine os none libc musl",
        f"Start /hello-c: glibc-dynamic {LOADER}: loader, NOT FOUND",
        f"Prediction fails: missing-loader needs the loader {LOADER}, which alpine (musl) does",
        "Last observation never run",
        "not run yet: hello-c(alpine,static), hello-c(scratch,dynamic), hello-c(scratch,dynamic+",
    ):
        assert words in said


def test_a_variant_that_ran(explain: Callable[..., tuple[int, str]]) -> None:
    """What the last run showed is there, and which neighbours worked then."""
    settings = config.load(Path("variants.yaml"))
    variants = matrix.select(matrix.expand(settings).variants, only=("hello-c(*",))
    options = Options(engine="embedded", images="apt")
    invocation.run(settings, variants, options, stream=io.StringIO(), environ=os.environ)

    _, said = explain(BROKEN)
    assert "Last observation verdict fails with missing-loader outcome xfailed why needs" in said
    assert "Remedies hello-c(alpine,dynamic,alpine-gcc) works (2." in said
    assert "not run yet" not in said
    _, said = explain("hello-c(alpine,static)")
    assert "Prediction works" in said
    assert "verdict works outcome passed" in said
    assert "Remedies" not in said


def test_for_machines(explain: Callable[..., tuple[int, str]]) -> None:
    """`--json` gives the same, with the libraries of a bundle."""
    status, said = explain("hello-c(scratch,dynamic+libs)", "--json")

    values = json.loads(said)
    assert (status, values["variant"]) == (0, "hello-c(scratch,dynamic+libs)")
    assert LOADER in {each["target"] for each in values["plan"]["run"]["files"]}
    assert f" {LOADER}\n" in values["dockerfile"]
    assert values["predicted"] == {"verdict": "works", "cause": None, "explanation": ""}
    assert values["last"] is None


def test_a_build_that_fails(explain: Callable[..., tuple[int, str]]) -> None:
    """The plan is shown, and the end of the output."""
    status, said = explain("broken(scratch,static)")

    assert status == 0
    assert "Plan of broken(scratch,static)" in said
    assert "Build failed 'cc -O2" in said
    assert "| a.c:1:1: error: unknown type name" in said
    assert "Prediction" not in said


@pytest.mark.parametrize(
    ("name", "status", "said"),
    [
        (
            "hello-c(scratch, static)",
            1,
            "is no variant: variants.yaml:12:9: programs.hello-c.exclude[0]: {run: [scratch], li",
        ),
        ("hello-c(alpin,static)", 2, "no variant matches 'hello-c(alpin,static)'. Did you mean"),
        ("hello-c*", 2, "'hello-c*' is 6 variants: hello-c(alpine,dynamic), hello-c(alpine,stat"),
        ("hello-cpp(scratch,musl)", 2, "image alpine-g++ cannot be had here: registry: not asked"),
    ],
)
def test_what_cannot_be_explained(
    explain: Callable[..., tuple[int, str]], name: str, status: int, said: str
) -> None:
    """A dropped combination has its rule; an unknown one a hint; a missing image its reasons."""
    found, words = explain(name)

    assert found == status
    assert said in words


def test_a_file_in_an_image(
    explain: Callable[..., tuple[int, str]], program: Callable[..., Path]
) -> None:
    """The exit code says whether it is predicted to work."""
    dynamic, static = program("dynamic"), program("static", "-static")

    status, said = explain("--binary", str(dynamic), "--image", "alpine")
    assert status == 1
    assert f"Start /dynamic: glibc-dynamic {LOADER}: loader, NOT FOUND" in said
    assert "Prediction fails: missing-loader" in said
    status, said = explain("--binary", str(static), "--image", "scratch")
    assert status == 0
    assert "linked static with glibc" in said
    assert "image scratch: empty Root of scratch os none" in said
    assert "Prediction works" in said


def test_a_file_without_a_configuration(
    explain: Callable[..., tuple[int, str]], program: Callable[..., Path], folder: Path
) -> None:
    """Without a variants.yaml the catalogue's images are there, and nothing is left behind."""
    dynamic = program("dynamic")
    (folder / "variants.yaml").unlink()
    (folder / "link").symlink_to(dynamic)
    before = sorted(folder.iterdir())

    status, said = explain("--binary", "link", "--image", "busybox:glibc", "--json")

    libraries = json.loads(said)["subject"]["facts"]["startup"]["libraries"]
    assert (status, [each["name"] for each in libraries][:1]) == (0, ["libc.so.6"])
    assert sorted(folder.iterdir()) == before


def test_a_file_that_is_no_program(explain: Callable[..., tuple[int, str]], folder: Path) -> None:
    """Its mode and its first bytes count, as the kernel sees them."""
    script = folder / "run.sh"
    script.write_text("#!/bin/sh\r\n", encoding="utf-8")

    _, said = explain("--binary", "run.sh", "--image", "alpine")
    assert "Prediction fails: not-executable /run.sh of alpine may not be executed" in said
    script.chmod(0o755)
    _, said = explain("--binary", "run.sh", "--image", "alpine")
    assert r"Prediction fails: bad-shebang" in said
    assert r"'/bin/sh\r'" in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "explain: takes a variant, or a file and an image."),
        (("--image", "alpine"), "explain: takes a variant, or a file and an image."),
        (("--binary", "fifo"), "explain: takes a variant, or a file and an image."),
        ((BROKEN, "--binary", "a", "--image", "alpine"), "explain: takes a variant, or a file"),
        (("--binary", "none", "--image", "alpine"), "--binary none: No such file or directory."),
        (("--binary", "hello-c", "--image", "alpine"), "--binary hello-c: is no regular file."),
        (("--binary", "fifo", "--image", "alpine"), "--binary fifo: is no regular file."),
        (("--binary", "loop", "--image", "alpine"), "--binary loop: "),
        (("--binary", "bin", "--image", "alpine"), "--binary bin: alpine has a folder /bin."),
        (("--binary", "bin", "--image", "alpin"), "--image: unknown image 'alpin'. Did you mean"),
        (("--binary", "bin", "--image", "xyz"), "--image: unknown image 'xyz'. Known are scratch"),
    ],
)
def test_mistakes(
    explain: Callable[..., tuple[int, str]], folder: Path, arguments: tuple[str, ...], said: str
) -> None:
    """What cannot be meant is one sentence, and nothing is waited for."""
    os.mkfifo(folder / "fifo")
    (folder / "loop").symlink_to("loop")
    (folder / "bin").touch()

    status, words = explain(*arguments)

    assert status == 2
    assert f"nox-variants: {said}" in words


@pytest.mark.docker
@pytest.mark.parametrize(
    "name", [BROKEN, "hello-c(scratch,dynamic+libs)", "broken(scratch,static)"]
)
def test_engines_agree(
    explain: Callable[..., tuple[int, str]],
    docker_service: Service,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    """A daemon's image is explained as that of the embedded engine is."""
    monkeypatch.setenv("DOCKER_HOST", docker_service.url)

    _, one = explain(name, "--json")
    _, other = explain(name, "--json", "--engine", "docker")

    ours, theirs = json.loads(one), json.loads(other)
    for key in ("plan", "dockerfile", "subject", "predicted", "mismatch", "sizes"):
        assert ours[key] == theirs[key]
