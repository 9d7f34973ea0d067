"""Runs against the fake engine: every outcome, every field, what is shared, and how it ends."""

from __future__ import annotations

import datetime as dt
import threading
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest

from nox_variants import results, runner
from nox_variants.engines.fake import FakeEngine
from nox_variants.errors import (
    BuildFailed,
    ImageError,
    ImageUnavailable,
    SandboxError,
    StoreError,
)
from nox_variants.graph import Failed
from nox_variants.model import Cause, Digest, Expected, LinkMode, SourceKind, Verdict
from nox_variants.plan import make_plans
from nox_variants.record import (
    OUTPUT_KEPT,
    EngineUsed,
    ImageMade,
    ImageUsed,
    Judgement,
    LinkageSeen,
    Record,
    Seconds,
    SmokeSeen,
)
from nox_variants.results import (
    Build,
    EngineInfo,
    EngineName,
    FileFacts,
    ImageFacts,
    Linkage,
    Observation,
    Outcome,
    Role,
    RootFacts,
    Sizes,
    Startup,
)
from nox_variants.runner import RunContext, Step, Task, Timed
from samples import SETTINGS, variant

if TYPE_CHECKING:
    from nox_variants.model import Image, Smoke, Variant
    from nox_variants.plan import BuildStage, Plan
    from nox_variants.results import PreparedImage, VariantImage

LOADER = "/lib64/ld-linux-x86-64.so.2"
NO_SUCH_FILE = Observation(started=False, exec_error="no such file or directory")
FAILING = Observation(started=True, exit_code=3, seconds=0.02)

DYNAMIC_FACTS = FileFacts(linkage=Linkage.GLIBC_DYNAMIC, machine="x86_64", interpreter=LOADER)
NO_LOADER = ImageFacts(
    root=RootFacts(),
    startup=Startup(
        steps=(results.Step(path="/hello-c", facts=DYNAMIC_FACTS, executable=True),),
        loader=results.Step(path=LOADER),
    ),
)
TAG = "hello-c:gcc-dynamic.scratch"

STATIC = variant("scratch", LinkMode.STATIC)
STATIC_ALPINE = variant("alpine", LinkMode.STATIC)
STATIC_GCC = variant("gcc", LinkMode.STATIC)
DYNAMIC = variant("scratch", LinkMode.DYNAMIC)
OTHER_BUILD = variant("scratch", LinkMode.STATIC, "alpine-gcc")

CONTEXT = RunContext(
    run_id="20261123T200000000000Z-00000000",
    platform="linux/amd64",
    machine="x86_64",
    engine=EngineInfo(name=EngineName.EMBEDDED, version="0-fake"),
    git_commit="0" * 40,
    tools={"nox_variants": "0.1.0"},
    clock=lambda: dt.datetime(2026, 11, 23, 20, 0, 0, 123456, tzinfo=dt.UTC),
)


@dataclass
class Watcher:
    """An observer that keeps what it is told, and by which thread."""

    started_tasks: list[str] = field(default_factory=list)
    results: dict[str, object] = field(default_factory=dict)
    records: list[Record] = field(default_factory=list)
    threads: set[int] = field(default_factory=set)

    def started(self, task: Task) -> None:
        self.threads.add(threading.get_ident())
        self.started_tasks.append(f"{task.step} {task.name}")

    def finished(self, task: Task, result: object) -> None:
        self.threads.add(threading.get_ident())
        self.results[f"{task.step} {task.name}"] = result

    def recorded(self, record: Record) -> None:
        self.threads.add(threading.get_ident())
        self.records.append(record)


def run(
    engine: FakeEngine,
    *variants: Variant,
    watcher: Watcher | None = None,
    jobs: int = 1,
    fail_fast: bool = False,
    strict: bool = False,
) -> tuple[Record, ...]:
    """Run variants of the sample file."""
    return runner.run(
        make_plans(SETTINGS, variants),
        engine,
        CONTEXT,
        watcher or Watcher(),
        jobs=jobs,
        fail_fast=fail_fast,
        strict=strict,
    )


def digest(text: str) -> Digest:
    """Return the digest that the fake engine gives a name."""
    return Digest(f"sha256:{sha256(text.encode()).hexdigest()}")


