"""Values that several tests start from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from nox_variants.model import (
    Expected,
    Image,
    ImageSource,
    Language,
    LinkMode,
    Program,
    Recipe,
    Settings,
    Smoke,
    SourceKind,
    Variant,
    VariantId,
)

APT = ImageSource(kind=SourceKind.APT, packages=("gcc",))

C = Language(
    name="c",
    artifact="/out/{program}",
    recipes=tuple(
        Recipe(link=link, image="gcc", commands=(f"cc {link} -o /out/{{program}}",))
        for link in LinkMode
    ),
    mismatch_hint="Add -static.",
)

SETTINGS = Settings(
    root=Path(),
    roots=(Path(),),
    programs=(
        Program(
            name="hello-c",
            language=C,
            source=Path("examples/hello-c"),
            run=("gcc", "scratch", "alpine"),
            link=(LinkMode.DYNAMIC, LinkMode.STATIC),
            smoke=Smoke(stdout="Hello, world!\n"),
        ),
    ),
    images=(
        *(
            Image(name=name, sources=(APT,))
            for name in ("gcc", "alpine-gcc", "alpine", "busybox:glibc")
        ),
        Image(name="scratch", sources=(ImageSource(kind=SourceKind.SCRATCH),)),
    ),
)


def variant(run: str, link: LinkMode, build: str = "gcc", **changes: Any) -> Variant:
    """Return a variant of hello-c."""
    name = f"hello-c({run},{link})" if build == "gcc" else f"hello-c({run},{link},{build})"
    made = Variant(
        id=VariantId(name),
        program="hello-c",
        language="c",
        build_image=build,
        run_image=run,
        link=link,
        expected=Expected(),
    )
    return replace(made, **changes)
