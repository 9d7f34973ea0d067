"""Explanations: what is said of a variant and of a file, in lines of 80 columns."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nox_variants import matrix
from nox_variants.commands.explain import explain, show
from nox_variants.diagnosis import predict
from nox_variants.engines.fake import FakeEngine
from nox_variants.model import (
    Cause,
    CopiedFile,
    Digest,
    Expected,
    Image,
    ImageSource,
    Libs,
    LinkMode,
    Location,
    Need,
    Service,
    Smoke,
    SourceKind,
    Verdict,
)
from nox_variants.plan import make_plans
from nox_variants.reports import explanation
from nox_variants.reports.explanation import Explanation, Failure, FileExplanation
from nox_variants.results import (
    Artifact,
    FileFacts,
    Finding,
    ImageFacts,
    Library,
    Linkage,
    Outcome,
    PreparedImage,
    RootFacts,
    Sizes,
    Startup,
    Step,
)
from nox_variants.subject import Subject
from records import FULL, SKIPPED
from samples import SETTINGS, variant

LOADER = "/lib64/ld-linux-x86-64.so.2"
STATIC = FileFacts(linkage=Linkage.STATIC, machine="x86_64", bits=64)
DYNAMIC = replace(
    STATIC,
    linkage=Linkage.GLIBC_DYNAMIC,
    interpreter=LOADER,
    needed=("libstdc++.so.6", "libc.so.6"),
    runpath=("$ORIGIN/lib",),
    requires=(
        ("libc.so.6", "GLIBC_2.4"),
        ("libc.so.6", "GLIBC_2.34"),
        ("libc.so.6", "GLIBC_2.14"),
        ("libstdc++.so.6", "GLIBCXX_3.4.32"),
        ("libstdc++.so.6", "CXXABI_1.3"),
    ),
    imports=("dlopen",),
)
FOUND = Step(path=LOADER, facts=STATIC, executable=True)
GCC = PreparedImage(
    name="gcc",
    kind=SourceKind.APT,
    reference="gcc libc6-dev",
    digest=Digest("sha256:1"),
    stand_in=True,
)
ALPINE = PreparedImage(
    name="alpine",
    kind=SourceKind.REGISTRY,
    reference="alpine:3.22",
    digest=Digest(f"sha256:{'2' * 64}"),
)
MUSL = RootFacts(  # noqa: S604  # a fact, no process
    loaders=frozenset({"/lib/ld-musl-x86_64.so.1"}),
    libc="musl 1.2.5",
    os="Alpine Linux v3.22",
    shell=True,
    users=frozenset({"root", "nobody"}),
    hosts=("files", "dns"),
)


def subject(*startup: Library, facts: FileFacts = DYNAMIC, loader: Step = FOUND) -> Subject:
    """Return a program in alpine."""
    step = Step(path="/hello-c", facts=facts, executable=True)
    found = Startup(steps=(step,), loader=loader if facts.interpreter else None, libraries=startup)
    return Subject(
        facts=ImageFacts(root=MUSL, startup=found),
        artifact=facts,
        smoke=Smoke(),
        machine="x86_64",
        run_image="alpine",
        cmd=("/hello-c",),
    )


def known(**changes: Any) -> Explanation:
    """Return what is known of hello-c(alpine,dynamic): its loader is missing."""
    expected = Expected(
        verdict=Verdict.FAILS,
        cause=Cause.MISSING_LOADER,
        location=Location(file="variants.yaml", line=9, column=7),
    )
    (plan,) = make_plans(SETTINGS, [variant("alpine", LinkMode.DYNAMIC, expected=expected)])
    about = subject(loader=Step(path=LOADER))
    made = Explanation(
        plan=plan,
        build_image=GCC,
        run_image=ALPINE,
        dockerfile='FROM gcc AS build\n\nCMD ["/hello-c"]\n',
        artifact=Artifact(
            path="/out/hello-c",
            file=Path("/store/hello-c"),
            size=16_000,
            digest=Digest("sha256:3"),
            facts=DYNAMIC,
        ),
        sizes=Sizes(binary=16_000, content=8_500_000, above_base=16_000),
        subject=about,
        predicted=predict(about),
    )
    return replace(made, **changes)


def section(title: str, of: Explanation | FileExplanation) -> str:
    """Return the lines of a section; white space is one blank."""
    found = explanation.of_variant(of) if isinstance(of, Explanation) else explanation.of_file(of)
    (lines,) = [each.lines for each in found if each.title == title]
    return " ".join("\n".join(lines).split())


def test_a_variant_that_fails() -> None:
    """Everything has its section, from the plan to what works instead; no line is too long."""
    found = explanation.of_variant(
        known(last=FULL, remedies=("hello-c(alpine,musl) works (8.51 MB)",), not_run=("a", "b"))
    )

    assert [each.title for each in found] == [
        "Plan of hello-c(alpine,dynamic)",
        "Dockerfile",
        "Artifact /out/hello-c",
        "Root of alpine",
        "Start",
        "Prediction",
        "Last observation",
        "Remedies",
    ]
    text = explanation.text(found)
    assert max(map(len, text.splitlines())) <= explanation.WIDTH
    assert text.splitlines()[:3] == [
        "Plan of hello-c(alpine,dynamic)",
        "  build image   gcc*: a stand-in, apt packages gcc libc6-dev, not the image of",
        "                that name",
    ]
    assert '\n\nDockerfile\n  FROM gcc AS build\n\n  CMD ["/hello-c"]\n\n' in text
    assert text.endswith(
        "\n\nRemedies\n  hello-c(alpine,musl) works (8.51 MB)\n  not run yet: a, b\n"
    )


@pytest.mark.parametrize(
    ("title", "said"),
    [
        ("Plan of hello-c(alpine,dynamic)", "commands cc dynamic -o /out/hello-c"),
        ("Plan of hello-c(alpine,dynamic)", "run image alpine: alpine:3.22 of its registry, sha"),
        ("Plan of hello-c(alpine,dynamic)", "copied /out/hello-c to /hello-c command /hello-c"),
        ("Plan of hello-c(alpine,dynamic)", "size 8.5 MB*, 16 kB of it above the run image"),
        ("Plan of hello-c(alpine,dynamic)", r"exit code 0 prints 'Hello, world!\n' within 10 s"),
        ("Plan of hello-c(alpine,dynamic)", "fails with missing-loader (variants.yaml:9:7)"),
        ("Artifact /out/hello-c", "machine x86_64, 64 bits"),
        ("Artifact /out/hello-c", "needs libstdc++.so.6, libc.so.6"),
        (
            "Artifact /out/hello-c",
            "GLIBC_2.34, libstdc++.so.6 GLIBCXX_3.4.32, libstdc++.so.6 CXXABI_1.3",
        ),
        ("Artifact /out/hello-c", "runpath $ORIGIN/lib calls dlopen size 16 kB (16,000 bytes)"),
        ("Root of alpine", "os Alpine Linux v3.22 libc musl 1.2.5 loaders /lib/ld-musl-x86_64.s"),
        ("Root of alpine", "shell /bin/sh certificates none time zones none users nobody, root"),
        ("Root of alpine", "hosts files dns (nsswitch.conf) nss modules none"),
        ("Start", f"/hello-c: glibc-dynamic {LOADER}: loader, NOT FOUND without a loader, noth"),
        ("Prediction", f"fails: missing-loader needs the loader {LOADER}, which alpine (musl)"),
        ("Last observation", "never run"),
        ("Remedies", "none of hello-c's variants near it was seen to work"),
    ],
)
def test_what_is_said(title: str, said: str) -> None:
    """Each fact is in its section."""
    assert said in section(title, known())


def test_the_tree() -> None:
    """Who needs what, each once, below what needs it; what is missing, and where it was sought."""
    libraries = (
        Library(name="libstdc++.so.6", needed_by="/hello-c", path="/lib/libstdc++.so.6"),
        Library(
            name="libc.so.6", needed_by="/hello-c", path="/lib/libc.so.6", undefined=("GLIBC_2.38",)
        ),
        Library(name="libm.so.6", needed_by="/lib/libstdc++.so.6", searched=("/lib", "/usr/lib")),
        Library(name="ld-linux-x86-64.so.2", needed_by="/lib/libc.so.6", path=LOADER),
    )

    (start,) = (
        each
        for each in explanation.of_variant(known(subject=subject(*libraries)))
        if each.title == "Start"
    )

    assert start.lines == (
        "  /hello-c: glibc-dynamic",
        f"    {LOADER}: loader",
        "    libstdc++.so.6: /lib/libstdc++.so.6",
        "      libm.so.6: NOT FOUND",
        "        searched /lib, /usr/lib",
        "    libc.so.6: /lib/libc.so.6",
        "      does not define GLIBC_2.38",
        f"      ld-linux-x86-64.so.2: {LOADER}",
    )


@pytest.mark.parametrize(
    "libraries",
    [
        # A library under two names that needs the second.
        (
            Library(name="a", needed_by="/hello-c", path="/lib/x"),
            Library(name="b", needed_by="/lib/x", path="/lib/x"),
        ),
        # What the root preloads, nothing needs.
        (Library(name="a", needed_by="/etc/ld.so.preload"), Library(name="b", needed_by="/b")),
        # A chain that is deeper than any stack.
        tuple(Library(name=f"{n}", needed_by=f"/{n - 1}", path=f"/{n}") for n in range(5000)),
    ],
)
def test_no_library_is_lost(libraries: tuple[Library, ...]) -> None:
    """However they need each other, each is shown once, and the tree stays narrow."""
    lines = section("Start", known(subject=subject(*libraries)))

    names = re.findall(r"(?<= )(\w+): (?:/\S+|NOT FOUND)(?= |$)", lines)
    assert sorted(names) == sorted(each.name for each in libraries)


def test_a_script() -> None:
    """Each file on the way to the first instruction has its line."""
    script = FileFacts(linkage=Linkage.SCRIPT, interpreter="/bin/sh", argument="-e")
    about = subject(facts=script)
    steps = (*about.facts.startup.steps, Step(path="/bin/sh"))
    facts = replace(about.facts, startup=Startup(steps=steps, imports=("dlopen",), truncated=True))
    one = known(subject=replace(about, facts=facts, artifact=script))

    assert section("Start", one).startswith(
        "/hello-c: script /bin/sh: NOT FOUND calls of it and its libraries: dlopen The search is"
    )


def test_a_variant_that_works() -> None:
    """Nothing is missing, so nothing is advised."""
    about = subject(facts=STATIC)
    found = explanation.of_variant(known(subject=about, predicted=predict(about)))

    assert [each.title for each in found][-2:] == ["Prediction", "Last observation"]
    assert section("Prediction", known(predicted=predict(about))).startswith("works: ")


def test_a_build_that_failed() -> None:
    """The plan and the end of the output are shown, and nothing of what was not built."""
    one = known(
        artifact=None,
        sizes=None,
        subject=None,
        predicted=None,
        failure=Failure(message="'cc' ended with exit code 1", log="a.c:1:\n\t\x1b[31mno\n"),
    )

    assert section("Build failed", one) == (r"'cc' ended with exit code 1 | a.c:1: | \x1b[31mno")
    assert [each.title for each in explanation.of_variant(one)] == [
        *("Plan of hello-c(alpine,dynamic)", "Dockerfile", "Build failed"),
        *("Last observation", "Remedies"),
    ]


def test_the_last_observation() -> None:
    """What a run showed, with its last words, and when that was."""
    assert FULL.smoke is not None
    smoke = replace(FULL.smoke, stderr="".join(f"line {n}\n" for n in range(9)))

    assert section("Last observation", known(last=replace(FULL, smoke=smoke))) == (
        "verdict fails with exit-code outcome failed why ended with exit code 3, not 0"
        " expected to work when 2026-11-23T20:00:00.000Z, embedded 0.11.0 exit code 3"
        " stdout Hëllo stderr line 4 line 5 line 6 line 7 line 8"
    )


def test_what_was_measured() -> None:
    """Medians are said with how many runs they are of, and how many there are to be."""
    assert FULL.smoke is not None
    smoke = replace(FULL.smoke, stdout="", runs=3, startup_ms=1.234, peak_memory=704_000)
    one = known(last=replace(FULL, smoke=smoke))
    plan = replace(one.plan, smoke=Smoke(repeat=5))

    assert section("Last observation", one).endswith(
        "exit code 3 start-up 1.23 ms, the median of 3 runs peak memory 704 kB, the median of 3"
        " runs"
    )
    assert "128 processes, 5 times expected" in section(
        f"Plan of {plan.variant.id}", replace(one, plan=plan)
    )


def test_a_contradiction_is_loud() -> None:
    """A prediction that was wrong has a section of its own."""
    found = explanation.of_variant(known(last=replace(FULL, contradiction="was wrong")))

    assert [(each.title, each.lines) for each in found if each.loud] == [
        ("DEFECT of nox-variants", ("  was wrong",))
    ]


@pytest.mark.parametrize(
    ("changes", "fails"),
    [
        ({}, True),
        ({"predicted": Finding(verdict=Verdict.WORKS)}, False),
        ({"predicted": Finding(verdict=Verdict.WORKS), "mismatch": "is dynamic"}, True),
        ({"predicted": Finding(verdict=Verdict.WORKS), "last": FULL}, True),
        (
            {
                "predicted": Finding(verdict=Verdict.WORKS),
                "last": replace(FULL, verdict=None, outcome=Outcome.SKIPPED),
            },
            False,
        ),
        ({"predicted": None}, True),
    ],
)
def test_fails(changes: dict[str, Any], *, fails: bool) -> None:
    """A variant fails by prediction, by its linkage, by its last run, or for want of a build."""
    assert known(**changes).fails is fails


def test_what_a_smoke_run_asks() -> None:
    """Arguments, input, needs, and a server's answer."""
    plan = known().plan
    service = Service(port=80, path="/x", body="yes", matches="y")
    smoke = Smoke(
        args=("a b",), env=(("A", "1"),), stdin="in", needs=(Need.NAMES,), service=service
    )

    assert (
        "smoke run with the arguments 'a b' with A=1 reads 'in' needs names answers /x on port 80"
        " with status 200 and with 'yes' and with what 'y' matches within 10 s"
    ) in section(f"Plan of {plan.variant.id}", known(plan=replace(plan, smoke=smoke)))


