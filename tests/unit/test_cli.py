"""The command line: list, init, help, and mistakes without a traceback."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nox_variants import config, matrix
from nox_variants.cli import COMMANDS, main
from nox_variants.errors import UsageError

GOOD = """\
version: 1
programs:
  hello-c:
    language: c
    source: .
    run: [alpine, scratch]
    link: [dynamic, static]
    exclude:
      - {run: alpine, link: static}
    expect:
      - {run: "*", link: dynamic, verdict: fails, cause: missing-loader}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a good file."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "variants.yaml").write_text(GOOD, encoding="utf-8")
    return tmp_path


@pytest.mark.usefixtures("folder")
def test_list_shows_what_there_is_to_run(capsys: pytest.CaptureFixture[str]) -> None:
    """Each variant has a line with its language, build image and expectation."""
    assert main(["list"]) == 0

    assert capsys.readouterr().out == (
        "hello-c(alpine,dynamic)   c, built in gcc  expected: fails, missing-loader\n"
        "hello-c(scratch,dynamic)  c, built in gcc  expected: fails, missing-loader\n"
        "hello-c(scratch,static)   c, built in gcc  expected: works\n"
    )


@pytest.mark.usefixtures("folder")
def test_list_excluded_shows_what_is_dropped_and_why(capsys: pytest.CaptureFixture[str]) -> None:
    """Each dropped combination has a line with the rule that dropped it."""
    assert main(["list", "--excluded"]) == 0

    assert capsys.readouterr().out == (
        "hello-c(alpine,static)  variants.yaml:9:9: programs.hello-c.exclude[0]\n"
    )


@pytest.mark.usefixtures("folder")
def test_list_for_machines(capsys: pytest.CaptureFixture[str]) -> None:
    """`--json` gives the same as JSON, dropped ones too."""
    assert main(["list", "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert main(["list", "--excluded", "--json"]) == 0
    dropped = json.loads(capsys.readouterr().out)

    assert values[2] == {
        "variant": "hello-c(scratch,static)",
        "program": "hello-c",
        "language": "c",
        "build_image": "gcc",
        "run_image": "scratch",
        "link": "static",
        "expected": {"verdict": "works", "cause": None},
        "tags": ["variant", "hello_c", "c", "scratch", "gcc", "static"],
    }
    assert dropped == [
        {
            "variant": "hello-c(alpine,static)",
            "rule": "programs.hello-c.exclude[0]",
            "location": "variants.yaml:9:9",
        }
    ]


def test_file_of_another_name(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--file` names another file; each of several is looked for."""
    (folder / "variants.yaml").rename(folder / "other.yaml")

    assert main(["list", "--file", "other.yaml"]) == 0
    assert main(["list", "--file", "a", "--file", "b"]) == 2

    said = capsys.readouterr()
    assert "hello-c(scratch,static)" in said.out
    assert said.err.splitlines() == [
        f"{name}:1:1: no such file. `nox-variants init` writes a first one." for name in "ab"
    ]


def test_mistakes_in_the_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every mistake has its line on standard error, and the status is 2."""
    (folder / "variants.yaml").write_text(GOOD.replace("alpine", "alpin"), encoding="utf-8")

    assert main(["list"]) == 2

    said = capsys.readouterr()
    assert said.out == ""
    assert "variants.yaml:6:11: programs.hello-c.run[0]: unknown image 'alpin'." in said.err


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """`--help` says what a command does and what its arguments are."""
    with pytest.raises(SystemExit) as caught:
        main([command, "--help"])

    assert caught.value.code == 0
    assert f"usage: nox-variants {command}" in capsys.readouterr().out


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    """`nox-variants --help` has a line per command."""
    with pytest.raises(SystemExit):
        main(["--help"])

    out = capsys.readouterr().out
    assert all(f"    {command} " in out for command in COMMANDS)


# --- init -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "language"),
    [("a.c", "c"), ("a.cc", "c++"), ("main.go", "go"), ("main.rs", "rust")],
)
def test_init_writes_a_file_that_is_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, language: str
) -> None:
    """What init writes for any language can be read and expanded."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "My App").mkdir()
    (tmp_path / "My App" / file).touch()

    assert main(["init"]) == 0

    settings = config.load(Path("variants.yaml"))
    (program,) = settings.programs
    assert (program.name, program.language.name) == ("my-app", language)
    assert len(matrix.expand(settings).variants) >= 9
    assert "nox_variants.register" in (tmp_path / "noxfile.py").read_text(encoding="utf-8")
    assert not (tmp_path / ".dockerignore").exists()


def test_init_in_the_folder_of_the_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sources beside the file: what is no source is kept out of the build."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.c").touch()

    assert main(["init", "my-tool"]) == 0

    (program,) = config.load(Path("variants.yaml")).programs
    assert (program.name, program.source) == ("my-tool", tmp_path)
    assert "variants.yaml" in (tmp_path / ".dockerignore").read_text(encoding="utf-8")


def test_init_finds_several_programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each folder with sources is a program; folders that tools make are not looked at."""
    monkeypatch.chdir(tmp_path)
    for name in ("examples/b/b.c", "a/main.go", "target/x/x.rs", ".hidden/y.c"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()

    assert main(["init"]) == 0

    programs = config.load(Path("variants.yaml")).programs
    assert [(one.name, one.language.name) for one in programs] == [("a", "go"), ("b", "c")]


def test_init_overwrites_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file that is there is left, and init says so; a noxfile gets a hint what to add."""
    (folder / "a.c").touch()

    assert main(["init"]) == 2
    assert (folder / "variants.yaml").read_text(encoding="utf-8") == GOOD
    assert not (folder / "noxfile.py").exists()

    (folder / "variants.yaml").unlink()
    (folder / "noxfile.py").write_text("# mine\n", encoding="utf-8")
    assert main(["init", "a"]) == 0
    assert (folder / "noxfile.py").read_text(encoding="utf-8") == "# mine\n"

    said = capsys.readouterr().err
    assert "nox-variants: variants.yaml: is there already." in said
    assert 'add to it: import nox_variants; nox_variants.register("variants.yaml")' in said


@pytest.mark.parametrize(
    ("files", "name", "said"),
    [
        ((), None, "no sources of go, rust, c++, c here"),
        (("a/a.c", "b/b.c"), "one", "2 programs are here: a, b. Leave the name out."),
    ],
)
def test_init_says_what_it_lacks(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    files: tuple[str, ...],
    name: str | None,
    said: str,
) -> None:
    """Nothing is guessed where there is nothing, or too much."""
    from nox_variants.commands import init  # noqa: PLC0415  # it is imported by name elsewhere

    monkeypatch.chdir(tmp_path)
    for file in files:
        (tmp_path / file).parent.mkdir()
        (tmp_path / file).touch()

    with pytest.raises(UsageError) as caught:
        init.find(tmp_path, name)

    assert said in str(caught.value)
