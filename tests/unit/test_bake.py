"""Bake files: every variant a target, what variants share built once, names that Bake takes."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from nox_variants import bake, config, dockerfile, matrix, names
from nox_variants.bake import Context
from nox_variants.dockerfile import Base
from nox_variants.model import LinkMode, SourceKind
from nox_variants.plan import make_plans
from projects import REPOSITORY
from samples import SETTINGS, variant

if TYPE_CHECKING:
    from nox_variants.model import Image, Variant
    from nox_variants.plan import Plan

GCC = Base(name="gcc", reference="scratch", archive="gcc.tar", stand_in=True)
ALPINE = Base(name="alpine", reference="alpine:3.22", setup=("apk add a",))
SCRATCH = Base(name="scratch", reference="scratch")

ATTRIBUTES = {"context", "contexts", "target", "tags", "network"}
"""Those of a target that are used here (Bake file reference, "Target")."""


def context(made: Plan, build: Base = GCC, run: Base = SCRATCH) -> Context:
    """Return a variant's context in a folder of its own."""
    variant = made.variant
    folder = f"{variant.program}/{names.image_tag(variant)}"
    return Context(plan=made, folder=folder, build=build, run=run)


def plans(*variants: Variant) -> tuple[Plan, ...]:
    """Return plans of hello-c."""
    return make_plans(SETTINGS, variants)


def rendered(*contexts: Context) -> dict[str, Any]:
    """Return a Bake file, read."""
    values: dict[str, Any] = json.loads(bake.render(contexts))
    return values


def test_a_variant_its_stage_and_its_bases() -> None:
    """A variant is built from targets: the build stage, and images that have to be made."""
    (made,) = plans(variant("alpine", LinkMode.STATIC))

    assert rendered(context(made, GCC, ALPINE)) == {
        "group": {
            "default": {"targets": ["hello-c"]},
            "hello-c": {"targets": ["hello-c_in-gcc-static_-alpine"]},
        },
        "target": {
            "_image-gcc": {"context": "hello-c/gcc-static.alpine", "target": "build-base"},
            "_build-hello-c_in-gcc-static": {
                "context": "hello-c/gcc-static.alpine",
                "target": "build",
                "contexts": {"build-base": "target:_image-gcc"},
            },
            "_image-alpine": {"context": "hello-c/gcc-static.alpine", "target": "run-base"},
            "hello-c_in-gcc-static_-alpine": {
                "context": "hello-c/gcc-static.alpine",
                "target": "run",
                "contexts": {
                    "build": "target:_build-hello-c_in-gcc-static",
                    "run-base": "target:_image-alpine",
                },
                "tags": ["hello-c:gcc-static.alpine"],
            },
        },
    }


def test_single_stage() -> None:
    """Where the build image ships, the build stage is the variant, and nobody else's."""
    made = plans(variant("gcc", LinkMode.STATIC), variant("scratch", LinkMode.STATIC))

    targets = rendered(*(context(each, GCC, GCC) for each in made[:1]), context(made[1]))["target"]

    assert targets["hello-c_in-gcc-static_-gcc"] == {
        "context": "hello-c/gcc-static.gcc",
        "target": "build",
        "contexts": {"build-base": "target:_image-gcc"},
        "tags": ["hello-c:gcc-static.gcc"],
    }
    assert targets["hello-c_in-gcc-static_-scratch"]["contexts"] == {
        "build": "target:_build-hello-c_in-gcc-static"
    }


def test_without_a_network() -> None:
    """Only commands of the program are kept from the network: what makes its images is not."""
    made = plans(variant("scratch", LinkMode.STATIC), variant("gcc", LinkMode.STATIC))
    closed = [replace(each, build=replace(each.build, network=False)) for each in made]

    targets = rendered(context(closed[0], ALPINE), context(closed[1], ALPINE, ALPINE))["target"]

    assert {name: each.get("network") for name, each in targets.items()} == {
        "_image-alpine": None,
        "_build-hello-c_in-gcc-static": "none",
        "hello-c_in-gcc-static_-scratch": None,
        "hello-c_in-gcc-static_-gcc": "none",
    }


def test_plain_reference() -> None:
    """An image that is there as it is needs no target."""
    (made,) = plans(variant("alpine", LinkMode.STATIC))
    gcc, alpine = Base(name="gcc", reference="gcc:14"), Base(name="alpine", reference="alpine:3")

    assert rendered(context(made, gcc, alpine))["target"] == {
        "_build-hello-c_in-gcc-static": {"context": "hello-c/gcc-static.alpine", "target": "build"},
        "hello-c_in-gcc-static_-alpine": {
            "context": "hello-c/gcc-static.alpine",
            "target": "run",
            "contexts": {"build": "target:_build-hello-c_in-gcc-static"},
            "tags": ["hello-c:gcc-static.alpine"],
        },
    }


