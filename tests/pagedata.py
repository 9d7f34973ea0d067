"""Records and a history as a project has them after some weeks, for pages that show them."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from nox_variants import compare, trend
from nox_variants.limits import Level, Measure
from nox_variants.model import Cause, Digest, LinkMode, SourceKind, Verdict
from nox_variants.record import (
    Against,
    BudgetCheck,
    EngineUsed,
    ImageMade,
    ImageUsed,
    Judgement,
    LinkageSeen,
    Record,
    Seconds,
    SmokeSeen,
)
from nox_variants.results import EngineName, Linkage, Outcome, Role, Sizes
from nox_variants.trend import Point

if TYPE_CHECKING:
    from nox_variants.compare import Difference

START = datetime(2026, 9, 25, 4, 0, tzinfo=UTC)
HOSTILE = (
    "<script>alert(1)</script>",
    "</script><script>window.pwned=1</script>",
    '"><img src=x onerror="window.pwned=1">',
    "javascript:alert(1)//'\"",
    "<!--<script>",
    "\u2028{{ 7*7 }}\u202e\x00\x1b[31m",
)
"""What must only ever be shown."""

BASES = {
    "ubuntu": 77_900_000,
    "busybox:glibc": 4_120_000,
    "alpine": 7_830_000,
    "scratch": 0,
    "gcc": 1_390_000_000,
    "golang": 838_000_000,
    "distroless/static": 2_060_000,
    "rust": 1_470_000_000,
    "alpine-gcc": 162_000_000,
}
STAND_INS = {"gcc", "alpine-gcc", "alpine"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """A variant, and what usually comes of it."""

    program: str
    run: str
    link: LinkMode
    build: str
    own: int
    cause: Cause | None = None
    only: bool = False

    @property
    def name(self) -> str:
        """Its id."""
        parts = (self.run, str(self.link), *([self.build] if self.only else []))
        return f"{self.program}({','.join(parts)})"


def _shapes() -> tuple[Shape, ...]:
    own = {LinkMode.DYNAMIC: 16_000, LinkMode.STATIC: 762_000, LinkMode.MUSL: 24_700}
    c = [
        Shape(
            program="hello-c",
            run=run,
            link=link,
            build="gcc",
            own=own[link],
            cause=Cause.MISSING_LOADER
            if link is LinkMode.DYNAMIC and run in {"alpine", "scratch"}
            else None,
        )
        for run in ("ubuntu", "busybox:glibc", "alpine", "scratch")
        for link in LinkMode
    ]
    c.append(Shape(program="hello-c", run="gcc", link=LinkMode.DYNAMIC, build="gcc", own=16_000))
    c.append(
        Shape(
            program="hello-c",
            run="alpine",
            link=LinkMode.DYNAMIC,
            build="alpine-gcc",
            own=18_000,
            only=True,
        )
    )
    go = [
        Shape(program="web-go", run=run, link=link, build="golang", own=size)
        for run in ("ubuntu", "distroless/static", "scratch", "golang")
        for link, size in ((LinkMode.DYNAMIC, 8_200_000), (LinkMode.STATIC, 8_100_000))
        if (run, link) != ("golang", LinkMode.STATIC)
    ]
    rust = [
        Shape(program="resolver-rust", run=run, link=link, build="rust", own=size)
        for run in ("ubuntu", "alpine", "scratch")
        for link, size in ((LinkMode.DYNAMIC, 4_480_000), (LinkMode.STATIC, 5_610_000))
    ]
    long = Shape(
        program="a-program-with-a-name-that-is-a-good-deal-longer-than-what-fits-anywhere",
        run="registry.example.org/some/team/base-images/debian-slim-with-certificates",
        link=LinkMode.DYNAMIC,
        build="gcc",
        own=91_000,
    )
    return (*c, *go, *rust, long)


SHAPES = _shapes()


def digest(text: str) -> Digest:
    """Return a digest that is always the same for a text."""
    return Digest(f"sha256:{random.Random(text).getrandbits(256):064x}")  # noqa: S311


def history(runs: int = 60) -> list[tuple[Record, ...]]:
    """Return the records of some runs of all shapes, oldest first."""
    return [tuple(_record(shape, run, runs) for shape in SHAPES) for run in range(runs)]


def shown(runs: int = 60) -> tuple[tuple[Record, ...], list[Point], tuple[Difference, ...]]:
    """Return what a page is made of: the last run's records, all points, and what changed."""
    made = history(runs)
    points = [trend.point(record) for records in made for record in records]
    if runs == 1:
        return made[-1], points, ()
    before, after = (map(compare.side, records) for records in made[-2:])
    return made[-1], points, compare.differences(before, after)


