"""Plans and an engine make records: the graph, what failures mean, timing.

The graph has three kinds of tasks: an image, a build stage (needs its image), a variant (needs
its build stage and its run image). Equal images and equal stages are one task.
"""

from __future__ import annotations

import functools
import time
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol, assert_never

from nox_variants import diagnosis, graph, linkage, repetition
from nox_variants.errors import BuildFailed, ImageUnavailable, VariantsError
from nox_variants.model import Expected, Image
from nox_variants.plan import BuildStage, Plan
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
from nox_variants.results import Build, Outcome, PreparedImage, Role
from nox_variants.subject import Subject, program_of

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from nox_variants.engines.protocol import Engine
    from nox_variants.repetition import Repeated
    from nox_variants.results import EngineInfo, FileFacts, Finding, VariantImage


class Step(StrEnum):
    """What a task does."""

    IMAGE = "image"
    BUILD = "build"
    VARIANT = "variant"


@dataclass(frozen=True, slots=True)
class Task:
    """A task of the graph: what it does, and to which value."""

    step: Step
    value: Image | BuildStage | Plan

    @property
    def name(self) -> str:
        """The task in a user's words: an image's name, a stage's program and image, an id."""
        match self.value:
            case Image():
                return self.value.name
            case BuildStage():
                return f"{self.value.source.name} in {self.value.image.name}"
            case Plan():
                return self.value.variant.id
            case _:
                assert_never(self.value)