def image_used(name: str, role: Role) -> ImageUsed:
    """Return what a record says of an image of the fake engine."""
    return ImageUsed(
        name=name,
        role=role,
        source=SourceKind.APT,
        reference="fake",
        digest=digest(name),
        stand_in=True,
        packages=("libc6=1",),
    )


def expecting(expected: Verdict, cause: Cause | None = None, *, of: Variant = DYNAMIC) -> Variant:
    """Return a variant with an expectation."""
    return replace(of, expected=Expected(verdict=expected, cause=cause))


def test_passed() -> None:
    """The record of a variant that works holds everything that is known about it."""
    watcher, made = Watcher(), []

    class Engine(FakeEngine):
        def assemble(self, plan: Plan, base: PreparedImage, build: Build) -> VariantImage:
            made.append(super().assemble(plan, base, build))
            return made[-1]

    begin = time.perf_counter()
    (record,) = run(Engine(), STATIC, watcher=watcher)
    most = time.perf_counter() - begin

    images = [watcher.results[f"image {name}"] for name in ("gcc", "scratch")]
    assert record.seconds.images is not None
    assert 0 <= record.seconds.images <= most
    assert record.seconds.assemble is not None
    assert 0 <= record.seconds.assemble <= most
    assert record == Record(
        run_id="20261123T200000000000Z-00000000",
        variant="hello-c(scratch,static)",
        program="hello-c",
        language="c",
        build_image="gcc",
        run_image="scratch",
        link=LinkMode.STATIC,
        platform="linux/amd64",
        engine=EngineUsed(name=EngineName.EMBEDDED, version="0-fake"),
        started_at="2026-11-23T20:00:00.123Z",
        git_commit="0" * 40,
        images=(image_used("gcc", Role.BUILD), image_used("scratch", Role.RUN)),
        image=ImageMade(
            config_digest=made[0].config_digest,
            tag="hello-c:gcc-static.scratch",
            path="images/gcc-static.scratch",
        ),
        verdict=Verdict.WORKS,
        expected=Judgement(verdict=Verdict.WORKS, cause=None),
        predicted=Judgement(verdict=Verdict.WORKS, cause=None),
        shell=False,
        outcome=Outcome.PASSED,
        linkage=LinkageSeen(
            requested=LinkMode.STATIC, actual=Linkage.STATIC, interpreter="", needed=(), glibc=""
        ),
        sizes=Sizes(binary=100, content=1100, above_base=100),
        seconds=Seconds(
            images=sum(image.seconds for image in images if isinstance(image, Timed)),
            build=0.5,
            assemble=record.seconds.assemble,
            smoke=0.01,
        ),
        build_cached=False,
        smoke=SmokeSeen(
            exit_code=0,
            signal=None,
            stdout="Hello, world!\n",
            stderr="",
            truncated=False,
            timed_out=False,
        ),
        tools={"nox_variants": "0.1.0"},
    )


class Flaky(FakeEngine):
    """An engine whose program works twice, takes longer each time, and fails from then on."""

    def smoke(self, image: VariantImage, smoke: Smoke) -> Observation:
        seen = super().smoke(image, smoke)
        number = sum(1 for call, _ in self.calls if call == "smoke")
        code = 0 if number < 3 else 3
        return replace(seen, exit_code=code, startup=0.001 * number, peak_memory=1000 * number)


@pytest.mark.parametrize(
    ("repeat", "verdict", "runs", "startup", "peak"),
    [
        (1, Verdict.WORKS, 1, 1.0, 1000),
        (2, Verdict.WORKS, 2, 1.5, 1500),
        (9, Verdict.FAILS, 3, 2.0, 2000),
    ],
)
def test_repeated(repeat: int, verdict: Verdict, runs: int, startup: float, peak: int) -> None:
    """A smoke run is repeated as often as is asked for; what was measured is in the record."""
    (record,) = measure(Flaky(), repeat)

    assert record.verdict is verdict
    assert record.smoke is not None
    assert record.smoke.exit_code == (0 if verdict is Verdict.WORKS else 3)
    assert (record.smoke.runs, record.smoke.peak_memory) == (runs, peak)
    assert record.smoke.startup_ms == pytest.approx(startup)