def _record(shape: Shape, run: int, runs: int) -> Record:
    noise = random.Random(f"{shape.name} {run}")  # noqa: S311
    left = runs - 1 - run
    started = START + timedelta(days=run)
    outcome, cause, text, reason = _judged(shape, left)
    base = BASES.get(shape.run, 31_000_000)
    base += 1_240_000 * (left < 25 and shape.run == "ubuntu") + 310_000 * (left == 0 and base > 0)
    own = shape.own + 1_400 * (left < 40) + 52_000 * (left < 8 and shape.program == "web-go")
    lost = outcome in {Outcome.ERROR, Outcome.SKIPPED}
    works = cause is None
    measured = shape.program in {"web-go", "resolver-rust"}
    return Record(
        run_id=f"{started:%Y%m%dT%H%M%S}000000Z-{run:08x}",
        variant=shape.name,
        program=shape.program,
        language=shape.program.rpartition("-")[2] if shape.only or measured else "c",
        build_image=shape.build,
        run_image=shape.run,
        link=shape.link,
        platform="linux/amd64",
        engine=EngineUsed(name=EngineName.EMBEDDED, version="0.11.0"),
        started_at=f"{started:%Y-%m-%dT%H:%M:%S}.000Z",
        git_commit=f"{random.Random(run // 3).getrandbits(160):040x}",  # noqa: S311
        images=tuple(_images(shape, left)),
        image=None
        if lost
        else ImageMade(
            config_digest=digest(f"{shape.name} {left < 8}"),
            tag=f"{shape.program}:{shape.build}-{shape.link}.{shape.run}",
            path=".variants/images/x",
        ),
        verdict=None if lost else Verdict.WORKS if works else Verdict.FAILS,
        cause=cause,
        explanation=text,
        expected=Judgement(
            verdict=Verdict.FAILS if shape.cause else Verdict.WORKS, cause=shape.cause
        ),
        predicted=None
        if lost
        else Judgement(verdict=Verdict.WORKS if works else Verdict.FAILS, cause=cause),
        shell=shape.run != "scratch",
        outcome=outcome,
        reason=reason,
        linkage=_linkage(shape),
        sizes=None
        if lost
        else Sizes(
            binary=own,
            content=base + own,
            above_base=own,
            transfer=int((base + own) * 0.41) if measured else None,
        ),
        seconds=Seconds(
            images=0.01,
            build=round(noise.uniform(0.31, 0.36) * (8 if measured else 1), 4),
            assemble=0.002,
            smoke=round(noise.uniform(0.003, 0.006), 5),
        ),
        build_cached=run % 3 > 0,
        smoke=None if lost else _smoke(shape, cause, measured, noise),
        budget=_budget(base + own) if shape.name == "web-go(scratch,static)" else (),
        tools={"nox_variants": "0.1.0", "python": "3.11.2"},
    )


Said = tuple[Outcome, Cause | None, str, str]
"""Outcome, cause, explanation and reason."""

ODD: dict[str, tuple[set[int], Said]] = {
    "web-go(scratch,dynamic)": (
        {0, 1},
        (
            Outcome.FAILED,
            Cause.MISSING_LIBRARY,
            "needs libresolv.so.2, which scratch does not have",
            "expected to work",
        ),
    ),
    "resolver-rust(alpine,dynamic)": (
        {0, 7, 20, 33, 46},
        (
            Outcome.FAILED,
            Cause.EXIT_CODE,
            "ended with exit code 101, not 0: thread 'main' panicked at src/main.rs:42",
            "expected to work",
        ),
    ),
    "resolver-rust(scratch,dynamic)": (
        set(range(99)),
        (
            Outcome.XPASSED,
            None,
            "",
            "works, and was expected to fail: missing-loader",
        ),
    ),
    "hello-c(ubuntu,musl)": (
        {0, 31},
        (
            Outcome.ERROR,
            None,
            "",
            "ubuntu: the registry did not answer in 60 s",
        ),
    ),
    "hello-c(alpine,dynamic,alpine-gcc)": (
        set(range(99)),
        (
            Outcome.SKIPPED,
            None,
            "",
            "alpine-gcc: no source has it on this machine",
        ),
    ),
}
"""What does not just pass: with how many runs still to come, and what is said then."""


