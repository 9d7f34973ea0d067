"""Budgets in the file: what may be written, what is a mistake, and which variants they are for."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import jsonschema
import pytest
import yaml

from nox_variants import config, matrix, schemas
from nox_variants.errors import ConfigError
from nox_variants.limits import Growth, Limit, Measure

if TYPE_CHECKING:
    from pathlib import Path

    from nox_variants.model import Variant

FILE = """\
version: 1
programs:
  hello:
    language: c
    source: .
    run: [alpine, scratch]
    link: [static, musl]
    smoke: {repeat: 3}
    budget: BUDGET
"""


def variants(folder: Path, budget: str, text: str = FILE) -> dict[str, Variant]:
    """Return the variants of a program with a budget, by id."""
    file = folder / "variants.yaml"
    file.write_text(text.replace("BUDGET", budget), encoding="utf-8")
    jsonschema.validate(
        yaml.safe_load(file.read_text("utf-8")),
        json.loads(schemas.documents()["variants.schema.json"]),
    )
    return {each.id: each for each in matrix.expand(config.load(file)).variants}


def mistakes(folder: Path, budget: str) -> str:
    """Return what is said of a budget."""
    file = folder / "variants.yaml"
    file.write_text(FILE.replace("BUDGET", budget), encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        matrix.expand(config.load(file))
    return "\n".join(caught.value.problems).replace(str(file), "variants.yaml")


def test_one_budget_for_some(tmp_path: Path) -> None:
    """The form of the design: a size, and where it counts."""
    found = variants(tmp_path, "{size: 1MB, where: {run: scratch}}")

    limit = Limit(measure=Measure.CONTENT, fail=1_000_000)
    assert {name: each.limits for name, each in found.items()} == {
        "hello(alpine,static)": (),
        "hello(alpine,musl)": (),
        "hello(scratch,static)": (limit,),
        "hello(scratch,musl)": (limit,),
    }


def test_everything_that_has_a_limit(tmp_path: Path) -> None:
    """Every measure, soft and hard, growth as a part and as an amount, and a ratchet."""
    budget = (
        "{size: {warn: 50MB, fail: 60MB, growth: 5%, ratchet: true}, above_base: 100kB,"
        " transfer: {growth: {warn: 10KiB, fail: 0}}, binary: 2000,"
        " build: {warn: 30s, growth: {warn: 50%, fail: 2s}}, startup: 100ms, memory: 64MiB}"
    )

    found = variants(tmp_path, budget)["hello(scratch,musl)"]

    assert set(found.limits) == {
        Limit(
            measure=Measure.CONTENT,
            warn=50e6,
            fail=60e6,
            growth_fail=Growth(ratio=0.05),
            ratchet=True,
        ),
        Limit(measure=Measure.ABOVE_BASE, fail=100_000),
        Limit(
            measure=Measure.TRANSFER,
            growth_warn=Growth(amount=10 * 1024),
            growth_fail=Growth(amount=0),
        ),
        Limit(measure=Measure.BINARY, fail=2000),
        Limit(
            measure=Measure.BUILD,
            warn=30,
            growth_warn=Growth(ratio=0.5),
            growth_fail=Growth(amount=2),
        ),
        Limit(measure=Measure.STARTUP, fail=0.1),
        Limit(measure=Measure.MEMORY, fail=64 * 1024**2),
    }


def test_the_last_that_matches_counts(tmp_path: Path) -> None:
    """A later budget replaces an earlier one, measure by measure."""
    found = variants(
        tmp_path, "[{size: 9MB, binary: 1MB}, {size: 1MB, where: {run: scratch, link: musl}}]"
    )

    sizes = {
        name: {limit.measure: limit.fail for limit in each.limits} for name, each in found.items()
    }
    assert sizes["hello(scratch,musl)"] == {Measure.CONTENT: 1e6, Measure.BINARY: 1e6}
    assert sizes["hello(scratch,static)"] == {Measure.CONTENT: 9e6, Measure.BINARY: 1e6}


def test_budgets_of_the_defaults(tmp_path: Path) -> None:
    """They are for every program that has none of its own."""
    text = """\
version: 1
defaults: {language: c, source: ., run: scratch, link: static, budget: BUDGET}
programs:
  one: {}
  two: {budget: {size: 2MB}}
"""

    found = variants(tmp_path, "{size: 1MB}", text)

    fails = {name: [limit.fail for limit in each.limits] for name, each in found.items()}
    assert fails == {"one(scratch,static)": [1e6], "two(scratch,static)": [2e6]}


@pytest.mark.parametrize(
    ("budget", "said"),
    [
        (
            "{size: 1MB, where: {run: scrtch}}",
            "9:32: programs.hello.budget.where: run 'scrtch' matches none of alpine, scratch. Did",
        ),
        ("{}", "9:13: programs.hello.budget: limits nothing. Give it a size: {size: 1MB}."),
        ("{where: {run: scratch}}", "9:13: programs.hello.budget: limits nothing."),
        (
            "{size: {fail: 1MB, warn: 2MB}}",
            "9:20: programs.hello.budget.size: warns where it fails already.",
        ),
        ("{size: {}}", "9:20: programs.hello.budget.size: limits nothing. Give it fail, warn,"),
        ("[{size: much}]", "9:21: programs.hello.budget[0].size: 'much' is no size. Write 64MB"),
        (
            "{size: {growth: 5 percent}}",
            "9:29: programs.hello.budget.size.growth: '5 percent' is no growth. Write 5% or 200kB.",
        ),
        (
            "{build: {growth: true}}",
            "9:30: programs.hello.budget.build.growth: True is no growth. Write 5% or 2s.",
        ),
        ("{sizes: 1MB}", "9:14: programs.hello.budget.sizes: unknown key 'sizes'. Did you mean"),
        ("[{build: 5MB}]", "9:22: programs.hello.budget[0].build: '5MB' is no time between"),
        ("3", "9:13: programs.hello.budget: must be a list, not a number."),
    ],
)
def test_mistakes(tmp_path: Path, budget: str, said: str) -> None:
    """Each says where it stands, and what to do."""
    assert f"variants.yaml:{said}" in mistakes(tmp_path, budget)


def test_memory_without_repetition(tmp_path: Path) -> None:
    """A single smoke run does not measure memory: a budget of it would never count."""
    text = FILE.replace("    smoke: {repeat: 3}\n", "").replace("BUDGET", "{memory: 5MB}")
    (tmp_path / "variants.yaml").write_text(text, encoding="utf-8")

    with pytest.raises(ConfigError, match=r"8:22: .*budget\.memory: is measured where smoke"):
        config.load(tmp_path / "variants.yaml")
