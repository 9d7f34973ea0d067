"""What a file says once for all its programs: who gets it, and where a mistake in it is shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from nox_variants import config, matrix
from nox_variants.errors import ConfigError
from nox_variants.inheritance import filled, origin
from nox_variants.model import LinkMode, Program

FILE = """\
version: 1
defaults:
  language: c
  source: examples/{program}
  run: [ubuntu, scratch]
  env: {A: default, B: default}
  labels: {vendor: us}
  smoke: {stdout: "hello", timeout: 5s, env: {C: default}}
  expect:
    - {run: scratch, link: dynamic, verdict: fails}
programs:
  plain: {}
  own:
    source: elsewhere/own
    link: [dynamic, static]
    env: {B: own}
    smoke: {stdout: null, env: {D: own}}
    expect: []
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place for the file in the current folder."""
    monkeypatch.chdir(tmp_path)
    return Path("variants.yaml")


def programs(file: Path, text: str = FILE) -> dict[str, Program]:
    """Return the programs that a text describes."""
    file.write_text(text, encoding="utf-8")
    return {program.name: program for program in config.load(file).programs}


def problems(file: Path, text: str) -> list[str]:
    """Return what is said about a text, without the file's name."""
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        matrix.expand(config.load(file))
    return [said.removeprefix("variants.yaml:") for said in caught.value.problems]


def test_program_that_says_nothing(file: Path) -> None:
    """It is what the defaults say, its own name in its source; rules stand where they stand."""
    plain = programs(file)["plain"]

    assert (plain.language.name, plain.run) == ("c", ("ubuntu", "scratch"))
    assert plain.source == Path.cwd() / "examples/plain"
    assert (plain.smoke.stdout, plain.smoke.timeout) == ("hello", 5.0)
    location = plain.expect[0].selector.location
    assert (str(location), location.path) == ("variants.yaml:10:7", "defaults.expect[0]")
    assert location.text == "- {run: scratch, link: dynamic, verdict: fails}"
    assert str(plain.location) == "variants.yaml:12:3"


def test_program_of_its_own(file: Path) -> None:
    """Its keys replace those of the defaults; those of four mappings are added to them."""
    own = programs(file)["own"]

    assert own.source == Path.cwd() / "elsewhere/own"
    assert own.link == (LinkMode.DYNAMIC, LinkMode.STATIC)
    assert own.options.env == (("A", "default"), ("B", "own"))
    assert own.options.labels == (("vendor", "us"),)
    assert (own.smoke.stdout, own.smoke.timeout) == (None, 5.0)
    assert own.smoke.env == (("D", "own"),)
    assert own.expect == ()


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "run: [ubuntu, scratch]",
            "run: [ubuntu, scrach]",
            "5:17: defaults.run[1]: unknown image 'scrach'. Did you mean 'scratch'?",
        ),
        (
            "  labels:",
            "  lables:",
            "7:3: defaults.lables: unknown key 'lables'. Did you mean 'labels'?",
        ),
        (
            "timeout: 5s",
            "tiemout: 5s",
            "8:28: defaults.smoke.tiemout: unknown key 'tiemout'. Did you mean 'timeout'?",
        ),
        (
            "C: default}}",
            "C: 1}}",
            '8:50: defaults.smoke.env.C: must be text, not a number. Quote it: "1".',
        ),
        (
            "link: dynamic, verdict: fails",
            "link: dynamic",
            "10:7: defaults.expect[0]: key 'verdict' is missing.",
        ),
        (
            "link: dynamic, verdict: fails",
            "link: musl, verdict: fails",
            "10:7: defaults.expect[0]: link 'musl' matches none of dynamic.",
        ),
        (
            "  env: {A: default, B: default}\n",
            "  link: [dynamic, static]\n  language: go\n  strip: 1\n",
            "7:3: defaults.language: key 'language' is there twice, first in line 3.",
        ),
        ("  language: c\n", "", "11:10: programs.plain: key 'language' is missing."),
        (
            "    env: {B: own}",
            "    env: x",
            "16:10: programs.own.env: must be a mapping, not text.",
        ),
    ],
)
def test_mistakes_are_said_once_where_they_stand(file: Path, old: str, new: str, said: str) -> None:
    """However many programs inherit a mistake, it is one line, in `defaults`."""
    assert FILE.count(old) == 1

    assert problems(file, FILE.replace(old, new)).count(said) == 1


def test_number_of_mistakes(file: Path) -> None:
    """A mistake that two programs inherit is not two."""
    text = FILE.replace("ubuntu", "ubunto").replace("5s", "5 parsecs")

    assert [said.split(" ")[0:2] for said in problems(file, text)] == [
        ["5:9:", "defaults.run[0]:"],
        ["8:37:", "defaults.smoke.timeout:"],
    ]


@pytest.mark.parametrize("text", ["defaults: []", "defaults: text"])
def test_defaults_that_are_none(file: Path, text: str) -> None:
    """What is no mapping is said to be so; programs then lack their keys."""
    found = problems(file, f"version: 1\n{text}\nprograms: {{a: {{}}}}\n")

    assert any(said.startswith("2:11: defaults: must be a mapping, not ") for said in found)
    assert "3:15: programs.a: key 'source' is missing." in found


def test_defaults_that_nobody_inherits(file: Path) -> None:
    """Defaults are checked where every program has the key itself."""
    text = (
        "version: 1\ndefaults: {source: ../b}\nprograms: {a: {language: c, source: a, run: gcc}}\n"
    )

    (said,) = problems(file, text)

    assert said.startswith("2:20: defaults.source: '../b' leads out of the folder")


def test_rule_for_some_programs(file: Path) -> None:
    """A rule of the defaults that fits one program is no mistake in the other."""
    text = FILE.replace("    expect: []\n", "    run: ubuntu\n")

    found = programs(file, text)

    assert matrix.check(found.values()) == []


def test_rule_is_not_judged_by_half_of_the_programs(file: Path) -> None:
    """Where a program is wrong, a rule of the defaults may be about that one."""
    text = FILE.replace("plain: {}", "plain: {user: a b}").replace(
        "    expect: []\n", "    run: gcc\n"
    )

    (said,) = problems(file, text)

    assert said.startswith("12:17: programs.plain.user")


def test_filled_leaves_other_values_alone() -> None:
    """What is of the wrong kind is neither merged nor lost: the form says what is wrong."""
    value = {"defaults": {"env": "x", "smoke": {"a": 1}}, "programs": {"a": None, "b": {"env": {}}}}

    whole, origins = filled(value, {})

    assert whole["programs"] == {"a": None, "b": {"env": {}, "smoke": {"a": 1}}}
    assert origin(("programs", "b", "smoke", "a"), origins) == ("defaults", "smoke", "a")
    assert origin(("programs", "b", "env"), origins) == ("programs", "b", "env")
    assert filled([], {}) == ([], {})