class Observer(Protocol):
    """Who is told how the run goes: always from the thread that called :func:`run`."""

    def started(self, task: Task) -> None:
        """Take note that a task has begun."""

    def finished(self, task: Task, result: object) -> None:
        """Take note of an image, a build or a failure."""

    def recorded(self, record: Record) -> None:
        """Take note of a variant's record."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunContext:
    """What every record of a run has in common.

    Attributes:
        run_id: Sorts by time.
        platform: ``linux/amd64``.
        machine: The same in ``uname -m`` words.
        engine: The engine in use.
        git_commit: Of the file's folder, or None.
        tools: Versions, by tool.
        clock: The current time, aware, in UTC.
    """

    run_id: str
    platform: str
    machine: str
    engine: EngineInfo
    git_commit: str | None
    tools: Mapping[str, str]
    clock: Callable[[], dt.datetime]


def run(
    plans: Sequence[Plan],
    engine: Engine,
    context: RunContext,
    observer: Observer,
    *,
    jobs: int,
    fail_fast: bool = False,
    strict: bool = False,
    hold: Callable[[Plan, Record], Record] = lambda _, record: record,
) -> tuple[Record, ...]:
    """Build, smoke-run and judge every plan; keep going after failures.

    Args:
        plans: The variants, in the order of the result.
        engine: What does it.
        context: What the records have in common.
        observer: Who is told.
        jobs: How many tasks run at once.
        fail_fast: Whether to begin nothing new after the first bad outcome. What never began is
            recorded as skipped.
        strict: Whether a skipped variant is an error.
        hold: Holds a record against what the plan's variant may measure; from this thread.

    Returns:
        One record per plan.
    """
    variants = _Variants(engine, context, strict=strict)
    records: dict[str, Record] = {}

    def settled(task: Task, result: object) -> bool:
        if not isinstance(result, Record) or not isinstance(task.value, Plan):
            return True
        record = records[result.variant] = hold(task.value, result)
        return not (fail_fast and record.outcome.bad)

    def finished(task: Task, result: object) -> None:
        if isinstance(result, Record):
            observer.recorded(records[result.variant])
        else:
            observer.finished(task, result)

    never = graph.execute(
        _nodes(plans, engine, variants),
        jobs=jobs,
        started=observer.started,
        settled=settled,
        finished=finished,
        cancel=engine.cancel,
    )
    for task in never:
        if isinstance(task.value, Plan):
            record = variants.never_begun(task.value)
            records[record.variant] = record
            observer.recorded(record)
    return tuple(records[plan.variant.id] for plan in plans)


def _nodes(plans: Iterable[Plan], engine: Engine, variants: _Variants) -> list[graph.Node[Task]]:
    nodes: dict[Task, graph.Node[Task]] = {}

    def image_task(image: Image) -> Task:
        task = Task(Step.IMAGE, image)
        if task not in nodes:
            nodes[task] = graph.Node(
                key=task, needs=(), work=lambda _: _timed(lambda: engine.prepare(image))
            )
        return task

    def build_task(stage: BuildStage) -> Task:
        task, needs = Task(Step.BUILD, stage), image_task(stage.image)
        if task not in nodes:
            nodes[task] = graph.Node(
                key=task,
                needs=(needs,),
                work=lambda results: engine.build(stage, _prepared(results[needs]).value),
            )
        return task

    for plan in plans:
        task = Task(Step.VARIANT, plan)
        nodes[task] = graph.Node(
            key=task,
            needs=(build_task(plan.build), image_task(plan.run.image)),
            work=functools.partial(variants.record, plan),
        )
    return list(nodes.values())


@dataclass(frozen=True, slots=True)
class Timed:
    """A prepared image and the wall time it took to have it."""

    value: PreparedImage
    seconds: float


def _timed(work: Callable[[], PreparedImage]) -> Timed:
    begin = time.perf_counter()
    value = work()
    return Timed(value, time.perf_counter() - begin)


def _prepared(result: object) -> Timed:
    """Return a prepared image, or raise what kept it from being prepared."""
    if isinstance(result, graph.Failed):
        raise result.error
    if not isinstance(result, Timed):
        raise TypeError(result)
    return result


class _Variants:
    """Turns what became of a variant's tasks into its record."""

    def __init__(self, engine: Engine, context: RunContext, *, strict: bool) -> None:
        self._engine = engine
        self._context = context
        self._strict = strict

    def record(self, plan: Plan, results: Mapping[Task, object]) -> Record:
        """Assemble, smoke-run and judge a variant whose images and build are settled."""
        wanted = ((Role.BUILD, plan.build.image), (Role.RUN, plan.run.image))
        answers = [(role, results[Task(Step.IMAGE, image)]) for role, image in wanted]
        had = [(role, answer) for role, answer in answers if isinstance(answer, Timed)]
        seconds = Seconds(images=sum(each.seconds for each in dict.fromkeys(x for _, x in had)))
        images = tuple(_image_used(role, each.value) for role, each in had)
        blank = replace(self._blank(plan), images=images, seconds=seconds)
        try:
            _, base = (_prepared(answer) for _, answer in answers)
        except ImageUnavailable as error:
            return self._skipped(blank, str(error))
        except VariantsError as error:
            return replace(blank, outcome=Outcome.ERROR, reason=str(error))
        build = results[Task(Step.BUILD, plan.build)]
        if isinstance(build, graph.Failed):
            return _without_build(blank, plan.variant.expected, build.error)
        if not isinstance(build, Build):
            raise TypeError(build)
        return self._built(plan, base.value, build, blank)

    def never_begun(self, plan: Plan) -> Record:
        """Return the record of a variant that `--fail-fast` kept from beginning."""
        reason = "not started: an earlier variant went wrong, and --fail-fast was given"
        return replace(self._blank(plan), outcome=Outcome.SKIPPED, reason=reason)

    def _skipped(self, blank: Record, reason: str) -> Record:
        outcome = Outcome.ERROR if self._strict else Outcome.SKIPPED
        return replace(blank, outcome=outcome, reason=reason)

    def _built(self, plan: Plan, base: PreparedImage, build: Build, blank: Record) -> Record:
        blank = replace(
            blank,
            linkage=_linkage_seen(plan, build.artifacts[0].facts),
            build_cached=build.cached,
            seconds=replace(blank.seconds, build=build.seconds),
        )
        try:
            begin = time.perf_counter()
            image = self._engine.assemble(plan, base, build)
            seconds = replace(blank.seconds, assemble=time.perf_counter() - begin)
            blank = replace(blank, image=_image_made(image), sizes=image.sizes, seconds=seconds)
            subject = self._subject(plan, build, image)
            predicted = diagnosis.predict(subject)
            blank = replace(
                blank,
                linkage=_linkage_seen(plan, _run_by(plan, subject) or subject.artifact),
                predicted=Judgement(verdict=predicted.verdict, cause=predicted.cause),
                shell=subject.root.shell,
            )
            smoked = repetition.repeat(
                plan.smoke.repeat,
                lambda: self._engine.smoke(image, plan.smoke),
                lambda seen: diagnosis.judge(subject, seen),
            )
        except BuildFailed as error:  # of a command that the run stage has
            finding = diagnosis.judge_install_failure(error)
            return _judged(blank, plan.variant.expected, finding, None)
        except VariantsError as error:
            return replace(blank, outcome=Outcome.ERROR, reason=str(error))
        seconds, finding = replace(blank.seconds, smoke=smoked.seen.seconds), smoked.finding
        blank = replace(blank, smoke=_smoke_seen(smoked), seconds=seconds)
        blank = replace(blank, contradiction=diagnosis.contradiction(predicted, finding) or "")
        return _judged(blank, plan.variant.expected, finding, linkage.mismatches(plan, build))

    def _subject(self, plan: Plan, build: Build, image: VariantImage) -> Subject:
        return Subject(
            facts=self._engine.inspect(image),
            artifact=build.artifacts[0].facts,
            smoke=plan.smoke,
            machine=self._context.machine,
            run_image=plan.variant.run_image,
            cmd=image.argv,
            user=image.user,
        )

    def _blank(self, plan: Plan) -> Record:
        variant, context = plan.variant, self._context
        return Record(
            run_id=context.run_id,
            variant=variant.id,
            program=variant.program,
            language=variant.language,
            build_image=variant.build_image,
            run_image=variant.run_image,
            link=variant.link,
            libs=variant.libs,
            platform=context.platform,
            engine=EngineUsed(name=context.engine.name, version=context.engine.version),
            started_at=context.clock().isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            git_commit=context.git_commit,
            expected=Judgement(verdict=variant.expected.verdict, cause=variant.expected.cause),
            outcome=Outcome.ERROR,
            tools=dict(context.tools),
        )


