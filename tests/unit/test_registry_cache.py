"""The key ``cache``: what it may say, and what a Bake file makes of it."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from nox_variants import bake, config, names
from nox_variants.bake import Context
from nox_variants.dockerfile import Base
from nox_variants.errors import ConfigError
from nox_variants.model import LinkMode
from nox_variants.plan import make_plans
from nox_variants.registrycache import RegistryCache
from samples import SETTINGS, variant

if TYPE_CHECKING:
    from pathlib import Path

PROGRAM = "programs: {%s: {language: c, source: ., run: scratch, link: static}}\n"
CACHE = RegistryCache(repository="registry.example.com/team/cache")


def written(folder: Path, cache: str, program: str = "a") -> Path:
    """Return a file with a cache."""
    folder.mkdir(exist_ok=True)
    file = folder / "variants.yaml"
    said = f"cache: {cache}\n" if cache else ""
    file.write_text(f"version: 1\n{said}{PROGRAM % program}", encoding="utf-8")
    return file


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("registry.example.com/team/cache", CACHE),
        ("{registry: registry.example.com/team/cache}", CACHE),
        (
            "{registry: 'localhost:5000/c', mode: min, write: false}",
            RegistryCache(repository="localhost:5000/c", mode="min", write=False),
        ),
        ("team/cache", RegistryCache(repository="team/cache")),
        ("null", None),
        ("", None),
    ],
)
def test_said(said: str, expected: RegistryCache | None, tmp_path: Path) -> None:
    """A repository alone, or with what is kept and whether it is written."""
    assert config.load(written(tmp_path, said)).cache == expected


@pytest.mark.parametrize(
    ("said", "mistake"),
    [
        (
            "registry.example.com/cache@sha256:abc",
            (
                "2:8: cache: 'registry.example.com/cache@sha256:abc' has a digest, but each build"
                " gets a tag of its own. Write registry.example.com/team/cache."
            ),
        ),
        ("localhost:5000/c:1", "2:8: cache: 'localhost:5000/c:1' has a tag, but each build gets"),
        ("Team/cache", "2:8: cache: 'Team/cache': is no image reference: repository 'Team/cache'"),
        ("''", "2:8: cache: '': is no image reference"),
        ("[a]", "2:8: cache: must be text, not a list."),
        ("{mode: max}", "2:8: cache: key 'registry' is missing."),
        ("{registry: a, mode: all}", "2:28: cache.mode: must be 'max' or 'min', not 'all'."),
        ("{registry: a, write: 1}", "2:29: cache.write: must be true or false, not a number."),
        ("{registry: a, wriet: true}", "unknown key 'wriet'. Did you mean 'write'?"),
    ],
)
def test_mistakes(said: str, mistake: str, tmp_path: Path) -> None:
    """A mistake is named with its place, and what to write."""
    with pytest.raises(ConfigError) as caught:
        config.load(written(tmp_path, said))

    (problem,) = caught.value.problems
    assert mistake in problem


def test_beside_other_mistakes(tmp_path: Path) -> None:
    """A sound cache is read where something else is wrong; both mistakes are told at once."""
    files = written(tmp_path / "one", "a", "a"), written(tmp_path / "two", "b", "b")
    text = files[0].read_text(encoding="utf-8").replace("scratch", "scrtch")
    files[0].write_text(text, encoding="utf-8")

    with pytest.raises(ConfigError) as caught:
        config.load(*files)

    assert len(caught.value.problems) == 2
    assert "Did you mean 'scratch'?" in caught.value.problems[0]
    assert "cache: is something else in" in caught.value.problems[1]


@pytest.mark.parametrize(
    ("first", "second", "expected"), [("a", "", "a"), ("", "a", "a"), ("a", "{registry: a}", "a")]
)
def test_several_files(first: str, second: str, expected: str, tmp_path: Path) -> None:
    """One of several files says it, or some say the same."""
    files = written(tmp_path / "one", first, "a"), written(tmp_path / "two", second, "b")

    assert config.load(*files).cache == RegistryCache(repository=expected)


def test_files_that_differ(tmp_path: Path) -> None:
    """Two files that say it differently are a mistake of the second."""
    files = written(tmp_path / "one", "a", "a"), written(tmp_path / "two", "b", "b")

    with pytest.raises(ConfigError) as caught:
        config.load(*files)

    (problem,) = caught.value.problems
    assert problem.startswith(f"{files[1]}:2:1: cache: is something else in {files[0]}:2:1")
    assert problem.endswith(" Leave it in one of the files.")


# --- Bake ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("write", [True, False])
def test_bake(*, write: bool) -> None:
    """Every target takes from its own tag, and leaves there what it built; without a cache none."""
    (plan,) = make_plans(SETTINGS, [variant("alpine", LinkMode.STATIC)])
    gcc = Base(name="gcc", reference="scratch", archive="gcc.tar", stand_in=True)
    context = Context(plan=plan, folder="a", build=gcc, run=Base(name="alpine", reference="alpine"))
    cache = RegistryCache(repository="r/c", write=write)

    targets = json.loads(bake.render([context], cache))["target"]

    assert len(targets) == 3
    for name, target in targets.items():
        place = f"type=registry,ref=r/c:{name}"
        assert target["cache-from"] == [place]
        assert target.get("cache-to") == (
            [f"{place},mode=max,ignore-error=true"] if write else None
        )
    plain = json.loads(bake.render([context]))["target"]
    assert plain == {
        name: {key: each for key, each in target.items() if not key.startswith("cache-")}
        for name, target in targets.items()
    }


TARGETS = st.text("abc_-0", min_size=1, max_size=300)


@given(one=TARGETS, other=TARGETS)
@example(one="a" * 200, other="a" * 199)
@example(one="a" * 128, other="a" * 129)
def test_tags(one: str, other: str) -> None:
    """Whatever a target is called, a registry takes its tag, and no other target has it."""
    tag = names.cache_tag(one)

    assert re.fullmatch(r"[a-zA-Z0-9_-]{1,128}", tag)
    assert (tag == names.cache_tag(other)) == (one == other)