def test_cancelled_between_runs() -> None:
    """No run follows one during which everything was cancelled, and there is no verdict."""

    class Cancelling(FakeEngine):
        def smoke(self, image: VariantImage, smoke: Smoke) -> Observation:
            seen = super().smoke(image, smoke)
            self.cancel()
            return seen

    engine = Cancelling()
    (record,) = measure(engine, 9)

    assert (record.outcome, record.verdict, record.reason) == (Outcome.ERROR, None, "cancelled")
    assert [call for call, _ in engine.calls].count("smoke") == 2


def measure(engine: FakeEngine, repeat: int) -> tuple[Record, ...]:
    """Run a variant whose smoke run is repeated."""
    plans = [
        replace(plan, smoke=replace(plan.smoke, repeat=repeat))
        for plan in make_plans(SETTINGS, [STATIC])
    ]
    return runner.run(plans, engine, CONTEXT, Watcher(), jobs=1)


def test_linkage_is_recorded() -> None:
    """The record says how the artifact is linked, and what it needs."""
    (record,) = run(FakeEngine(), DYNAMIC)

    assert record.outcome is Outcome.PASSED
    assert record.linkage == LinkageSeen(
        requested=LinkMode.DYNAMIC,
        actual=Linkage.GLIBC_DYNAMIC,
        interpreter=LOADER,
        needed=("libc.so.6",),
        glibc="2.34",
    )


def test_failed() -> None:
    """A variant that does the wrong thing fails, with what was seen of it."""
    engine = FakeEngine(seen={"hello-c:gcc-static.scratch": replace(FAILING, stderr="oops\n")})

    (record,) = run(engine, STATIC)

    explanation = "ended with exit code 3, not 0; the last line of standard error is 'oops'"
    assert (record.verdict, record.cause) == (Verdict.FAILS, Cause.EXIT_CODE)
    assert (record.outcome, record.reason) == (Outcome.FAILED, explanation)
    assert record.explanation == explanation
    assert record.smoke == SmokeSeen(
        exit_code=3, signal=None, stdout="", stderr="oops\n", truncated=False, timed_out=False
    )
    assert record.seconds.smoke == 0.02


def test_expected_failure() -> None:
    """A failure that was expected is explained all the same, and is no bad outcome."""
    engine = FakeEngine(inspected={TAG: NO_LOADER}, seen={TAG: NO_SUCH_FILE})

    (record,) = run(engine, expecting(Verdict.FAILS, Cause.MISSING_LOADER))

    assert (record.outcome, record.reason) == (Outcome.XFAILED, "")
    assert (record.verdict, record.cause) == (Verdict.FAILS, Cause.MISSING_LOADER)
    assert record.explanation.startswith(f"needs the loader {LOADER}, which scratch does not have")
    assert record.expected == Judgement(verdict=Verdict.FAILS, cause=Cause.MISSING_LOADER)


def test_other_failure_than_expected() -> None:
    """A failure with another cause than the expected one is a bad outcome."""
    engine = FakeEngine(seen={"hello-c:gcc-dynamic.scratch": FAILING})

    (record,) = run(engine, expecting(Verdict.FAILS, Cause.MISSING_LOADER))

    assert (record.outcome, record.cause) == (Outcome.FAILED, Cause.EXIT_CODE)
    assert record.reason.startswith("fails with exit-code, but the file expects it to fail with")


def test_expected_failure_that_works() -> None:
    """A variant that works against the expectation is a bad outcome with its verdict."""
    (record,) = run(FakeEngine(), expecting(Verdict.FAILS))

    assert (record.outcome, record.verdict) == (Outcome.XPASSED, Verdict.WORKS)
    assert record.reason == "works, but the file expects it to fail: correct the expectation"


def test_linkage_mismatch() -> None:
    """A static build that comes out dynamic fails though it works, and says what to do."""
    facts = FileFacts(linkage=Linkage.GLIBC_DYNAMIC, machine="x86_64", interpreter=LOADER)

    (record,) = run(FakeEngine(facts={"gcc": facts}), STATIC)

    assert (record.outcome, record.verdict) == (Outcome.FAILED, Verdict.WORKS)
    assert record.reason == (
        f"static was asked for, but it is glibc-dynamic (needs {LOADER}): Add -static."
    )
    assert record.linkage is not None
    assert record.linkage.actual is Linkage.GLIBC_DYNAMIC


