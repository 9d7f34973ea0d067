"""Why a variant works or fails. Pure: what is known and what was seen in, a finding out.

:func:`predict` says before any run what files alone decide; :func:`judge` says after it what was
seen, and believes a program's words only where the image's files agree with them. Both speak of the
causes in :class:`~nox_variants.model.Cause`, which docs/causes.md describes.

What a program prints is untrusted: it is quoted, escaped and shortened before it gets into a
sentence.
"""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nox_variants.model import Cause, Need, Verdict
from nox_variants.plan import SHELL
from nox_variants.results import Finding, Linkage, Outcome

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from nox_variants.errors import BuildFailed
    from nox_variants.model import Expected, Service, Smoke
    from nox_variants.results import (
        FileFacts,
        ImageFacts,
        Library,
        Observation,
        RootFacts,
        ServiceSeen,
        Step,
    )

NOT_FOUND = 127
"""The exit code of a loader that lacks a library (and of a shell that lacks a command)."""

PREDICTABLE = frozenset(
    {
        Cause.MISSING_LOADER,
        Cause.MISSING_LIBRARY,
        Cause.LIBC_TOO_OLD,
        Cause.LIBSTDCXX_TOO_OLD,
        Cause.WRONG_ARCHITECTURE,
        Cause.MISSING_SHELL,
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

DENIED = 126
"""The exit code of ``env`` for what is there and cannot be executed."""

_QUOTED = 60
_LINE = 100
_SEARCHED = 65536
_MISSING_LIBRARY = re.compile(
    r"error while loading shared libraries: ([^\s:]{1,255}): cannot open"  # glibc, elf/dl-load.c
    r"|Error loading shared library ([^\s:]{1,255}):"  # musl, ldso/dynlink.c
)
_NOT_RELOCATED = "Error relocating "  # musl: it takes a library for another machine for one
_MISSING_VERSION = re.compile(
    r"version `([^'\s]{1,255})' not found \(required by"  # glibc, elf/dl-version.c
)
_SIBLINGS = {"x86_64": "i686", "aarch64": "arm", "ppc64le": "ppc64", "mips64": "mips"}
"""Machines whose kernels often run another machine's programs too."""

_CLASS_VERSION = "UnsupportedClassVersionError"
_FEATURE = 44
"""A Java release takes class files up to its number and this one (JVMS, 4.1)."""

_BUILT_IN = (2, 34)
"""The glibc whose libc has the NSS services files and dns in itself (its NEWS)."""

_TOLD = {signal.SIGTERM, signal.SIGKILL}
"""What a server is ended with, when it has answered."""

_READ_ONLY = re.compile(r"read-only file ?system|\bEROFS\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A variant's image and what is asked of it: all that is known before it runs.

    Attributes:
        facts: How its command would start, and what its root has.
        artifact: What the built file says about itself.
        smoke: What is asked of it, and the limits.
        machine: The machine that runs it, in ``uname -m`` words.
        run_image: The run image's name, for sentences.
        cmd: Its command.
    """

    facts: ImageFacts
    artifact: FileFacts
    smoke: Smoke
    machine: str
    run_image: str
    cmd: tuple[str, ...]

    @property
    def root(self) -> RootFacts:
        """What its root has."""
        return self.facts.root

    @property
    def image(self) -> str:
        """The run image in words: ``alpine (musl)``."""
        libc = self.root.libc.partition(" ")[0]
        return f"{self.run_image} ({_plain(libc)})" if libc else self.run_image


def predict(subject: Subject) -> Finding:
    """Return what is to be expected of a run, as far as files decide it.

    A program that nothing keeps from working is predicted to work: what it then does by itself,
    its exit code and its output, is no matter of files.
    """
    return (
        _obstacle(subject)
        or _not_run_by_env(subject)
        or _unloadable(subject)
        or _class_version(subject)
        or _unmet(subject)
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
        return _obstacle(subject) or _not_executable(subject, seen)
    ended = _not_loaded(subject, seen) or _misused(subject, seen) or _no_program(subject, seen)
    if ended:
        return ended
    bad = _served(subject, seen) if subject.smoke.service else _ended_badly(seen, subject.smoke)
    bad = bad or _wrong_output(seen, subject.smoke)
    if bad is None:
        return Finding(verdict=Verdict.WORKS)
    if bad.cause is Cause.KILLED_BY_SIGNAL:
        return bad
    return _unmet(subject, seen) or _read_only(seen) or bad


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
    if expected.location and expected.location.text:
        where += f" ({expected.location.text[:_LINE]})"
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


# --- what keeps the kernel from executing it ------------------------------------------------------


def _obstacle(subject: Subject) -> Finding | None:
    """Return why the kernel cannot execute an image's command."""
    steps = subject.facts.startup.steps
    if not subject.cmd or not steps:
        return None
    executed = _executed(steps)
    for number, step in enumerate(steps[:executed]):
        reason = _unfit(subject, step, _script_before(steps, number))
        if reason:
            return reason
    if _is_script(steps[executed - 1]):
        what = f"the interpreter of {_plain(steps[0].path)} is a script"
        return _fails(Cause.BAD_SHEBANG, f"{what}, and so is that one's, and so on: name a program")
    return _no_loader(subject) if executed == len(steps) else None


def _executed(steps: tuple[Step, ...]) -> int:
    """Return how many of the steps are there when the program starts; ``env`` takes the others."""
    by_env = (
        number
        for number, step in enumerate(steps, 1)
        if number > 1 and step.path.rpartition("/")[2] == "env"
    )
    return next(by_env, len(steps))


def _script_before(steps: tuple[Step, ...], number: int) -> Step | None:
    """Return the script whose first line names a step."""
    return next((each for each in reversed(steps[:number]) if _is_script(each)), None)


def _is_script(step: Step) -> bool:
    return step.facts is not None and step.facts.linkage is Linkage.SCRIPT


def _unfit(subject: Subject, step: Step, script: Step | None) -> Finding | None:
    """Return why a file cannot be executed; `script` is what names it as its interpreter."""
    if step.facts is None:
        return _not_there(subject, step, script)
    if not step.executable:
        what = f"{_plain(step.path)} of {subject.run_image} may not be executed"
        return _fails(Cause.NOT_EXECUTABLE, f"{what}: give it its mode with chmod +x")
    return _foreign(subject, step, step.facts)


def _foreign(subject: Subject, step: Step, facts: FileFacts) -> Finding | None:
    """Return why the kernel does not take a file's form."""
    if facts.linkage is Linkage.SCRIPT:
        if facts.interpreter:
            return None
        what = f"the first line of {_plain(step.path)} names no interpreter"
        return _fails(Cause.BAD_SHEBANG, f"{what}: begin it with #! and a path")
    machine = _machine(subject.machine)
    if facts.machine and facts.machine not in {machine, _SIBLINGS.get(machine)}:
        return _wrong_architecture(facts, machine)
    if facts.linkage is Linkage.OTHER:
        what = f"{_plain(step.path)} is neither a program for this kernel nor a script"
        return _fails(Cause.NOT_EXECUTABLE, f"{what}: a script begins with #! and a path")
    return None


def _not_there(subject: Subject, step: Step, script: Step | None) -> Finding:
    path = _plain(step.path)
    if script is not None:
        return _no_interpreter(subject, step, script)
    if subject.cmd[: len(SHELL)] == SHELL:
        return _fails(
            Cause.MISSING_SHELL,
            f"its command is in shell form, and {subject.image} has no /bin/sh:"
            " write it as a list, or run it in an image with a shell",
        )
    return _fails(Cause.NOT_EXECUTABLE, f"{path} is not there in {subject.image}")


def _no_interpreter(subject: Subject, step: Step, script: Step) -> Finding:
    path = _plain(step.path)
    if step.path.endswith("\r"):
        return _fails(
            Cause.BAD_SHEBANG,
            f"the first line of {_plain(script.path)} ends with a carriage return, and so does the"
            f" interpreter's name, {path}: save the script with Unix line ends",
        )
    return _fails(
        Cause.MISSING_SHELL,
        f"is a script for {path}, which {subject.image} does not have:"
        " run it in an image that has it",
    )


def _no_loader(subject: Subject) -> Finding | None:
    """Return the finding for a dynamic program without its loader."""
    startup, program = subject.facts.startup, _program(subject)
    if startup.loader is None or program is None:
        return None
    path, loader = _plain(startup.loader.path), startup.loader.facts
    if startup.loader.executable and loader is not None:
        if loader.machine == program.machine and loader.linkage is not Linkage.OTHER:
            return None
        what = f"needs {path} as its loader, and the one of {subject.run_image}"
        return _fails(Cause.NOT_EXECUTABLE, f"{what} is no loader for {program.machine}")
    if loader is not None:
        what = f"{path} of {subject.run_image} may not be executed"
        return _fails(Cause.NOT_EXECUTABLE, f"needs it as its loader, and {what}")
    libc = {Linkage.GLIBC_DYNAMIC: "with glibc", Linkage.MUSL_DYNAMIC: "with musl"}
    return _fails(
        Cause.MISSING_LOADER,
        f"needs the loader {path}, which {subject.image} does not have: link it statically, bring"
        f" its libraries (libs: bundle), or run it in an image"
        f" {libc.get(program.linkage, 'that has it')}",
    )


def _machine(word: str) -> str:
    """Return a word of ``uname -m``, or of Docker, as :class:`FileFacts` has it."""
    if word.startswith("arm") and word != "arm64":
        return "arm"
    if re.fullmatch("i?[3-6]86", word):
        return "i686"
    return {"arm64": "aarch64", "amd64": "x86_64"}.get(word, word)


def _wrong_architecture(facts: FileFacts, machine: str) -> Finding:
    return _fails(
        Cause.WRONG_ARCHITECTURE, f"is built for {facts.machine}, and this machine is {machine}"
    )


def _not_executable(subject: Subject, seen: Observation) -> Finding:
    facts, machine = _program(subject), _machine(subject.machine)
    if facts is not None and facts.machine not in {"", machine}:
        return _wrong_architecture(facts, machine)  # this kernel does not run its sibling's either
    program = quote(subject.cmd[0]) if subject.cmd else "an image without a command"
    said = f": {quote(seen.exec_error)}" if seen.exec_error else ""
    return _fails(
        Cause.NOT_EXECUTABLE, f"{program} cannot be executed in {subject.run_image}{said}"
    )


# --- what ends it before its first instruction, in its own name -----------------------------------


def _not_run_by_env(subject: Subject) -> Finding | None:
    """Return why ``env`` cannot execute the interpreter that a script has it look for.

    Not for a form that the kernel does not take: many a shell is tried by ``env`` then.
    """
    steps = subject.facts.startup.steps
    behind = range(_executed(steps), len(steps))
    for number in behind:
        if steps[number].facts is None or not steps[number].executable:
            return _unfit(subject, steps[number], _script_before(steps, number))
    return _no_loader(subject) if behind else None


def _unloadable(subject: Subject) -> Finding | None:
    """Return what the loader does not find: first a library, then a version of one."""
    libraries = subject.facts.startup.libraries
    missing = next((each for each in libraries if not each.path), None)
    if missing:
        return _missing_library(subject, missing)
    versions = [(each, version) for each in libraries for version in each.undefined]
    return _missing_version(subject, versions)


def _missing_library(subject: Subject, library: Library) -> Finding:
    own = subject.facts.startup.steps[-1].path
    by = "" if library.needed_by == own else f" for {_plain(library.needed_by)}"
    return _fails(
        Cause.MISSING_LIBRARY,
        f"needs the library {_plain(library.name)}{by}, which {subject.image} does not have: link"
        " it statically, bring its libraries (libs: bundle), or run it in an image that has it",
    )


def _missing_version(subject: Subject, versions: list[tuple[Library, str]]) -> Finding | None:
    if not versions:
        return None
    versions = sorted(versions, key=lambda each: not each[1].startswith("GLIBC_"))
    library, version = versions[0]
    version = _highest(each for _, each in versions if _family(each) == _family(version))
    what = f"needs {_plain(version)} of {_plain(library.name)}"
    match _family(version):
        case "GLIBC":
            has = _plain(subject.root.libc) or "another libc"
            return _fails(
                Cause.LIBC_TOO_OLD,
                f"{what}, and {subject.run_image} has {has}: build it in an older image, link it"
                " statically, or run it in a newer one",
            )
        case "GLIBCXX" | "CXXABI":
            return _fails(
                Cause.LIBSTDCXX_TOO_OLD,
                f"{what}, and the one of {subject.run_image} is older: build it in an older image,"
                " link with -static-libstdc++, or run it in a newer one",
            )
        case _:
            return _fails(
                Cause.MISSING_LIBRARY,
                f"{what}, and the one of {subject.run_image} is another: run it in an image with"
                " the version that it was built with",
            )


def _family(version: str) -> str:
    return version.partition("_")[0]


def _highest(versions: Iterable[str]) -> str:
    """Return the highest of some symbol versions: GLIBC_2.34 is after GLIBC_2.4."""
    return max(versions, key=lambda name: ([int(part) for part in re.findall(r"\d+", name)], name))


def _not_loaded(subject: Subject, seen: Observation) -> Finding | None:
    """Believe the loader's words only where the image's files agree: any program may print them."""
    words = seen.stderr[:_SEARCHED]
    if not seen.exit_code:
        return None
    libraries = subject.facts.startup.libraries
    if found := _MISSING_LIBRARY.search(words):
        name = found[1] or found[2]
        missing = (each for each in libraries if each.name == name and not each.path)
        if library := next(missing, None):
            return _missing_library(subject, library)
    if _NOT_RELOCATED in words and (
        library := next((each for each in libraries if not each.path), None)
    ):
        return _missing_library(subject, library)
    said = set(_MISSING_VERSION.findall(words))
    versions = [(each, version) for each in libraries for version in each.undefined]
    return _missing_version(subject, [each for each in versions if each[1] in said])


def _misused(subject: Subject, seen: Observation) -> Finding | None:
    """Return what ``env`` or a Java runtime said no to, where files agree."""
    if not seen.exit_code:
        return None
    if seen.exit_code in {DENIED, NOT_FOUND} and (finding := _not_run_by_env(subject)):
        return finding
    return _class_version(subject) if _CLASS_VERSION in seen.stderr[:_SEARCHED] else None


def _no_program(subject: Subject, seen: Observation) -> Finding | None:
    """Return that a signal ended a library: the kernel executes one, from its first byte on."""
    program = _program(subject)
    if seen.signal is None or program is None or program.linkage is not Linkage.OTHER:
        return None
    return _obstacle(subject)


def _class_version(subject: Subject) -> Finding | None:
    needs, has = subject.artifact.class_version, subject.root.java
    if not has or needs <= has:
        return None
    return _fails(
        Cause.CLASS_VERSION,
        f"is compiled for Java {needs - _FEATURE}, and {subject.run_image} has Java"
        f" {has - _FEATURE}: compile it with --release {has - _FEATURE}, or run it in a newer"
        " image",
    )


# --- what it does not find in its image -----------------------------------------------------------

_WORDS = {
    Cause.MISSING_CERTIFICATES: re.compile(
        r"signed by unknown authority|unable to get (?:local )?issuer certificate"
        r"|certificate verify failed|valid certification path|UnknownIssuer|no CA certificates",
        re.IGNORECASE,
    ),
    Cause.MISSING_TIMEZONE_DATA: re.compile(
        r"unknown time ?zone|No time zone found|ZoneInfoNotFound|invalid time ?zone", re.IGNORECASE
    ),
    Cause.MISSING_USER: re.compile(
        r"unknown user|no passwd entry|uid not found|cannot find name for user", re.IGNORECASE
    ),
}
"""What programs say where their image lacks something; each counts only where it really does."""


def _unmet(subject: Subject, seen: Observation | None = None) -> Finding | None:
    """Return which need the image does not meet: a declared one, or one that the program names.

    That certificates are what it missed, the run's own server has to have seen.
    """
    needs = set(subject.smoke.needs)
    if seen and not seen.distrusted:
        needs.discard(Need.CERTIFICATES)
    words = seen.stderr[:_SEARCHED] + seen.stdout[:_SEARCHED] if seen else ""
    named = {cause for cause, pattern in _WORDS.items() if pattern.search(words)}
    for need, finding in _lacks(subject):
        if need in needs or finding.cause in named:
            return finding
    return None


def _lacks(subject: Subject) -> Iterator[tuple[Need, Finding]]:
    root, image = subject.root, subject.image
    if not root.certificates:
        yield (
            Need.CERTIFICATES,
            _fails(
                Cause.MISSING_CERTIFICATES,
                f"verifies certificates, and {image} has no CA certificates: install"
                " ca-certificates, or copy /etc/ssl/certs/ca-certificates.crt",
            ),
        )
    if not root.timezones:
        yield (
            Need.TIME_ZONES,
            _fails(
                Cause.MISSING_TIMEZONE_DATA,
                f"needs time zones, and {image} has no /usr/share/zoneinfo: install tzdata, or"
                " build them into the program",
            ),
        )
    if problem := _users_unknown(subject):
        yield Need.USERS, _fails(Cause.MISSING_USER, problem)
    if problem := _names_unresolved(subject):
        yield Need.NAMES, _fails(Cause.NAME_RESOLUTION, problem)


def _users_unknown(subject: Subject) -> str:
    """Return why users cannot be looked up; glibc before 2.34 reads /etc/passwd with a module."""
    root, program = subject.root, _program(subject)
    if not root.users:
        return (
            f"looks up users, and {subject.image} has no /etc/passwd: copy one with the users that"
            " it needs"
        )
    dynamic = program is not None and program.linkage is Linkage.GLIBC_DYNAMIC
    if not dynamic or "files" in root.nss or not _older(root.libc, _BUILT_IN):
        return ""
    return (
        f"looks up users with {_plain(root.libc)}, and {subject.run_image} has no"
        " libnss_files.so.2: copy it (libs: bundle), or link it with musl"
    )


def _names_unresolved(subject: Subject) -> str:
    """Return why glibc's resolver cannot ask DNS; empty where nothing speaks against it.

    Without a file nsswitch.conf(5), glibc tries dns and files. Both are part of libc since 2.34;
    before, and for any other service, a module has to be there (static programs included).
    """
    root, program = subject.root, _program(subject)
    if program is None or not _uses_glibc(program):
        return ""
    if root.hosts and "dns" not in root.hosts:
        return (
            f"resolves names with glibc, and nsswitch.conf of {subject.run_image} names no dns for"
            f" hosts (it has {_plain(' '.join(root.hosts))}): add dns, or link it with musl"
        )
    dynamic = program.linkage is Linkage.GLIBC_DYNAMIC  # a static one brings its own
    if not dynamic or "dns" in root.nss or not _older(root.libc, _BUILT_IN):
        return ""
    return (
        f"resolves names with {_plain(root.libc)}, and {subject.run_image} has no"
        " libnss_dns.so.2: copy it (libs: bundle), or link it with musl"
    )


def _program(subject: Subject) -> FileFacts | None:
    """Return what really runs: the command's own file, or the last of its interpreters."""
    steps = subject.facts.startup.steps
    return steps[-1].facts if steps else None


def _uses_glibc(facts: FileFacts) -> bool:
    return facts.linkage is Linkage.GLIBC_DYNAMIC or facts.abi_tag


def _older(libc: str, version: tuple[int, ...]) -> bool:
    """Tell whether a root has a glibc that is older than a version."""
    name, _, number = libc.partition(" ")
    parts = tuple(map(int, re.findall(r"\d+", number)))
    return name == "glibc" and bool(parts) and parts < version


def _read_only(seen: Observation) -> Finding | None:
    if not _READ_ONLY.search(seen.stderr[-_SEARCHED:]):
        return None
    return _fails(
        Cause.READ_ONLY_FILESYSTEM,
        "writes where it may not: the root of a smoke run is read-only, /tmp and /dev/shm are not"
        f"{_last_words(seen)}",
    )


# --- what it does by itself -----------------------------------------------------------------------


def _served(subject: Subject, seen: Observation) -> Finding | None:
    """Return what was wrong with a server's answer."""
    service, served = subject.smoke.service, seen.service
    if service is None:
        return None
    if served is None or not served.listened:
        return _fails(Cause.NOT_LISTENING, _silent(service, seen, subject.smoke))
    if served.status != service.status:
        return _fails(Cause.WRONG_OUTPUT, _answer(service, served))
    if seen.signal is not None and seen.signal not in _TOLD:
        return _ended_badly(seen, subject.smoke)
    return _wrong_body(service, served)


def _wrong_body(service: Service, served: ServiceSeen) -> Finding | None:
    if service.body is not None and served.body != service.body:
        return _fails(
            Cause.WRONG_OUTPUT, f"{service.path}: {_difference(served.body, service.body)}"
        )
    if service.matches is not None and not re.search(service.matches, served.body[:_SEARCHED]):
        return _fails(
            Cause.WRONG_OUTPUT,
            f"{service.path}: answered {quote(served.body)}, in which {quote(service.matches)}"
            " does not match",
        )
    return None


def _silent(service: Service, seen: Observation, smoke: Smoke) -> str:
    what = f"did not listen on port {service.port}"
    if seen.exit_code is None:
        return f"{what} within {smoke.timeout:g} s{_last_words(seen)}"
    return f"{what}: it ended with exit code {seen.exit_code}{_last_words(seen)}"


def _answer(service: Service, served: ServiceSeen) -> str:
    if served.status:
        return f"{service.path}: answered with status {served.status}, not {service.status}"
    return f"{service.path}: gave no answer: {quote(served.error)}"


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