@pytest.mark.parametrize(
    ("single", "bundle", "beside", "said"),
    [
        (True, False, (), "copied nothing: the build image itself is shipped"),
        (False, True, (), "copied /out/hello-c to /hello-c and the libraries that it needs, if an"),
        (
            False,
            True,
            (CopiedFile(source="/lib/libc.so.6", target="/lib/libc.so.6"),),
            "copied /out/hello-c to /hello-c /lib/libc.so.6 command",
        ),
    ],
)
def test_what_is_copied(
    beside: tuple[CopiedFile, ...], said: str, *, single: bool, bundle: bool
) -> None:
    """The artifact, and the libraries that come along."""
    plan = known().plan
    files = () if single else (*plan.run.files, *beside)
    run = replace(plan.run, files=files, single_stage=single, bundle=bundle)
    libs = Libs.BUNDLE if bundle else Libs.NONE
    plan = replace(plan, run=run, variant=replace(plan.variant, libs=libs))

    assert said in section(f"Plan of {plan.variant.id}", known(plan=plan))


@pytest.mark.parametrize(
    ("smoke", "said"),
    [
        (Smoke(matches="^Hi"), "ends with exit code 0 prints what '^Hi' matches within 10 s"),
        (Smoke(service=Service(port=80)), "answers / on port 80 with status 200 within 10 s"),
    ],
)
def test_what_a_smoke_run_leaves_open(smoke: Smoke, said: str) -> None:
    """Only what is asked is said."""
    plan = replace(known().plan, smoke=smoke)

    assert said in section(f"Plan of {plan.variant.id}", known(plan=plan))