def _without_build(blank: Record, expected: Expected, error: VariantsError) -> Record:
    """Return the record of a variant whose build stage gave nothing."""
    if not isinstance(error, BuildFailed):
        return replace(blank, outcome=Outcome.ERROR, reason=str(error))
    blank = replace(blank, build_cached=False, seconds=replace(blank.seconds, build=error.seconds))
    return _judged(blank, expected, diagnosis.judge_build_failure(error), None)


def _judged(blank: Record, expected: Expected, finding: Finding, mismatch: str | None) -> Record:
    outcome, reason = diagnosis.outcome(expected, finding, mismatch)
    return replace(
        blank,
        verdict=finding.verdict,
        cause=finding.cause,
        explanation=finding.explanation,
        outcome=outcome,
        reason=reason,
    )


def _image_used(role: Role, image: PreparedImage) -> ImageUsed:
    return ImageUsed(
        name=image.name,
        role=role,
        source=image.kind,
        reference=image.reference,
        digest=image.digest,
        stand_in=image.stand_in,
        packages=image.packages,
        pinned=image.pinned,
    )


def _image_made(image: VariantImage) -> ImageMade:
    return ImageMade(config_digest=image.config_digest, tag=image.tag, path=image.path)


def _run_by(plan: Plan, subject: Subject) -> FileFacts | None:
    """Return what runs an artifact that does not start itself; None where it does."""
    return program_of(subject) if plan.language.cmd else None


def _linkage_seen(plan: Plan, facts: FileFacts) -> LinkageSeen:
    return LinkageSeen(
        requested=plan.variant.link,
        actual=facts.linkage,
        interpreter=facts.interpreter,
        needed=facts.needed,
        glibc=facts.glibc,
        compiler=facts.compiler,
    )


def _smoke_seen(smoked: Repeated) -> SmokeSeen:
    seen, startup = smoked.seen, smoked.startup
    kept = (seen.stdout[:OUTPUT_KEPT], seen.stderr[:OUTPUT_KEPT])
    return SmokeSeen(
        exit_code=seen.exit_code,
        signal=seen.signal,
        stdout=kept[0],
        stderr=kept[1],
        truncated=seen.truncated or kept != (seen.stdout, seen.stderr),
        timed_out=seen.timed_out,
        service=seen.service and replace(seen.service, body=seen.service.body[:OUTPUT_KEPT]),
        runs=smoked.runs,
        startup_ms=None if startup is None else round(startup * 1000, 3),
        peak_memory=smoked.peak_memory,
    )
