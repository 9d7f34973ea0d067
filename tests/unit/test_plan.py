"""Plans: what a variant needs done, and which of them share it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from nox_variants.limits import Limit, Measure
from nox_variants.model import (
    CopiedFile,
    Image,
    ImageSource,
    Libs,
    LinkMode,
    Options,
    Recipe,
    Smoke,
    SourceKind,
)
from nox_variants.plan import WORKDIR, BuildStage, Plan, RunStage, make_plans
from samples import APT, SETTINGS, C, variant

GCC = Image(name="gcc", sources=(APT,))
SCRATCH = Image(name="scratch", sources=(ImageSource(kind=SourceKind.SCRATCH),))


def test_two_stages() -> None:
    """A plan names both stages in full, with the program's name in its commands and paths."""
    static = variant("scratch", LinkMode.STATIC)

    assert make_plans(SETTINGS, [static]) == (
        Plan(
            variant=static,
            language=C,
            build=BuildStage(
                image=GCC,
                source=Path("examples/hello-c"),
                workdir=WORKDIR,
                commands=("cc static -o /out/hello-c",),
                env=(),
                caches=(),
                artifacts=("/out/hello-c",),
                network=True,
            ),
            run=RunStage(
                image=SCRATCH,
                files=(CopiedFile(source="/out/hello-c", target="/hello-c"),),
                env=(),
                workdir="/",
                cmd=("/hello-c",),
                bundle=False,
                single_stage=False,
            ),
            smoke=Smoke(stdout="Hello, world!\n"),
        ),
    )


def test_single_stage() -> None:
    """Where build and run image are one, nothing is copied: the artifact runs where it was made."""
    (plan,) = make_plans(SETTINGS, [variant("gcc", LinkMode.DYNAMIC)])

    assert plan.run == RunStage(
        image=GCC,
        files=(),
        env=(),
        workdir=WORKDIR,
        cmd=("/out/hello-c",),
        bundle=False,
        single_stage=True,
    )


@pytest.mark.parametrize(
    ("cmd", "copied", "single"),
    [
        (None, ("/hello-c",), ("/out/hello-c",)),
        (
            ("java", "-cp", "{artifact}"),
            ("java", "-cp", "/hello-c"),
            ("java", "-cp", "/out/hello-c"),
        ),
        (("{program}",), ("hello-c",), ("hello-c",)),
        (
            "{artifact} | cat ${artifact}",
            ("/bin/sh", "-c", "/hello-c | cat ${artifact}"),
            ("/bin/sh", "-c", "/out/hello-c | cat ${artifact}"),
        ),
    ],
)
def test_command(
    cmd: tuple[str, ...] | str | None, copied: tuple[str, ...], single: tuple[str, ...]
) -> None:
    """A command has two forms, and names the artifact wherever that is in the image."""
    (program,) = SETTINGS.programs
    settings = replace(SETTINGS, programs=(replace(program, cmd=cmd),))
    variants = [variant("scratch", LinkMode.STATIC), variant("gcc", LinkMode.STATIC)]

    assert [plan.run.cmd for plan in make_plans(settings, variants)] == [copied, single]


def test_bundle() -> None:
    """Libraries are asked for where the variant says so; which they are, the build tells."""
    (plan,) = make_plans(SETTINGS, [variant("scratch", LinkMode.DYNAMIC, libs=Libs.BUNDLE)])

    assert plan.run.bundle
    assert plan.run.files == (CopiedFile(source="/out/hello-c", target="/hello-c"),)


def test_language_and_program_reach_the_build() -> None:
    """Environment, caches and the leave to use the network come from the file."""
    recipe = Recipe(link=LinkMode.STATIC, image="gcc", commands=("make",), env=(("CC", "cc"),))
    language = replace(C, recipes=(recipe,), caches=("/root/.cache",))
    program = replace(SETTINGS.programs[0], language=language, network=False)

    (plan,) = make_plans(
        replace(SETTINGS, programs=(program,)), [variant("scratch", LinkMode.STATIC)]
    )

    assert plan.language is language
    assert plan.build.commands == ("make",)
    assert plan.build.env == (("CC", "cc"),)
    assert plan.build.caches == ("/root/.cache",)
    assert not plan.build.network


OPTIONS = Options(
    flags=("-DA=b c", "-lm"),
    strip=True,
    build_env=(("CC", "gcc"), ("LC_ALL", "C")),
    artifacts=("/out/bin/{program}", "/out/share"),
    files=(CopiedFile("a.conf", "/etc/a"), CopiedFile("/etc/ssl", "/etc/ssl")),
    env=(("A", "b"),),
    user="1000",
    labels=(("name", "hello"),),
    entrypoint=("{artifact}", "{program}"),
)