def test_an_archive_and_an_environment() -> None:
    """An archive is no stand-in; what the build gets is shown."""
    plan = known().plan
    plan = replace(plan, build=replace(plan.build, env=(("CGO_ENABLED", "0"),)))
    archive = replace(ALPINE, kind=SourceKind.ARCHIVE, reference="alpine.tar")

    said = section(f"Plan of {plan.variant.id}", known(plan=plan, run_image=archive))

    assert "environment CGO_ENABLED=0" in said
    assert "run image alpine: archive alpine.tar copied" in said
    scratch = replace(ALPINE, name="scratch", kind=SourceKind.SCRATCH)
    assert section("File bin/hello-c", file(image=scratch)).endswith("image scratch: empty")


def test_a_variant_that_was_skipped() -> None:
    """A record without a run says why there was none."""
    assert section("Last observation", known(last=SKIPPED)) == (
        "verdict none outcome skipped why no source when 2026-11-23T20:00:00.000Z"
    )
    working = replace(FULL, verdict=Verdict.WORKS, cause=None, explanation="", reason="")
    assert "why" not in section("Last observation", known(last=working))


class Pulling(FakeEngine):
    """An engine whose images come from registries."""

    def prepare(self, image: Image) -> PreparedImage:
        """Return the real image."""
        return replace(super().prepare(image), kind=SourceKind.REGISTRY, stand_in=False)