def test_prediction_and_observation_are_both_recorded() -> None:
    """What files let expect is recorded beside what was seen."""
    engine = FakeEngine(inspected={TAG: NO_LOADER}, seen={TAG: NO_SUCH_FILE})

    (record,) = run(engine, DYNAMIC)

    assert record.predicted == Judgement(verdict=Verdict.FAILS, cause=Cause.MISSING_LOADER)
    assert (record.verdict, record.cause) == (Verdict.FAILS, Cause.MISSING_LOADER)
    assert record.contradiction == ""
    assert engine.calls.count(("inspect", TAG)) == 1


def test_a_wrong_prediction_is_a_defect_and_no_verdict() -> None:
    """Where a prediction fails, what was seen counts, and the record says that we were wrong."""
    (record,) = run(FakeEngine(inspected={TAG: NO_LOADER}), DYNAMIC)

    assert (record.verdict, record.outcome) == (Verdict.WORKS, Outcome.PASSED)
    assert record.contradiction.startswith("predicted was missing-loader, seen was works: a defect")


@pytest.mark.parametrize("jobs", [1, 4])
def test_equal_work_is_done_once(jobs: int) -> None:
    """Images and equal build stages are shared; every variant has an image and a run of its own."""
    engine, watcher = FakeEngine(), Watcher()

    records = run(engine, STATIC, STATIC_ALPINE, STATIC_GCC, DYNAMIC, watcher=watcher, jobs=jobs)

    assert [record.outcome for record in records] == [Outcome.PASSED] * 4
    assert Counter(engine.calls) == Counter(
        [
            *(("prepare", name) for name in ("gcc", "scratch", "alpine")),
            ("build", "gcc: cc static -o /out/hello-c"),
            ("build", "gcc: cc dynamic -o /out/hello-c"),
            *(
                (step, f"{prefix}gcc-{tag}")
                for step, prefix in (
                    ("assemble", ""),
                    ("inspect", "hello-c:"),
                    ("smoke", "hello-c:"),
                )
                for tag in ("static.scratch", "static.alpine", "static.gcc", "dynamic.scratch")
            ),
        ]
    )


def test_single_stage_counts_its_image_once() -> None:
    """Where build and run image are one, the record lists it twice and counts its time once."""
    watcher = Watcher()

    (record,) = run(FakeEngine(), STATIC_GCC, watcher=watcher)

    image = watcher.results["image gcc"]
    assert isinstance(image, Timed)
    assert record.seconds.images == image.seconds
    assert record.images == (image_used("gcc", Role.BUILD), image_used("gcc", Role.RUN))
    assert record.single_stage


@pytest.mark.parametrize("missing", ["gcc", "scratch"])
@pytest.mark.parametrize(("strict", "outcome"), [(False, Outcome.SKIPPED), (True, Outcome.ERROR)])
def test_unavailable_image(missing: str, strict: bool, outcome: Outcome) -> None:  # noqa: FBT001
    """A variant without one of its images is skipped, or an error with --strict; others go on."""
    error = ImageUnavailable(f"{missing}: no source.", hint="Try apt.")
    engine = FakeEngine(images={missing: error})

    record, other = run(
        engine, STATIC, variant("alpine", LinkMode.STATIC, "alpine-gcc"), strict=strict
    )

    assert (record.outcome, record.reason) == (outcome, f"{missing}: no source. Try apt.")
    had = {"gcc": image_used("scratch", Role.RUN), "scratch": image_used("gcc", Role.BUILD)}
    assert (record.verdict, record.images, record.smoke) == (None, (had[missing],), None)
    assert replace(record.seconds, images=None) == Seconds()
    assert other.outcome is Outcome.PASSED


@pytest.mark.parametrize("missing", ["gcc", "scratch"])
def test_image_error(missing: str) -> None:
    """An image whose source fails is an error and no verdict, strict or not."""
    engine = FakeEngine(images={missing: ImageError("mirror is down", hint="Wait.")})

    (record,) = run(engine, STATIC)

    assert (record.outcome, record.reason) == (Outcome.ERROR, "mirror is down. Wait.")
    assert (record.verdict, record.cause, record.image) == (None, None, None)


