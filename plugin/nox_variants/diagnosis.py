"""Why a variant works or fails. Pure: what was seen in, a judgement with its reason out.

What a program prints is untrusted: it is quoted, escaped and shortened before it gets into a
sentence.
"""

from __future__ import annotations

import re
import signal
from typing import TYPE_CHECKING

from nox_variants.model import Cause, Verdict
from nox_variants.results import Finding, Linkage, Outcome

if TYPE_CHECKING:
    from nox_variants.errors import BuildFailed
    from nox_variants.model import Expected, Smoke
    from nox_variants.results import ElfFacts, Observation, RootFacts

NOT_FOUND = 127
"""The exit code of a loader that lacks a library (and of a shell that lacks a command)."""

_QUOTED = 60
_SEARCHED = 65536
_MISSING_LIBRARY = re.compile(
    r"error while loading shared libraries: ([^\s:]{1,255}): cannot open"  # glibc, elf/dl-load.c
    r"|Error loading shared library ([^\s:]{1,255}):"  # musl, ldso/dynlink.c
)
_SIBLINGS = {"x86_64": "i686", "aarch64": "arm", "ppc64le": "ppc64", "mips64": "mips"}
"""Machines whose kernels often run another machine's programs too."""


def needs_root(seen: Observation) -> bool:
    """Tell whether judging takes facts of the root filesystem: only some failures do."""
    return not seen.started or seen.exit_code == NOT_FOUND


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
    """Judge one smoke run; the first cause that applies is the cause.

    Args:
        facts: What the artifact says about itself.
        root: What the run image offers; None when :func:`needs_root` said no.
        seen: What was seen.
        smoke: What was expected, and the limits.
        platform_machine: The machine that ran it, in ``uname -m`` words.
        run_image: The run image's name, for the sentence.
        cmd: The image's command.
    """
    stopped = _stopped(seen, smoke)
    if stopped:
        return stopped
    if not seen.started:
        reason = _unfit(facts, root, _machine(platform_machine), run_image)
        return reason or _not_executable(seen, run_image, cmd)
    return (
        _missing_library(root, seen, run_image)
        or _ended_badly(seen, smoke)
        or _wrong_output(seen, smoke)
        or Finding(verdict=Verdict.WORKS)
    )


def judge_build_failure(error: BuildFailed) -> Finding:
    """Return the finding for every variant that needed a failed build stage."""
    return _fails(Cause.BUILD_FAILED, error.message)


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
    cause = f" with {expected.cause}" if expected.cause else ""
    return f"{where} expects it to fail{cause}"


def _stopped(seen: Observation, smoke: Smoke) -> Finding | None:
    """Return the finding for a run that one of its limits ended."""
    if seen.timed_out:
        return _fails(Cause.TIMEOUT, f"did not end within {smoke.timeout:g} s")
    if seen.process_limit:
        return _fails(Cause.PROCESS_LIMIT, f"had more than {smoke.processes} processes and threads")
    if seen.out_of_memory:
        return _fails(Cause.OUT_OF_MEMORY, f"took more than {smoke.memory / 1e6:g} MB of memory")
    return None


def _unfit(facts: ElfFacts, root: RootFacts | None, machine: str, run_image: str) -> Finding | None:
    """Return why a program that did not start could not, as far as file and root tell."""
    foreign = bool(facts.machine) and facts.machine != machine
    if foreign and facts.machine != _SIBLINGS.get(machine):
        return _wrong_architecture(facts, machine)
    if root is not None and facts.interpreter not in {"", *root.loaders, *root.interpreters}:
        return _missing_interpreter(facts, run_image)
    return _wrong_architecture(facts, machine) if foreign else None


def _machine(word: str) -> str:
    """Return a word of ``uname -m``, or of Docker, as :class:`ElfFacts` has it."""
    if word.startswith("arm") and word != "arm64":
        return "arm"
    if re.fullmatch("i?[3-6]86", word):
        return "i686"
    return {"arm64": "aarch64", "amd64": "x86_64"}.get(word, word)