@pytest.mark.parametrize(
    ("reference", "dockerfile"),
    [
        (
            "gcc:14",
            "FROM gcc:14 AS build-base\nRUN echo ready\n\nFROM build-base AS build\n",
        ),
        ("no reference", "image gcc: 'no reference' is no reference that FROM takes."),
    ],
)
def test_the_dockerfile_of_real_images(reference: str, dockerfile: str) -> None:
    """Images of a registry have their references there, or it is said why there is no file."""
    source = ImageSource(kind=SourceKind.REGISTRY, reference=reference, setup=("echo ready",))
    settings = replace(
        SETTINGS, images=tuple(replace(each, sources=(source,)) for each in SETTINGS.images)
    )
    one = variant("alpine", LinkMode.DYNAMIC)

    made = explain(Pulling(), settings, matrix.expand(settings), one, {}, epoch=0)

    assert dockerfile in made.dockerfile
    assert "stand-in" not in made.dockerfile


def file(**changes: Any) -> FileExplanation:
    """Return what is known of a file in alpine."""
    about = subject(facts=STATIC)
    made = FileExplanation(
        file=Path("bin/hello-c"), size=767_000, image=GCC, subject=about, predicted=predict(about)
    )
    return replace(made, **changes)


def test_a_file() -> None:
    """A file has facts, a way to start and a prediction, and neither a plan nor a record."""
    assert [each.title for each in explanation.of_file(file())] == [
        *("File bin/hello-c", "Root of alpine", "Start", "Prediction")
    ]
    assert "java" not in section("Root of alpine", file())
    assert section("File bin/hello-c", file()).startswith("linked static machine x86_64, 64 bits")


