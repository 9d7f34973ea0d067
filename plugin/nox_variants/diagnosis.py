"""Why a variant works or fails. Pure: what is known and what was seen in, a finding out.

:func:`predict` says before any run what files alone decide; :func:`judge` says after it what was
seen, and believes a program's words only where the image's files agree with them. Both speak of the
causes in :class:`~nox_variants.model.Cause`, which docs/causes.md describes.
"""

from __future__ import annotations

import re
import signal
from typing import TYPE_CHECKING

from nox_variants.model import Cause, Verdict
from nox_variants.needs import class_version, unmet
from nox_variants.obstacles import (
    no_program,
    not_executable,
    not_loaded,
    not_run_by_env,
    obstacle,
    unloadable,
)
from nox_variants.results import Finding, Outcome
from nox_variants.subject import QUOTED, SEARCHED, fails, last_words, quote

if TYPE_CHECKING:
    from nox_variants.errors import BuildFailed
    from nox_variants.model import Expected, Service, Smoke
    from nox_variants.results import Observation, ServiceSeen
    from nox_variants.subject import Subject

NOT_FOUND = 127
"""The exit code of a loader that lacks a library (and of a shell that lacks a command)."""

DENIED = 126
"""The exit code of ``env`` for what is there and cannot be executed."""

PREDICTABLE = frozenset(
    {
        Cause.MISSING_LOADER,
        Cause.MISSING_LIBRARY,
        Cause.LIBC_TOO_OLD,
        Cause.LIBSTDCXX_TOO_OLD,
        Cause.WRONG_ARCHITECTURE,
        Cause.MISSING_SHELL,
        Cause.MISSING_INTERPRETER,
        Cause.BAD_SHEBANG,
        Cause.NOT_EXECUTABLE,
        Cause.MISSING_CERTIFICATES,
        Cause.MISSING_TIMEZONE_DATA,
        Cause.NAME_RESOLUTION,
        Cause.MISSING_USER,
        Cause.CLASS_VERSION,
    }
)
"""Causes that lie in files. What a program does by itself, nothing predicts."""

_LINE = 100
_CLASS_VERSION = "UnsupportedClassVersionError"
_TOLD = {signal.SIGTERM, signal.SIGKILL}
"""What a server is ended with, when it has answered."""

_READ_ONLY = re.compile(r"read-only file ?system|\bEROFS\b", re.IGNORECASE)


def predict(subject: Subject) -> Finding:
    """Return what is to be expected of a run, as far as files decide it.

    A program that nothing keeps from working is predicted to work: what it then does by itself,
    its exit code and its output, is no matter of files.
    """
    return (
        obstacle(subject)
        or not_run_by_env(subject)
        or unloadable(subject)
        or class_version(subject)
        or unmet(subject)
        or Finding(verdict=Verdict.WORKS)
    )


def contradiction(predicted: Finding, found: Finding) -> str | None:
    """Return a sentence where a prediction was wrong: a defect of ours, never the program's."""
    if found.cause is Cause.BUILD_FAILED:
        return None
    if predicted.verdict is Verdict.WORKS and found.cause not in PREDICTABLE:
        return None
    if predicted.cause is Cause.WRONG_ARCHITECTURE and found.cause not in PREDICTABLE:
        return None  # the kernel has an emulator for it (binfmt_misc)
    if (predicted.verdict, predicted.cause) == (found.verdict, found.cause):
        return None
    said = (str(each.cause or each.verdict) for each in (predicted, found))
    return "predicted was {}, seen was {}: a defect of nox-variants, please report it".format(*said)


def judge(subject: Subject, seen: Observation) -> Finding:
    """Judge one smoke run; the first cause that applies is the cause."""
    stopped = _stopped(seen, subject.smoke)
    if stopped:
        return stopped
    if not seen.started:
        return obstacle(subject) or not_executable(subject, seen)
    ended = not_loaded(subject, seen) or _misused(subject, seen) or no_program(subject, seen)
    if ended:
        return ended
    bad = _served(subject, seen) if subject.smoke.service else _ended_badly(seen, subject.smoke)
    bad = bad or _wrong_output(seen, subject.smoke)
    if bad is None:
        return Finding(verdict=Verdict.WORKS)
    if bad.cause is Cause.KILLED_BY_SIGNAL:
        return bad
    return unmet(subject, seen) or _read_only(seen) or bad


def judge_build_failure(error: BuildFailed) -> Finding:
    """Return the finding for every variant that needed a failed build stage."""
    return fails(Cause.BUILD_FAILED, error.message)


def judge_install_failure(error: BuildFailed) -> Finding:
    """Return the finding for a variant whose run stage failed: its output is shown nowhere else."""
    lines = error.log.strip().splitlines()
    last = f"; the last line of its output is {quote(lines[-1].strip())}" if lines else ""
    return fails(Cause.BUILD_FAILED, f"{error.message}{last}")