def test_no_build_without_its_image() -> None:
    """A stage whose image could not be had is not built, and the observer hears why."""
    error = ImageError("mirror is down")
    engine, watcher = FakeEngine(images={"gcc": error}), Watcher()

    run(engine, STATIC, watcher=watcher)

    assert engine.calls == [("prepare", "gcc"), ("prepare", "scratch")]
    assert watcher.results["image gcc"] == Failed(error)
    assert watcher.results["build hello-c in gcc"] == Failed(error)


def test_build_failed() -> None:
    """A build that fails is the verdict of every variant of its stage, and of no other."""
    engine = FakeEngine(builds={"gcc": BuildFailed("`cc` ended with 1", log="...", seconds=0.25)})

    records = run(engine, STATIC, STATIC_ALPINE, OTHER_BUILD, expecting(Verdict.FAILS))

    assert [record.outcome for record in records] == [
        Outcome.FAILED,
        Outcome.FAILED,
        Outcome.PASSED,
        Outcome.XFAILED,
    ]
    assert {record.cause for record in records[:2]} == {Cause.BUILD_FAILED}
    blank = replace(records[0], seconds=replace(records[0].seconds, images=0.0))
    assert blank.explanation == blank.reason == "`cc` ended with 1"
    assert blank.seconds == Seconds(images=0.0, build=0.25)
    assert blank.images == (image_used("gcc", Role.BUILD), image_used("scratch", Role.RUN))
    assert blank.build_cached is False
    assert (blank.image, blank.linkage, blank.sizes, blank.smoke) == (None, None, None, None)
    assert engine.calls.count(("build", "gcc: cc static -o /out/hello-c")) == 1


def test_build_error_is_no_verdict() -> None:
    """A build that could not be done for other reasons says nothing about the program."""
    engine = FakeEngine(builds={"gcc": StoreError("disk full", hint="Clean.")})

    (record,) = run(engine, expecting(Verdict.FAILS, Cause.BUILD_FAILED, of=STATIC))

    assert (record.outcome, record.reason) == (Outcome.ERROR, "disk full. Clean.")
    assert (record.verdict, record.build_cached, record.seconds.build) == (None, None, None)


def test_cached_build() -> None:
    """A build that came from the cache says so, with the time that it once took."""

    class Engine(FakeEngine):
        def build(self, stage: BuildStage, image: PreparedImage) -> Build:
            return replace(super().build(stage, image), cached=True, seconds=7.0)

    (record,) = run(Engine(), STATIC)

    assert (record.build_cached, record.seconds.build) == (True, 7.0)


def test_assemble_error() -> None:
    """An image that cannot be put together is an error; what is known of the build stays."""

    class Engine(FakeEngine):
        def assemble(self, plan: Plan, base: PreparedImage, build: Build) -> VariantImage:
            raise StoreError(f"{plan.variant.id} on {base.name}: disk full", hint=build.log)

    (record,) = run(Engine(), STATIC)

    reason = "hello-c(scratch,static) on scratch: disk full"
    assert (record.outcome, record.reason) == (Outcome.ERROR, reason)
    assert (record.verdict, record.image, record.sizes) == (None, None, None)
    assert record.linkage is not None
    assert record.seconds.assemble is None


def test_smoke_error() -> None:
    """A run that could not be set up is an error; the image that was made stays."""
    engine = FakeEngine(seen={"hello-c:gcc-static.scratch": SandboxError("no namespaces")})

    (record,) = run(engine, STATIC)

    assert (record.outcome, record.reason) == (Outcome.ERROR, "no namespaces")
    assert (record.verdict, record.smoke, record.seconds.smoke) == (None, None, None)
    assert record.image is not None
    assert record.sizes == Sizes(binary=100, content=1100, above_base=100)


@pytest.mark.parametrize(
    ("stdout", "stderr", "cut", "truncated"),
    [
        ("x" * OUTPUT_KEPT, "y" * OUTPUT_KEPT, False, False),
        ("x" * OUTPUT_KEPT, "y" * OUTPUT_KEPT, True, True),
        ("x" * (OUTPUT_KEPT + 1), "", False, True),
        ("", "y" * (OUTPUT_KEPT + 1), False, True),
    ],
)
def test_output_is_bounded(stdout: str, stderr: str, cut: bool, truncated: bool) -> None:  # noqa: FBT001
    """A record keeps the beginning of the output, and says when that is not all."""
    seen = Observation(
        started=True,
        exit_code=None,
        stdout=stdout,
        stderr=stderr,
        truncated=cut,
        timed_out=True,
        seconds=1.0,
    )

    (record,) = run(FakeEngine(seen={"hello-c:gcc-static.scratch": seen}), STATIC)

    assert record.cause is Cause.TIMEOUT
    assert record.smoke == SmokeSeen(
        exit_code=None,
        signal=None,
        stdout=stdout[:OUTPUT_KEPT],
        stderr=stderr[:OUTPUT_KEPT],
        truncated=truncated,
        timed_out=True,
    )