def _judged(shape: Shape, left: int) -> Said:
    """Return what is said of a variant with so many runs still to come."""
    if shape.cause:
        text = (
            "needs the loader /lib64/ld-linux-x86-64.so.2, which"
            f" {shape.run} does not have: link it statically, or build it in alpine-gcc"
        )
        return Outcome.XFAILED, shape.cause, text, ""
    usual: Said = (Outcome.PASSED, None, "", "")
    when, odd = ODD.get(shape.name, ((), usual))
    return odd if left in when else usual


def _images(shape: Shape, left: int) -> list[ImageUsed]:
    changed = left == 0 and shape.run not in {"scratch", "golang"}
    return [
        ImageUsed(
            name=name,
            role=role,
            source=SourceKind.SCRATCH if name == "scratch" else SourceKind.APT,
            reference="" if name == "scratch" else f"{name} libc6",
            digest=digest(f"{name} {role is Role.RUN and changed}"),
            stand_in=name in STAND_INS,
            packages=(
                f"libc6=2.36-9+deb12u{10 + (role is Role.RUN and changed)}",
                f"tzdata=2026{'ab'[role is Role.RUN and changed]}-0",
                *(f"libpart{number}=1.{int(changed)}" for number in range(7)),
            )
            if name != "scratch"
            else (),
        )
        for name, role in ((shape.build, Role.BUILD), (shape.run, Role.RUN))
    ]


def _linkage(shape: Shape) -> LinkageSeen:
    dynamic = shape.link is LinkMode.DYNAMIC
    return LinkageSeen(
        requested=shape.link,
        actual=Linkage.GLIBC_DYNAMIC if dynamic else Linkage.STATIC,
        interpreter="/lib64/ld-linux-x86-64.so.2" if dynamic else "",
        needed=("libc.so.6", "libresolv.so.2") if dynamic else (),
        glibc="2.34" if dynamic else "",
        compiler="GCC: (Debian 12.2.0-14) 12.2.0",
    )


def _smoke(shape: Shape, cause: Cause | None, measured: bool, noise: random.Random) -> SmokeSeen:  # noqa: FBT001
    started = cause in {None, Cause.EXIT_CODE}
    return SmokeSeen(
        exit_code=0 if cause is None else 101 if started else 127,
        signal=None,
        stdout="Hello, world!\n" if started else "",
        stderr="" if cause is None else f"exec /{shape.program}: no such file or directory\n",
        truncated=False,
        timed_out=False,
        runs=5 if measured else 1,
        startup_ms=round(noise.gauss(4.1, 0.3), 3) if measured and cause is None else None,
        peak_memory=noise.randrange(1_700, 1_900) * 4096 if measured else None,
    )


def _budget(content: int) -> tuple[BudgetCheck, ...]:
    text = "size is 8.15 MB, 53.4 kB (0.7%) more than the 8.1 MB of the baseline"
    return (
        BudgetCheck(
            measure=Measure.CONTENT,
            against=Against.LIMIT,
            level=Level.FAIL,
            value=content,
            limit=10_000_000,
        ),
        BudgetCheck(
            measure=Measure.CONTENT,
            against=Against.BASELINE,
            level=Level.WARN,
            value=content,
            limit=8_120_000,
            reference=8_101_400,
            exceeded=True,
            explanation=text,
        ),
        BudgetCheck(
            measure=Measure.STARTUP,
            against=Against.LIMIT,
            level=Level.WARN,
            value=0.0041,
            limit=0.02,
        ),
    )