def project(*, stand_ins: bool) -> list[Context]:
    """Return the contexts of the project's own file."""
    settings = config.load(REPOSITORY / "variants.yaml")

    def base(image: Image) -> Base:
        source = image.sources[0]
        if source.kind is SourceKind.SCRATCH:
            return SCRATCH
        if stand_ins:
            return replace(GCC, name=image.name, archive=names.archive_name(image.name))
        return Base(name=image.name, reference=source.reference, setup=source.setup)

    return [
        context(each, base(each.build.image), base(each.run.image))
        for each in make_plans(settings, matrix.expand(settings).variants)
    ]


def stages(context: Context) -> set[str]:
    """Return the stages of a variant's Dockerfile."""
    text = dockerfile.render(context.plan, context.build, context.run, epoch=0, buildkit=True)
    return set(re.findall(r"^FROM \S+ AS (\S+)$", text, re.MULTILINE))


@pytest.mark.parametrize("stand_ins", [True, False])
def test_all_references_resolve(*, stand_ins: bool) -> None:
    """Of the project's whole file: what groups, targets and stages name is there, and is used."""
    contexts = project(stand_ins=stand_ins)
    file = rendered(*contexts)
    groups, targets = file["group"], file["target"]
    folders = {each.folder: stages(each) for each in contexts}

    used = {name for group in groups.values() for name in group["targets"]} | {"default"}
    for target in targets.values():
        assert set(target) <= ATTRIBUTES
        assert target["target"] in folders[target["context"]]
        for stage, name in target.get("contexts", {}).items():
            assert stage in folders[target["context"]]
            used.add(name.removeprefix("target:"))
    assert used == {*groups, *targets}
    assert all(re.fullmatch(r"[a-zA-Z0-9_-]+", name) for name in used)
    assert not set(groups) & set(targets)
    assert sorted(tag for each in targets.values() for tag in each.get("tags", [])) == sorted(
        f"{each.plan.variant.program}:{names.image_tag(each.plan.variant)}" for each in contexts
    )


def test_shared_stages_are_built_once() -> None:
    """Of the project's whole file: a target for each compile and each image, and not one more."""
    contexts = project(stand_ins=True)
    targets = rendered(*contexts)["target"]

    compiled = {each.plan.build for each in contexts if not each.plan.run.single_stage}
    images = {base.name for each in contexts for base in (each.build, each.run)} - {"scratch"}
    assert len([name for name in targets if name.startswith("_build-")]) == len(compiled)
    assert {name for name in targets if name.startswith("_image-")} == {
        names.bake_image(image) for image in images
    }
    assert len(targets) == len(contexts) + len(compiled) + len(images)


PROGRAMS = st.sampled_from(["default", "a", "a.b", "a__b", "a-in-b", "a_b", "image-a", "build-a"])
IMAGES = st.lists(
    st.sampled_from(["a", "_", ":", "/", "+", "@", ".", "-", "in-", "-static", "-musl."]),
    max_size=5,
).map(lambda parts: "a" + "".join(parts))
LINKS = st.sampled_from(LinkMode)
COMBINATIONS = st.tuples(PROGRAMS, IMAGES, LINKS, IMAGES)


def all_names(program: str, build: str, link: LinkMode, run: str) -> dict[str, tuple[str, ...]]:
    """Return every name that a variant puts into a Bake file, and what it stands for."""
    made = variant(run, link, build, program=program)
    return {
        names.bake_target(made): ("variant", program, build, link, run),
        names.bake_stage(made): ("stage", program, build, link),
        names.bake_image(build): ("image", build),
        names.bake_image(run): ("image", run),
        names.bake_group(program): ("group", program),
        "default": ("default",),
    }


@given(one=COMBINATIONS, other=COMBINATIONS)
@example(one=("a", "a", LinkMode.STATIC, "a.b"), other=("a", "a", LinkMode.STATIC, "a:b"))
@example(one=("default", "a", LinkMode.MUSL, "a"), other=("a", "a", LinkMode.MUSL, "a"))
def test_names(one: tuple[str, str, LinkMode, str], other: tuple[str, str, LinkMode, str]) -> None:
    """Whatever programs and images are called, Bake takes the names, and no two things share it."""
    made = (all_names(*one), all_names(*other))

    for name, meaning in made[0].items():
        assert re.fullmatch(r"[a-zA-Z0-9_-]+", name)
        assert made[1].get(name, meaning) == meaning
    assert len(made[0]) == 6 - (one[1] == one[3])


@given(one=IMAGES, other=IMAGES)
@example(one="a:b", other="a_b")
@example(one="@" * 100, other="@" * 99)
def test_archive_names(one: str, other: str) -> None:
    """An image's archive has a name that file systems and Dockerfiles take, and its own."""
    name = names.archive_name(one)

    assert re.fullmatch(r"[A-Za-z0-9_.-]{1,251}\.tar", name)
    assert (name == names.archive_name(other)) == (one == other)