def test_keeps_going() -> None:
    """Without --fail-fast a failure keeps nothing from being run."""
    engine = FakeEngine(seen={"hello-c:gcc-static.scratch": FAILING})

    records = run(engine, STATIC, STATIC_ALPINE)

    assert [record.outcome for record in records] == [Outcome.FAILED, Outcome.PASSED]


def test_fail_fast() -> None:
    """After the first bad outcome nothing begins, and what never began is recorded as skipped."""
    engine, watcher = FakeEngine(seen={"hello-c:gcc-static.alpine": FAILING}), Watcher()
    variants = (STATIC, STATIC_ALPINE, DYNAMIC, STATIC_GCC, OTHER_BUILD)

    records = run(engine, *variants, watcher=watcher, fail_fast=True)

    assert [record.variant for record in records] == [each.id for each in variants]
    assert [record.outcome for record in records[:2]] == [Outcome.PASSED, Outcome.FAILED]
    never = [record for record in records if record.outcome is Outcome.SKIPPED]
    assert len(never) == 3
    assert {record.reason for record in never} == {
        "not started: an earlier variant went wrong, and --fail-fast was given"
    }
    assert {(record.verdict, record.images, record.image) for record in never} == {(None, (), None)}
    assert {record.run_id for record in never} == {CONTEXT.run_id}
    assert Counter(record.variant for record in watcher.records) == Counter(
        record.variant for record in records
    )
    assert len([call for call in engine.calls if call[0] == "smoke"]) == 2


def test_fail_fast_leaves_builds_out() -> None:
    """A build that --fail-fast kept from beginning is nobody's record: its variant's is enough."""
    failed = threading.Event()

    class Engine(FakeEngine):
        def prepare(self, image: Image) -> PreparedImage:
            if image.name == "alpine-gcc" and not failed.wait(timeout=20):
                raise AssertionError
            return super().prepare(image)

    class Releasing(Watcher):
        def recorded(self, record: Record) -> None:
            super().recorded(record)
            failed.set()

    engine, watcher = Engine(seen={"hello-c:gcc-static.scratch": FAILING}), Releasing()

    records = run(engine, STATIC, OTHER_BUILD, watcher=watcher, jobs=2, fail_fast=True)

    assert [record.outcome for record in records] == [Outcome.FAILED, Outcome.SKIPPED]
    assert watcher.records == list(records)
    assert "image alpine-gcc" in watcher.results
    assert "build hello-c in alpine-gcc" not in watcher.results


def test_fail_fast_stops_for_bad_outcomes_only() -> None:
    """An expected failure and a skipped variant do not end a --fail-fast run."""
    engine = FakeEngine(
        images={"alpine": ImageUnavailable("no source")},
        seen={"hello-c:gcc-dynamic.scratch": NO_SUCH_FILE},
    )

    records = run(engine, expecting(Verdict.FAILS), STATIC_ALPINE, STATIC_GCC, fail_fast=True)

    assert [record.outcome for record in records] == [
        Outcome.XFAILED,
        Outcome.SKIPPED,
        Outcome.PASSED,
    ]
    assert records[1].reason == "no source"


def test_records_are_in_the_order_of_the_plans() -> None:
    """Records come back in the order of the plans, and are told as soon as they are there."""
    second_is_done = threading.Event()

    class Engine(FakeEngine):
        def smoke(self, image: VariantImage, smoke: Smoke) -> Observation:
            if image.tag.endswith("scratch") and not second_is_done.wait(timeout=20):
                raise AssertionError
            return super().smoke(image, smoke)

    class Releasing(Watcher):
        def recorded(self, record: Record) -> None:
            super().recorded(record)
            second_is_done.set()

    watcher = Releasing()

    records = run(Engine(), STATIC, STATIC_ALPINE, watcher=watcher, jobs=2)

    assert [record.run_image for record in records] == ["scratch", "alpine"]
    assert [record.run_image for record in watcher.records] == ["alpine", "scratch"]