def hostile() -> tuple[tuple[Record, ...], list[Point], tuple[Difference, ...]]:
    """Return what a page is made of, with something hostile everywhere that text can be."""
    made = history(2)
    pairs = [
        (_poisoned(one, text), _poisoned(two, text))
        for one, two, text in zip(made[0], made[1], HOSTILE * 5, strict=False)
    ]
    records = tuple(two for _, two in pairs)
    points = [trend.point(record) for pair in pairs for record in pair]
    before = [
        replace(compare.side(one), verdict=Verdict.FAILS, cause=Cause.TIMEOUT) for one, _ in pairs
    ]
    after = [replace(compare.side(two), verdict=Verdict.WORKS) for _, two in pairs]
    return records, points, compare.differences(before, after)


def _poisoned(record: Record, text: str) -> Record:
    """Return a record that has a text in every one of its strings."""
    return replace(
        record,
        variant=f"{record.variant}{text}",
        program=f"{record.program}{text}",
        language=text,
        build_image=f"{record.build_image}{text}",
        run_image=f"{record.run_image}{text}",
        platform=text,
        engine=EngineUsed(name=EngineName.EMBEDDED, version=text),
        started_at=f"{record.started_at}{text}",
        git_commit=text,
        images=tuple(
            replace(
                each,
                name=f"{each.name}{text}",
                reference=text,
                digest=Digest(f"{each.digest}{text}"),
                stand_in=True,
                packages=(f"{text}={each.digest}",),
            )
            for each in record.images
        ),
        image=ImageMade(config_digest=Digest(text), tag=text, path=text),
        explanation=text,
        contradiction=text,
        reason=text,
        linkage=LinkageSeen(
            requested=record.link,
            actual=Linkage.OTHER,
            interpreter=text,
            needed=(text,),
            glibc=text,
            compiler=f"{record.run_id}{text}",
        ),
        smoke=SmokeSeen(
            exit_code=1, signal=None, stdout=text, stderr=text, truncated=True, timed_out=True
        ),
        budget=tuple(replace(each, explanation=text) for each in _budget(9_000_000)),
        tools={"nox_variants": text, text: text},
    )


def points(variants: int, runs: int) -> list[Point]:
    """Return the points of a large project: sizes change now and then, times always."""
    noise = random.Random(1)  # noqa: S311
    made = []
    sizes = [noise.randrange(20_000, 90_000_000) for _ in range(variants)]
    for run in range(runs):
        started = START + timedelta(days=run)
        for number in range(variants):
            if noise.random() < 0.1:
                sizes[number] += noise.randrange(-4_000, 9_000)
            made.append(_point(number, sizes[number], run, started, noise))
    return made


def _point(number: int, size: int, run: int, started: datetime, noise: random.Random) -> Point:
    failed = number % 9 == 0 or noise.random() < 0.01
    return Point(
        run_id=f"{started:%Y%m%dT%H%M%S}000000Z-{run:08x}",
        variant=f"program-{number // 20}(image-{number % 20},static)",
        program=f"program-{number // 20}",
        started_at=f"{started:%Y-%m-%dT%H:%M:%S}.000Z",
        platform="linux/amd64",
        source="registry",
        engine=EngineName.EMBEDDED,
        outcome=Outcome.XFAILED if failed else Outcome.PASSED,
        verdict=Verdict.FAILS if failed else Verdict.WORKS,
        cause=Cause.MISSING_LOADER if failed else None,
        content=size + 4_000_000,
        above_base=size,
        binary=size,
        build=noise.gauss(12, 0.4),
        build_cached=run % 4 > 0,
        startup=None if failed else abs(noise.gauss(0.0041, 0.0002)),
        memory=None if failed else noise.randrange(1_500, 1_900) * 4096,
    )


def large(variants: int = 200, runs: int = 365) -> tuple[tuple[Record, ...], list[Point]]:
    """Return what the page of a large project is made of."""
    made = points(variants, runs)
    pattern = history(1)[0]
    return tuple(
        replace(
            pattern[number % 12],
            run_id=point.run_id,
            variant=point.variant,
            program=point.program,
            run_image=f"image-{number % 20}",
            started_at=point.started_at,
        )
        for number, point in enumerate(made[-variants:])
    ), made