def with_options(options: Options, run: str) -> Plan:
    """Return the plan of a program with options, in a language that takes them all."""
    commands = ("cc {flags} -o {program}", "touch {flags}")
    recipe = Recipe(
        link=LinkMode.STATIC,
        image="gcc",
        commands=commands,
        env=(("CC", "cc"), ("D", "e")),
        install=("install {artifact}",),
    )
    language = replace(C, recipes=(recipe,), strip="strip {artifact}")
    program = replace(SETTINGS.programs[0], language=language, options=options)
    settings = replace(SETTINGS, programs=(program,))
    return make_plans(settings, [variant(run, LinkMode.STATIC)])[0]


def test_options_of_the_build() -> None:
    """Flags are quoted, symbols go last, the program's environment is over the recipe's."""
    build = with_options(OPTIONS, "scratch").build

    assert build.commands == (
        "cc '-DA=b c' -lm -o hello-c",
        "touch '-DA=b c' -lm",
        "strip /out/bin/hello-c",
    )
    assert build.env == (("CC", "gcc"), ("D", "e"), ("LC_ALL", "C"))
    assert build.artifacts == ("/out/bin/hello-c", "/out/share")
    assert build.files == (f"{WORKDIR}/a.conf", "/etc/ssl")
    assert build.outputs == (*build.artifacts, *build.files)


def test_no_options_leave_no_trace() -> None:
    """Without flags nothing stands in their place, and nothing is stripped."""
    assert with_options(Options(), "scratch").build.commands == ("cc -o hello-c", "touch")


def test_options_of_the_image() -> None:
    """Artifacts lie at the root under their own names; words stand for what is there."""
    run = with_options(OPTIONS, "scratch").run

    assert run.files == (
        CopiedFile("/out/bin/hello-c", "/hello-c"),
        CopiedFile("/out/share", "/share"),
        CopiedFile(f"{WORKDIR}/a.conf", "/etc/a"),
        CopiedFile("/etc/ssl", "/etc/ssl"),
    )
    assert (run.env, run.user, run.labels) == (OPTIONS.env, "1000", OPTIONS.labels)
    assert run.entrypoint == ("/hello-c", "hello-c")
    assert run.cmd == ()
    assert run.install == ("install /hello-c",)
    assert run.has_own_stage


def test_options_of_a_single_stage() -> None:
    """What is in its place already is not copied; the artifact is named where it was built."""
    run = with_options(OPTIONS, "gcc").run

    assert run.files == (CopiedFile(f"{WORKDIR}/a.conf", "/etc/a"),)
    assert run.entrypoint == ("/out/bin/hello-c", "hello-c")
    assert run.install == ("install /out/bin/hello-c",)
    assert run.has_own_stage


def test_equal_stages_are_equal_values() -> None:
    """Variants that compile the same way share one stage; image and link mode part them."""
    plans = make_plans(
        SETTINGS,
        [
            variant("scratch", LinkMode.STATIC),
            variant("alpine", LinkMode.STATIC),
            variant("gcc", LinkMode.STATIC),
            variant("scratch", LinkMode.MUSL),
            variant("scratch", LinkMode.STATIC, "alpine-gcc"),
        ],
    )

    stages = [plan.build for plan in plans]
    assert len({plan.run.image for plan in plans}) == 3
    assert stages[0] == stages[1] == stages[2]
    assert len(set(stages)) == 3


def test_order_is_kept() -> None:
    """Plans come in the order of the selection, whatever the file's is."""
    selection = [variant(run, LinkMode.STATIC) for run in ("scratch", "gcc", "alpine")]

    assert [plan.variant for plan in make_plans(SETTINGS, selection)] == selection
    assert make_plans(SETTINGS, []) == ()


def test_link_mode_without_recipe_is_a_bug() -> None:
    """A variant that the configuration should have refused is not planned in silence."""
    program = replace(SETTINGS.programs[0], language=replace(C, recipes=()))
    settings = replace(SETTINGS, programs=(program,))

    with pytest.raises(AssertionError, match=r"hello-c\(scratch,static\)"):
        make_plans(settings, [variant("scratch", LinkMode.STATIC)])


def test_transfer_sizes_are_worked_out_where_they_are_asked_for() -> None:
    """Of all variants, or of those that have a budget of it."""
    plain = variant("scratch", LinkMode.STATIC)
    limited = replace(plain, limits=(Limit(measure=Measure.TRANSFER, fail=1),))

    asked = [each.transfer for each in make_plans(SETTINGS, [plain, limited])]

    assert asked == [False, True]
    assert [each.transfer for each in make_plans(SETTINGS, [plain], transfer=True)] == [True]
