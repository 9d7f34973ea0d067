"""A matrix in parts, one per machine: which variants are whose, and whether all came back. Pure.

Variants of one build stage are one machine's: what they have in common is compiled once. Stages
have numbers, in the order in which the variants need them.
"""

from __future__ import annotations

import re
import statistics
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING

from nox_variants.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from nox_variants.plan import BuildStage, Plan

MOST = 256
"""Jobs that a matrix of GitHub Actions may make ("Usage limits")."""

_LARGEST = 10_000
_VARIANT_SECONDS = 0.5
_BUILD_SECONDS = 1.0
_IMAGE_SECONDS = 10.0
"""What a build image costs a machine that does not have it: it is pulled, or made of packages."""

_JOB_SECONDS = 300.0
"""Work that makes a job of its own worth its start."""

_SHARD = re.compile(r"([0-9]{1,5})/([0-9]{1,5})(?:@([0-9,-]+))?", re.ASCII)
_RANGE = re.compile(r"([0-9]{1,6})(?:-([0-9]{1,6}))?", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """A part of a matrix.

    Attributes:
        index: Which one, from 1.
        count: Of how many.
        stages: Numbers of its build stages; None for those that are its by the file alone.
    """

    index: int
    count: int
    stages: frozenset[int] | None = None

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What a shard's records say of the whole.

    Attributes:
        index: Which shard, from 1.
        count: Of how many.
        variants: How many variants the whole has.
        matrix: Digest of their ids.
    """

    index: int
    count: int
    variants: int
    matrix: str


def parse(text: str) -> Shard:
    """Return what ``I/N`` means, or ``I/N@STAGES``, which `nox-variants ci --emit-matrix` makes.

    Raises:
        ValueError: It is neither.
    """
    match = _SHARD.fullmatch(text)
    if not match or not 1 <= int(match[1]) <= int(match[2]) <= _LARGEST:
        raise ValueError(f"{text!r} is no shard: 1/4 is the first of four")
    stages = None if match[3] is None else frozenset(_numbers(text, match[3]))
    return Shard(index=int(match[1]), count=int(match[2]), stages=stages)


def _numbers(text: str, words: str) -> Iterable[int]:
    for word in words.split(","):
        match = _RANGE.fullmatch(word)
        if not match:
            raise ValueError(f"{text!r}: {word!r} is no range of stages")
        yield from range(int(match[1]), int(match[2] or match[1]) + 1)


def _written(numbers: Iterable[int]) -> str:
    """Return numbers as ranges: ``0-3,17``."""
    ranges: list[list[int]] = []
    for number in sorted(numbers):
        if ranges and ranges[-1][1] == number - 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    return ",".join(f"{a}" if a == b else f"{a}-{b}" for a, b in ranges)


def groups(plans: Iterable[Plan]) -> tuple[tuple[Plan, ...], ...]:
    """Return plans by build stage, each stage at its number."""
    found: dict[BuildStage, list[Plan]] = {}
    for plan in plans:
        found.setdefault(plan.build, []).append(plan)
    return tuple(map(tuple, found.values()))


def split(
    stages: Sequence[Sequence[Plan]], count: int, builds: Mapping[str, float]
) -> tuple[frozenset[int], ...]:
    """Return the stages of each shard: about as much work for each, and few images.

    The longest stages are dealt out first, each to the shard that is done with it earliest; an
    image that a shard does not have yet counts as work.

    Args:
        stages: What :func:`groups` gives.
        count: How many shards there are.
        builds: Seconds of compiles, by variant, as far as they are known.
    """
    costs = _costs(stages, builds)
    loads = [0.0] * count
    images: list[set[str]] = [set() for _ in range(count)]
    mine: list[set[int]] = [set() for _ in range(count)]
    for number in sorted(range(len(stages)), key=lambda each: (-costs[each], each)):
        image = stages[number][0].build.image.name
        after = [
            load if image in had else load + _IMAGE_SECONDS
            for load, had in zip(loads, images, strict=True)
        ]
        best = after.index(min(after))
        loads[best] = after[best] + costs[number]
        images[best].add(image)
        mine[best].add(number)
    return tuple(map(frozenset, mine))


def _costs(stages: Sequence[Sequence[Plan]], builds: Mapping[str, float]) -> list[float]:
    """Return seconds by stage; an unknown compile takes as long as the language's usually do."""
    known = [
        next((builds[each.variant.id] for each in stage if each.variant.id in builds), None)
        for stage in stages
    ]
    languages: dict[str, list[float]] = {}
    for stage, seconds in zip(stages, known, strict=True):
        if seconds is not None:
            languages.setdefault(stage[0].language.name, []).append(seconds)
    usual = {name: statistics.median(found) for name, found in languages.items()}
    return [
        (usual.get(stage[0].language.name, _BUILD_SECONDS) if seconds is None else seconds)
        + _VARIANT_SECONDS * len(stage)
        for stage, seconds in zip(stages, known, strict=True)
    ]


def select(plans: Sequence[Plan], shard: Shard) -> tuple[Plan, ...]:
    """Return the plans of a shard, in order; all shards together have every plan once.

    Raises:
        UsageError: It names stages that are not there.
    """
    stages = groups(plans)
    mine = shard.stages
    if mine is None:
        mine = split(stages, shard.count, {})[shard.index - 1]
    elif mine and max(mine) >= len(stages):
        raise UsageError(
            f"--shard {shard}: there is no build stage {max(mine)}, there are {len(stages)}",
            hint="It was made for another selection or another variants.yaml: make it anew with"
            " `nox-variants ci --emit-matrix`.",
        )
    chosen = {each.variant.id for number in mine for each in stages[number]}
    return tuple(each for each in plans if each.variant.id in chosen)


def include(
    plans: Sequence[Plan], builds: Mapping[str, float], count: int | None
) -> list[dict[str, str]]:
    """Return the ``include`` list of a job matrix: no empty shard, and no more than :data:`MOST`.

    Args:
        plans: The selection.
        builds: Seconds of compiles, by variant, as far as they are known.
        count: How many shards are wanted; None for one per five minutes of work.
    """
    stages = groups(plans)
    if count is None:
        count = 1 + int(sum(_costs(stages, builds)) // _JOB_SECONDS)
    count = min(count, MOST, len(stages))
    parts = [each for each in split(stages, count, builds) if each]
    return [
        {"name": f"{at}/{len(parts)}", "shard": f"{at}/{len(parts)}@{_written(part)}"}
        for at, part in enumerate(parts, 1)
    ]


def part(plans: Sequence[Plan], shard: Shard) -> Part:
    """Return what the records of a shard say of all the plans."""
    ids = "\n".join(each.variant.id for each in plans)
    digest = sha256(ids.encode()).hexdigest()
    return Part(index=shard.index, count=shard.count, variants=len(plans), matrix=digest)


def check(parts: Sequence[tuple[str, Part | None]], records: int) -> None:
    """Refuse what is not all of one matrix, each shard once.

    Args:
        parts: Name and shard of each file; None for one that is no shard.
        records: How many variants they have in all.

    Raises:
        UsageError: A shard is missing, is there twice, or is of another matrix.
    """
    found: dict[int, str] = {}
    first_name, first = next((name, each) for name, each in parts if each)
    for name, each in parts:
        if each is None:
            raise UsageError(f"{name}: is no shard, and {first_name} is", hint="Merge it alone.")
        if (each.count, each.variants, each.matrix) != (first.count, first.variants, first.matrix):
            raise UsageError(
                f"{name}: is of another matrix than {first_name}",
                hint="All shards have to be of one commit and one selection.",
            )
        if each.index in found:
            raise UsageError(f"{name}: shard {each.index}/{each.count} is {found[each.index]}, too")
        found[each.index] = name
    if missing := [each for each in range(1, first.count + 1) if each not in found]:
        names = ", ".join(f"{each}/{first.count}" for each in missing)
        raise UsageError(
            f"{'shard is' if len(missing) == 1 else 'shards are'} missing: {names}",
            hint="Its job died or was cancelled before it wrote its records: run it again.",
        )
    if records != first.variants:
        raise UsageError(
            f"the shards have {records} of {first.variants} variants",
            hint="Make the shards anew with `nox-variants ci --emit-matrix`.",
        )
