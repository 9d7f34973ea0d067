"""A matrix in parts: all of it, each variant once, as evenly as stages allow."""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nox_variants import config, matrix, sharding
from nox_variants.errors import UsageError
from nox_variants.plan import make_plans
from nox_variants.sharding import Part, Shard

if TYPE_CHECKING:
    from nox_variants.plan import Plan

REPOSITORY = Path(__file__).parents[2]
PART = Part(index=1, count=2, variants=3, matrix="abc")


@functools.cache
def plans() -> tuple[Plan, ...]:
    """Return the plans of the project's own matrix."""
    settings = config.load(REPOSITORY / "variants.yaml")
    return make_plans(settings, matrix.expand(settings).variants)


@given(st.integers(1, 80))
def test_all_shards_are_the_matrix(count: int) -> None:
    """Whatever their number, they have every variant once, and the stages stay whole."""
    parts = [
        sharding.select(plans(), Shard(index=each, count=count)) for each in range(1, count + 1)
    ]

    ids = [plan.variant.id for part in parts for plan in part]
    assert sorted(ids) == sorted(plan.variant.id for plan in plans())
    stages = [{plan.build for plan in part} for part in parts]
    assert sum(map(len, stages)) == len(set().union(*stages))


@given(st.integers(1, 300), st.lists(st.floats(0, 1000), max_size=60))
def test_emitted_shards_are_the_matrix(count: int, seconds: list[float]) -> None:
    """Whatever was recorded: the jobs have every variant once, and none has nothing to do."""
    builds = {str(plan.variant.id): each for plan, each in zip(plans(), seconds, strict=False)}

    entries = sharding.include(plans(), builds, count)

    parts = [sharding.select(plans(), sharding.parse(each["shard"])) for each in entries]
    ids = [plan.variant.id for part in parts for plan in part]
    assert sorted(ids) == sorted(plan.variant.id for plan in plans())
    assert all(parts)
    assert len(entries) <= min(count, sharding.MOST)


def test_recorded_times_balance() -> None:
    """What takes long stands alone; the rest is dealt out to the others."""
    slow = plans()[0]
    builds = {str(plan.variant.id): 0.1 for plan in plans()} | {str(slow.variant.id): 1000.0}

    entries = sharding.include(plans(), builds, 3)

    parts = [sharding.select(plans(), sharding.parse(each["shard"])) for each in entries]
    (with_slow,) = [part for part in parts if slow in part]
    assert {plan.build for plan in with_slow} == {slow.build}


def test_images_stay_together() -> None:
    """Stages of one image are one shard's as long as that is no slower than to pull it again."""
    entries = sharding.include(plans(), {}, 2)

    first, second = (
        {plan.build.image.name for plan in sharding.select(plans(), sharding.parse(each["shard"]))}
        for each in entries
    )
    assert len(first & second) <= 1


def test_as_many_jobs_as_there_is_work() -> None:
    """Without a number, a job has about five minutes of work."""
    ids = [str(group[0].variant.id) for group in sharding.groups(plans())]

    assert len(sharding.include(plans(), dict.fromkeys(ids, 0.1), None)) == 1
    assert len(sharding.include(plans(), dict.fromkeys(ids, 300.0), None)) == len(ids)


def test_the_same_twice() -> None:
    """Equal input is dealt out alike."""
    assert sharding.include(plans(), {}, 5) == sharding.include(plans(), {}, 5)


@pytest.mark.parametrize(
    ("text", "stages"), [("2/4", None), ("2/4@0-2,7", {0, 1, 2, 7}), ("1/1@5", {5})]
)
def test_parse(text: str, stages: set[int] | None) -> None:
    """I/N, and what --emit-matrix makes of it."""
    shard = sharding.parse(text)

    assert str(shard) == text.partition("@")[0]
    assert shard.stages == stages


@pytest.mark.parametrize("text", ["", "0/4", "5/4", "1/0", "1", "a/b", "1/4@", "1/4@x", "1/2@3-"])
def test_no_shard(text: str) -> None:
    """Anything else is refused."""
    with pytest.raises(ValueError, match=r"no shard|no range"):
        sharding.parse(text)


def test_stages_of_another_matrix() -> None:
    """A number that no stage has is of another file."""
    with pytest.raises(UsageError, match=r"there is no build stage 9999"):
        sharding.select(plans(), Shard(index=1, count=2, stages=frozenset({9999})))


def test_a_part_knows_the_whole() -> None:
    """All shards of a selection say the same of it; another selection is another matrix."""
    one, two = (sharding.part(plans(), Shard(index=each, count=2)) for each in (1, 2))

    assert (one.matrix, one.variants) == (two.matrix, len(plans()))
    assert sharding.part(plans()[1:], Shard(index=1, count=2)).matrix != one.matrix


OTHER = Part(index=2, count=2, variants=3, matrix="abc")


@pytest.mark.parametrize(
    ("parts", "records", "words"),
    [
        ([("a", PART)], 3, "shard is missing: 2/2"),
        ([("a", Part(index=2, count=4, variants=3, matrix="abc"))], 3, "missing: 1/4, 3/4, 4/4"),
        ([("a", PART), ("b", PART)], 3, "b: shard 1/2 is a, too"),
        ([("a", PART), ("a", PART), ("b", OTHER)], 3, "a: shard 1/2 is a, too"),
        ([("a", PART), ("b", None)], 3, "b: is no shard, and a is"),
        ([("a", PART), ("b", Part(index=2, count=2, variants=3, matrix="x"))], 3, "another matrix"),
        (
            [("a", PART), ("b", Part(index=2, count=3, variants=3, matrix="abc"))],
            3,
            "another matrix",
        ),
        ([("a", PART), ("b", OTHER)], 2, "the shards have 2 of 3 variants"),
    ],
)
def test_not_all_of_one_matrix(
    parts: list[tuple[str, Part | None]], records: int, words: str
) -> None:
    """What is missing, twice, or of something else is refused by name."""
    with pytest.raises(UsageError, match=re.escape(words)):
        sharding.check(parts, records)


def test_all_of_one_matrix() -> None:
    """All shards, once each."""
    sharding.check([("b", OTHER), ("a", PART)], 3)
