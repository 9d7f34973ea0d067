"""Observations to findings: does it work, and if not, why. Pure; facts in, sentences out."""

from __future__ import annotations

import re
import signal
from typing import TYPE_CHECKING

from nox_variants.model import Cause, Expected, Finding, Linkage, Outcome, Verdict

if TYPE_CHECKING:
    from nox_variants.errors import BuildFailed
    from nox_variants.model import ElfFacts, Observation, RootFacts, Smoke

_LOADER_EXIT_CODE = 127
_QUOTED = 60
_MATCHED = 65536

_MISSING_LIBRARY = (
    re.compile(r"error while loading shared libraries: ([^:\s]{1,200}): cannot open shared object"),
    re.compile(r"Error loading shared library ([^:\s]{1,200}):"),
)
"""What the loaders of glibc and of musl say."""


def needs_root(seen: Observation) -> bool:
    """Tell whether judging takes facts of the root filesystem: only for some failures."""
    return not seen.started or seen.exit_code == _LOADER_EXIT_CODE


def judge(
    *,
    facts: ElfFacts,
    root: RootFacts | None,
    seen: Observation,
    smoke: Smoke,
    platform_machine: str,
    run_image: str,
    cmd: tuple[str, ...],
) -> Finding:
    """Return the verdict of a smoke run, with its cause.

    Args:
        facts: Of the artifact.
        root: Of the run image, where :func:`needs_root` says so.
        seen: What was observed.
        smoke: What was expected, and the limits.
        platform_machine: The machine that ran it, in ``uname -m`` words.
        run_image: Its name, for the sentence.
        cmd: The image's command.
    """
    return (
        _limit(seen, smoke)
        or _not_started(facts, root, seen, platform_machine, run_image, cmd)
        or _missing_library(facts, root, seen, run_image)
        or _ended_badly(seen, smoke)
        or _wrong_output(seen, smoke)
        or Finding(verdict=Verdict.WORKS)
    )


def _fails(cause: Cause, explanation: str) -> Finding:
    return Finding(verdict=Verdict.FAILS, cause=cause, explanation=explanation)


def _limit(seen: Observation, smoke: Smoke) -> Finding | None:
    if seen.timed_out:
        return _fails(Cause.TIMEOUT, f"did not end within {smoke.timeout:g} s")
    if seen.process_limit:
        return _fails(Cause.PROCESS_LIMIT, f"had more than {smoke.processes} processes and threads")
    if seen.out_of_memory:
        return _fails(Cause.OUT_OF_MEMORY, f"took more than {smoke.memory / 1e6:g} MB of memory")
    return None


def _not_started(
    facts: ElfFacts,
    root: RootFacts | None,
    seen: Observation,
    machine: str,
    run_image: str,
    cmd: tuple[str, ...],
) -> Finding | None:
    if seen.started:
        return None
    if facts.machine and facts.machine != machine:
        return _fails(
            Cause.WRONG_ARCHITECTURE, f"is built for {facts.machine}, and this machine is {machine}"
        )
    missing = (
        bool(facts.interpreter) and root is not None and facts.interpreter not in root.interpreters
    )
    if missing and facts.linkage is Linkage.SCRIPT:
        return _fails(
            Cause.NOT_EXECUTABLE,
            f"is a script for {quote(facts.interpreter)}, which {run_image} does not have",
        )
    if missing:
        return _fails(Cause.MISSING_LOADER, _missing_loader(facts, run_image))
    return _fails(
        Cause.NOT_EXECUTABLE, f"{quote(' '.join(cmd))} cannot be executed: {quote(seen.exec_error)}"
    )


def _missing_loader(facts: ElfFacts, run_image: str) -> str:
    libc = {Linkage.GLIBC_DYNAMIC: "glibc", Linkage.MUSL_DYNAMIC: "musl"}.get(
        facts.linkage, "that loader"
    )
    return (
        f"needs the loader {facts.interpreter}, which {run_image} does not have: "
        f"link it statically, or run it in an image with {libc}"
    )


def _missing_library(
    facts: ElfFacts, root: RootFacts | None, seen: Observation, run_image: str
) -> Finding | None:
    if seen.exit_code != _LOADER_EXIT_CODE or root is None or not facts.needed:
        return None
    for pattern in _MISSING_LIBRARY:
        found = pattern.search(seen.stderr)
        if found and found.group(1) not in root.libraries:
            return _fails(
                Cause.MISSING_LIBRARY,
                f"needs the library {quote(found.group(1))}, which {run_image} does not have: "
                "link it statically, or run it in an image that has it",
            )
    return None


def _ended_badly(seen: Observation, smoke: Smoke) -> Finding | None:
    if seen.exit_code == smoke.exit_code:
        return None
    if seen.signal is not None:
        return _fails(
            Cause.KILLED_BY_SIGNAL, f"was ended by {_signal_name(seen.signal)}{_last_words(seen)}"
        )
    return _fails(
        Cause.EXIT_CODE,
        f"ended with exit code {seen.exit_code}, not {smoke.exit_code}{_last_words(seen)}",
    )


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _last_words(seen: Observation) -> str:
    lines = seen.stderr.strip().splitlines()
    return f": {quote(lines[-1])}" if lines else ""


def _wrong_output(seen: Observation, smoke: Smoke) -> Finding | None:
    if smoke.stdout is not None and seen.stdout != smoke.stdout:
        return _fails(Cause.WRONG_OUTPUT, _difference(smoke.stdout, seen.stdout))
    if smoke.matches is not None and not re.search(smoke.matches, seen.stdout[:_MATCHED]):
        return _fails(
            Cause.WRONG_OUTPUT,
            f"printed {quote(seen.stdout)}, in which {quote(smoke.matches)} does not match",
        )
    return None


def _difference(expected: str, actual: str) -> str:
    """Return where two outputs part, quoted from there."""
    common = 0
    for one, other in zip(expected, actual, strict=False):
        if one != other:
            break
        common += 1
    start = max(0, common - _QUOTED // 3)
    line = expected.count("\n", 0, common) + 1
    return (
        f"printed {quote(actual[start:])}, not {quote(expected[start:])} (line {line})"
        if start
        else f"printed {quote(actual)}, not {quote(expected)}"
    )


def quote(text: str) -> str:
    """Return untrusted text in quotes, shortened, with control characters escaped."""
    return repr(text if len(text) <= _QUOTED else f"{text[:_QUOTED]}...")


def judge_build_failure(error: BuildFailed) -> Finding:
    """Return the finding for every variant that needed a failed build."""
    return _fails(Cause.BUILD_FAILED, error.message)


def outcome(expected: Expected, finding: Finding, mismatch: str | None) -> tuple[Outcome, str]:
    """Hold a finding against the expectation.

    Args:
        expected: What the file says.
        finding: What was found.
        mismatch: A sentence when the artifact is not linked as asked.

    Returns:
        The outcome, and a sentence where it is bad and the finding alone does not say why.
    """
    if mismatch:
        return Outcome.FAILED, mismatch
    where = f" ({expected.location})" if expected.location else ""
    if finding.verdict is Verdict.WORKS:
        if expected.verdict is Verdict.WORKS:
            return Outcome.PASSED, ""
        return Outcome.XPASSED, f"works, but is expected to fail{where}: correct the expectation"
    if expected.verdict is Verdict.WORKS:
        return Outcome.FAILED, finding.explanation
    if expected.cause in {None, finding.cause}:
        return Outcome.XFAILED, ""
    return (
        Outcome.FAILED,
        f"fails with {finding.cause}, but {expected.cause} is expected{where}: {finding.explanation}",
    )