def _wrong_architecture(facts: ElfFacts, machine: str) -> Finding:
    return _fails(
        Cause.WRONG_ARCHITECTURE, f"is built for {facts.machine}, and this machine is {machine}"
    )


def _missing_interpreter(facts: ElfFacts, run_image: str) -> Finding:
    path = _plain(facts.interpreter)
    if facts.linkage is Linkage.SCRIPT:
        return _fails(
            Cause.NOT_EXECUTABLE,
            f"is a script for {path}, which {run_image} does not have: "
            "run it in an image that has it",
        )
    libc = {Linkage.GLIBC_DYNAMIC: "with glibc", Linkage.MUSL_DYNAMIC: "with musl"}
    return _fails(
        Cause.MISSING_LOADER,
        f"needs the loader {path}, which {run_image} does not have: "
        f"link it statically, or run it in an image {libc.get(facts.linkage, 'that has it')}",
    )


def _not_executable(seen: Observation, run_image: str, cmd: tuple[str, ...]) -> Finding:
    program = quote(cmd[0]) if cmd else "an image without a command"
    said = f": {quote(seen.exec_error)}" if seen.exec_error else ""
    return _fails(Cause.NOT_EXECUTABLE, f"{program} cannot be executed in {run_image}{said}")


def _missing_library(root: RootFacts | None, seen: Observation, run_image: str) -> Finding | None:
    """Believe the loader's words only when the root agrees: any program may print them."""
    found = _MISSING_LIBRARY.search(seen.stderr[:_SEARCHED])
    if seen.exit_code != NOT_FOUND or root is None or not found:
        return None
    name = found[1] or found[2]
    if name in root.libraries:
        return None
    return _fails(
        Cause.MISSING_LIBRARY,
        f"needs the library {_plain(name)}, which {run_image} does not have: "
        "link it statically, or run it in an image that has it",
    )


def _ended_badly(seen: Observation, smoke: Smoke) -> Finding | None:
    if seen.exit_code == smoke.exit_code:
        return None
    if seen.signal is not None:
        return _fails(
            Cause.KILLED_BY_SIGNAL, f"was killed by {_signal(seen.signal)}{_last_words(seen)}"
        )
    return _fails(
        Cause.EXIT_CODE,
        f"ended with exit code {seen.exit_code}, not {smoke.exit_code}{_last_words(seen)}",
    )


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _last_words(seen: Observation) -> str:
    lines = seen.stderr[-_SEARCHED:].strip().splitlines()
    return f"; the last line of standard error is {quote(lines[-1])}" if lines else ""


def _wrong_output(seen: Observation, smoke: Smoke) -> Finding | None:
    if smoke.stdout is not None and seen.stdout != smoke.stdout:
        return _fails(Cause.WRONG_OUTPUT, _difference(seen.stdout, smoke.stdout))
    # The pattern is the user's own, and may backtrack: what it is tried on is bounded.
    if smoke.matches is not None and not re.search(smoke.matches, seen.stdout[:_SEARCHED]):
        return _fails(
            Cause.WRONG_OUTPUT,
            f"printed {quote(seen.stdout)}, in which {quote(smoke.matches)} does not match",
        )
    return None


def _difference(got: str, expected: str) -> str:
    """Return a little of two texts, from where they part."""
    pairs = enumerate(zip(got, expected, strict=False))
    at = next((n for n, (one, other) in pairs if one != other), min(len(got), len(expected)))
    begin = max(0, at - _QUOTED // 3)
    where = f" from line {expected.count(chr(10), 0, begin) + 1} on" if begin else ""
    return f"printed {quote(got[begin:])}, not {quote(expected[begin:])}{where}"


def quote(text: str) -> str:
    """Return untrusted text in quotes, shortened, with control characters escaped."""
    return repr(text) if len(text) <= _QUOTED else f"{text[:_QUOTED]!r}..."


def _plain(name: str) -> str:
    return name if name.isprintable() and len(name) <= 255 else quote(name)  # noqa: PLR2004  # NAME_MAX


def _fails(cause: Cause, explanation: str) -> Finding:
    return Finding(verdict=Verdict.FAILS, cause=cause, explanation=explanation)