def test_hostile_names() -> None:
    """What would steer a terminal is shown as text, wherever it stands."""
    hostile = replace(
        DYNAMIC, interpreter="/l\x1b[2J", needed=("\x07" * 5,), runpath=("\r",), imports=("\n",)
    )
    library = Library(name="\x1b]0;", needed_by="/hello-c", path="\x9b", undefined=("\x1b",))
    about = subject(library, facts=hostile, loader=Step(path="/l\x1b[2J"))

    text = explanation.text(explanation.of_file(file(file=Path("\x1b[1m"), subject=about)))

    assert [c for c in text if not c.isprintable() and c != "\n"] == []
    assert r"\x1b]0;: \x9b" in text


def test_long_lists_are_cut() -> None:
    """What is in a list without end is counted."""
    names = tuple(f"lib{n}.so" for n in range(500))
    about = subject(facts=replace(STATIC, needed=names))

    assert "lib39.so, and 460 more" in section("File bin/hello-c", file(subject=about))


@pytest.mark.parametrize(
    ("version", "said"),
    [
        (61, "script class files 61 (Java 17)"),
        (0, "linked neither an ELF program nor a script size"),
    ],
)
def test_class_files(version: int, said: str) -> None:
    """A class file says which Java it is for."""
    about = subject(facts=FileFacts(linkage=Linkage.OTHER, class_version=version))
    root = replace(MUSL, java=61)
    about = replace(about, facts=replace(about.facts, root=root))

    assert "java class files up to 61 (Java 17)" in section("Root of alpine", file(subject=about))
    assert said in section("File bin/hello-c", file(subject=about))


@pytest.mark.parametrize("of", [known(last=FULL), file()])
def test_json(of: Explanation | FileExplanation) -> None:
    """The same as values: sets as sorted lists, paths as text."""
    text = json.dumps(explanation.values(of), default=explanation.encoded)

    values = json.loads(text)
    assert values["subject"]["facts"]["root"]["users"] == ["nobody", "root"]
    assert values["predicted"]["verdict"] == of.predicted.verdict if of.predicted else False
    assert values.get("variant") == (
        "hello-c(alpine,dynamic)" if isinstance(of, Explanation) else None
    )


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        """Say yes."""
        return True


def test_a_terminal_gets_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal headings are bold and what is missing is red; the words are the same."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    sections = explanation.of_variant(known(last=replace(FULL, contradiction="was [red]wrong")))
    terminal, plain = Terminal(), io.StringIO()

    show(sections, terminal)
    show(sections, plain)

    coloured = terminal.getvalue()
    assert re.sub(r"\x1b\[[\d;]*m", "", coloured) == plain.getvalue() == explanation.text(sections)
    assert "\x1b[1mPlan of hello-c(alpine,dynamic)\x1b[0m\n" in coloured
    assert f"\x1b[31m    {LOADER}: loader, NOT FOUND\x1b[0m\n" in coloured
    assert "\x1b[1;31mDEFECT of nox-variants\x1b[0m\n" in coloured