def test_observer_is_told_everything() -> None:
    """Every task is announced before its result, all from the thread that runs the graph."""
    watcher = Watcher()

    records = run(FakeEngine(), STATIC, watcher=watcher)

    assert watcher.started_tasks == [
        "image gcc",
        "image scratch",
        "build hello-c in gcc",
        "variant hello-c(scratch,static)",
    ]
    assert [type(result) for result in watcher.results.values()] == [Timed, Timed, Build]
    assert tuple(watcher.records) == records
    assert watcher.threads == {threading.get_ident()}


def test_nothing_to_do() -> None:
    """An empty selection has no records."""
    assert run(FakeEngine()) == ()


@pytest.mark.parametrize("moment", ["started", "finished", "recorded"])
def test_interrupt(moment: str) -> None:
    """Ctrl-C at any moment cancels the engine, and is not swallowed."""

    class Interrupting(Watcher):
        def started(self, task: Task) -> None:
            super().started(task)
            self._interrupt("started")

        def finished(self, task: Task, result: object) -> None:
            super().finished(task, result)
            self._interrupt("finished")

        def recorded(self, record: Record) -> None:
            super().recorded(record)
            self._interrupt("recorded")

        def _interrupt(self, now: str) -> None:
            if now == moment:
                raise KeyboardInterrupt

    engine = FakeEngine()

    with pytest.raises(KeyboardInterrupt):
        run(engine, STATIC, STATIC_ALPINE, STATIC_GCC, watcher=Interrupting())

    assert engine.cancelled.is_set()
    # The second variant has begun by the time the first one's record is told.
    later = "gcc" if moment == "recorded" else "alpine"
    assert ("smoke", f"hello-c:gcc-static.{later}") not in engine.calls


def test_engine_is_not_cancelled_without_need() -> None:
    """A run that ends by itself leaves the engine usable, whatever its outcomes."""
    engine = FakeEngine(builds={"gcc": BuildFailed("no")})

    run(engine, STATIC)

    assert not engine.cancelled.is_set()


def test_engine_with_a_bug() -> None:
    """An engine that raises what it must not, or gives back no build, ends the run as a bug."""

    class Raising(FakeEngine):
        def build(self, stage: BuildStage, image: PreparedImage) -> Build:
            raise ZeroDivisionError(stage, image)

    class Wrong(FakeEngine):
        def build(self, stage: BuildStage, image: PreparedImage) -> Build:
            super().build(stage, image)
            return cast("Build", "built")

    for engine, error in ((Raising(), ZeroDivisionError), (Wrong(), TypeError)):
        with pytest.raises(error):
            run(engine, STATIC)
        assert engine.cancelled.is_set()
    with pytest.raises(TypeError, match="no image"):
        runner._prepared("no image")


def test_task_names() -> None:
    """Tasks are named as users know them; another kind of task is a bug."""
    (plan,) = make_plans(SETTINGS, [STATIC])

    assert Task(Step.IMAGE, plan.run.image).name == "scratch"
    assert Task(Step.BUILD, plan.build).name == "hello-c in gcc"
    assert Task(Step.VARIANT, plan).name == "hello-c(scratch,static)"
    with pytest.raises(AssertionError, match="unreachable"):
        _ = Task(Step.IMAGE, cast("Any", Path())).name


def test_fake_engine_is_known_as_one() -> None:
    """The fake engine has a version that no real one has, and starts nothing once cancelled."""
    engine = FakeEngine()

    assert engine.probe() == EngineInfo(name=EngineName.EMBEDDED, version="0-fake")
    assert run(engine, STATIC)[0].outcome is Outcome.PASSED
    engine.cancel()
    assert engine.cancelled.is_set()
    assert run(engine, STATIC)[0].outcome is Outcome.ERROR


def test_fake_engine_builds_once() -> None:
    """What the fake engine has built before comes from its cache."""
    engine = FakeEngine()

    assert [run(engine, STATIC)[0].build_cached for _ in range(2)] == [False, True]