def outcome(expected: Expected, finding: Finding, mismatch: str | None) -> tuple[Outcome, str]:
    """Hold a finding against what is expected.

    Args:
        expected: What the file says.
        finding: What came out.
        mismatch: A sentence when the artifact is not linked as asked.

    Returns:
        The outcome, and why it is bad; empty when it is not.
    """
    if mismatch and finding.cause is not Cause.BUILD_FAILED:
        return Outcome.FAILED, mismatch
    if expected.verdict is Verdict.WORKS:
        works = finding.verdict is Verdict.WORKS
        return (Outcome.PASSED, "") if works else (Outcome.FAILED, finding.explanation)
    if finding.verdict is Verdict.WORKS:
        return Outcome.XPASSED, f"works, but {_expectation(expected)}: correct the expectation"
    if expected.cause in {None, finding.cause}:
        return Outcome.XFAILED, ""
    reason = f"fails with {finding.cause}, but {_expectation(expected)}"
    return Outcome.FAILED, f"{reason}: {finding.explanation}"


def _expectation(expected: Expected) -> str:
    where = str(expected.location) if expected.location else "the file"
    if expected.location and expected.location.text:
        where += f" ({expected.location.text[:_LINE]})"
    cause = f" with {expected.cause}" if expected.cause else ""
    return f"{where} expects it to fail{cause}"


def _stopped(seen: Observation, smoke: Smoke) -> Finding | None:
    """Return the finding for a run that one of its limits ended."""
    if seen.timed_out:
        return fails(Cause.TIMEOUT, f"did not end within {smoke.timeout:g} s")
    if seen.process_limit:
        return fails(Cause.PROCESS_LIMIT, f"had more than {smoke.processes} processes and threads")
    if seen.out_of_memory:
        return fails(Cause.OUT_OF_MEMORY, f"took more than {smoke.memory / 1e6:g} MB of memory")
    return None


def _misused(subject: Subject, seen: Observation) -> Finding | None:
    """Return what ``env`` or a Java runtime said no to, where files agree."""
    if not seen.exit_code:
        return None
    if seen.exit_code in {DENIED, NOT_FOUND} and (finding := not_run_by_env(subject)):
        return finding
    return class_version(subject) if _CLASS_VERSION in seen.stderr[:SEARCHED] else None


def _read_only(seen: Observation) -> Finding | None:
    if not _READ_ONLY.search(seen.stderr[-SEARCHED:]):
        return None
    return fails(
        Cause.READ_ONLY_FILESYSTEM,
        "writes where it may not: the root of a smoke run is read-only, /tmp and /dev/shm are not"
        f"{last_words(seen)}",
    )


def _served(subject: Subject, seen: Observation) -> Finding | None:
    """Return what was wrong with a server's answer."""
    service, served = subject.smoke.service, seen.service
    if service is None:
        return None
    if served is None or not served.listened:
        return fails(Cause.NOT_LISTENING, _silent(service, seen, subject.smoke))
    if served.status != service.status:
        return fails(Cause.WRONG_OUTPUT, _answer(service, served))
    if seen.signal is not None and seen.signal not in _TOLD:
        return _ended_badly(seen, subject.smoke)
    return _wrong_body(service, served)


def _wrong_body(service: Service, served: ServiceSeen) -> Finding | None:
    if service.body is not None and served.body != service.body:
        return fails(
            Cause.WRONG_OUTPUT, f"{service.path}: {_difference(served.body, service.body)}"
        )
    if service.matches is not None and not re.search(service.matches, served.body[:SEARCHED]):
        return fails(
            Cause.WRONG_OUTPUT,
            f"{service.path}: answered {quote(served.body)}, in which {quote(service.matches)}"
            " does not match",
        )
    return None


def _silent(service: Service, seen: Observation, smoke: Smoke) -> str:
    what = f"did not listen on port {service.port}"
    if seen.exit_code is None:
        return f"{what} within {smoke.timeout:g} s{last_words(seen)}"
    return f"{what}: it ended with exit code {seen.exit_code}{last_words(seen)}"


def _answer(service: Service, served: ServiceSeen) -> str:
    if served.status:
        return f"{service.path}: answered with status {served.status}, not {service.status}"
    return f"{service.path}: gave no answer: {quote(served.error)}"


def _ended_badly(seen: Observation, smoke: Smoke) -> Finding | None:
    if seen.exit_code == smoke.exit_code:
        return None
    if seen.signal is not None:
        return fails(
            Cause.KILLED_BY_SIGNAL, f"was killed by {_signal(seen.signal)}{last_words(seen)}"
        )
    return fails(
        Cause.EXIT_CODE,
        f"ended with exit code {seen.exit_code}, not {smoke.exit_code}{last_words(seen)}",
    )


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _wrong_output(seen: Observation, smoke: Smoke) -> Finding | None:
    if smoke.stdout is not None and seen.stdout != smoke.stdout:
        return fails(Cause.WRONG_OUTPUT, _difference(seen.stdout, smoke.stdout))
    # The pattern is the user's own, and may backtrack: what it is tried on is bounded.
    if smoke.matches is not None and not re.search(smoke.matches, seen.stdout[:SEARCHED]):
        return fails(
            Cause.WRONG_OUTPUT,
            f"printed {quote(seen.stdout)}, in which {quote(smoke.matches)} does not match",
        )
    return None


def _difference(got: str, expected: str) -> str:
    """Return a little of two texts, from where they part."""
    pairs = enumerate(zip(got, expected, strict=False))
    at = next((n for n, (one, other) in pairs if one != other), min(len(got), len(expected)))
    begin = max(0, at - QUOTED // 3)
    where = f" from line {expected.count(chr(10), 0, begin) + 1} on" if begin else ""
    return f"printed {quote(got[begin:])}, not {quote(expected[begin:])}{where}"
