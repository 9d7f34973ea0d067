"""Records that several tests start from."""

from __future__ import annotations

import json
from typing import Any

from nox_variants.model import Cause, Digest, LinkMode, SourceKind, Verdict
from nox_variants.record import (
    EngineUsed,
    ImageMade,
    ImageUsed,
    Judgement,
    LinkageSeen,
    Record,
    Seconds,
    SmokeSeen,
    to_text,
)
from nox_variants.results import EngineName, Linkage, Outcome, Role, Sizes

DIGEST = Digest("sha256:" + "1" * 64)

FULL = Record(
    run_id="20261123T200000000000Z-00000000",
    variant="hello-c(scratch,static)",
    program="hello-c",
    language="c",
    build_image="gcc",
    run_image="scratch",
    link=LinkMode.STATIC,
    platform="linux/amd64",
    engine=EngineUsed(name=EngineName.EMBEDDED, version="0.11.0"),
    started_at="2026-11-23T20:00:00.000Z",
    git_commit="0" * 40,
    images=(
        ImageUsed(
            name="gcc",
            role=Role.BUILD,
            source=SourceKind.APT,
            reference="gcc libc6-dev",
            digest=DIGEST,
            stand_in=True,
            packages=("gcc=4:12.2.0-3", "libc6=2.36-9"),
        ),
    ),
    image=ImageMade(
        config_digest=DIGEST, tag="hello-c:gcc-static.scratch", path=".variants/images/x"
    ),
    verdict=Verdict.FAILS,
    cause=Cause.EXIT_CODE,
    explanation="ended with exit code 3, not 0",
    expected=Judgement(verdict=Verdict.WORKS, cause=None),
    outcome=Outcome.FAILED,
    reason="expected to work",
    linkage=LinkageSeen(
        requested=LinkMode.STATIC, actual=Linkage.STATIC, interpreter="", needed=(), glibc=""
    ),
    sizes=Sizes(binary=767_000, content=767_000, above_base=767_000),
    seconds=Seconds(images=0.1, build=0.2, assemble=0.001, smoke=0.004),
    build_cached=False,
    smoke=SmokeSeen(
        exit_code=3, signal=None, stdout="Hëllo\n", stderr="", truncated=False, timed_out=False
    ),
    tools={"nox_variants": "0.1.0"},
)

SKIPPED = Record(
    run_id=FULL.run_id,
    variant="hello-rust(scratch,musl)",
    program="hello-rust",
    language="rust",
    build_image="alpine-rust",
    run_image="scratch",
    link=LinkMode.MUSL,
    platform="linux/amd64",
    engine=None,
    started_at=FULL.started_at,
    git_commit=None,
    expected=Judgement(verdict=Verdict.WORKS, cause=None),
    outcome=Outcome.SKIPPED,
    reason="no source",
    tools={},
)


def values_of(record: Record) -> dict[str, Any]:
    """Return what a record's JSON says."""
    values: dict[str, Any] = json.loads(to_text(record))
    return values
