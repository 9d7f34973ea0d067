"""What keeps a program from its first instruction: kernel, ``env`` and loader. Pure.

Each obstacle is found in files alone; after a run, the words of a loader count only where they
agree.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from nox_variants.model import Cause
from nox_variants.plan import SHELL
from nox_variants.results import Finding, Linkage
from nox_variants.subject import SEARCHED, fails, plain, program_of, quote

if TYPE_CHECKING:
    from collections.abc import Iterable

    from nox_variants.results import FileFacts, Library, Observation, Step
    from nox_variants.subject import Subject

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


# --- what the kernel does not execute -------------------------------------------------------------


def obstacle(subject: Subject) -> Finding | None:
    """Return why an image's command cannot be executed."""
    account = subject.user.partition(":")[0]
    if account and not account.isdigit() and account not in subject.root.users:
        return fails(
            Cause.MISSING_USER,
            f"is to be run by the user {plain(account)}, and /etc/passwd of {subject.image} has"
            " none: name the user by number, or copy a file that has it",
        )
    steps = subject.facts.startup.steps
    if not subject.cmd or not steps:
        return None
    executed = _executed(steps)
    for number, step in enumerate(steps[:executed]):
        reason = _unfit(subject, step, _script_before(steps, number))
        if reason:
            return reason
    if _is_script(steps[executed - 1]):
        what = f"the interpreter of {plain(steps[0].path)} is a script"
        return fails(Cause.BAD_SHEBANG, f"{what}, and so is that one's, and so on: name a program")
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
        what = f"{plain(step.path)} of {subject.run_image} may not be executed"
        return fails(Cause.NOT_EXECUTABLE, f"{what}: give it its mode with chmod +x")
    return _foreign(subject, step, step.facts)


def _foreign(subject: Subject, step: Step, facts: FileFacts) -> Finding | None:
    """Return why the kernel does not take a file's form."""
    if facts.linkage is Linkage.SCRIPT:
        if facts.interpreter:
            return None
        what = f"the first line of {plain(step.path)} names no interpreter"
        return fails(Cause.BAD_SHEBANG, f"{what}: begin it with #! and a path")
    machine = _machine(subject.machine)
    if facts.machine and facts.machine not in {machine, _SIBLINGS.get(machine)}:
        return _wrong_architecture(facts, machine)
    if facts.linkage is Linkage.OTHER:
        what = f"{plain(step.path)} is neither a program for this kernel nor a script"
        return fails(Cause.NOT_EXECUTABLE, f"{what}: a script begins with #! and a path")
    return None


def _not_there(subject: Subject, step: Step, script: Step | None) -> Finding:
    path = plain(step.path)
    if script is not None:
        return _no_interpreter(subject, step, script)
    if subject.cmd[: len(SHELL)] == SHELL:
        return fails(
            Cause.MISSING_SHELL,
            f"its command is in shell form, and {subject.image} has no /bin/sh:"
            " write it as a list, or run it in an image with a shell",
        )
    if "/" not in step.path:
        return fails(
            Cause.MISSING_INTERPRETER,
            f"is run by {path}, which {subject.image} does not have: run it in an image with it",
        )
    return fails(Cause.NOT_EXECUTABLE, f"{path} is not there in {subject.image}")


def _no_interpreter(subject: Subject, step: Step, script: Step) -> Finding:
    path = plain(step.path)
    if step.path.endswith("\r"):
        return fails(
            Cause.BAD_SHEBANG,
            f"the first line of {plain(script.path)} ends with a carriage return, and so does the"
            f" interpreter's name, {path}: save the script with Unix line ends",
        )
    return fails(
        Cause.MISSING_SHELL,
        f"is a script for {path}, which {subject.image} does not have:"
        " run it in an image that has it",
    )


def _no_loader(subject: Subject) -> Finding | None:
    """Return the finding for a dynamic program without its loader."""
    startup, program = subject.facts.startup, program_of(subject)
    if startup.loader is None or program is None:
        return None
    path, loader = plain(startup.loader.path), startup.loader.facts
    if startup.loader.executable and loader is not None:
        if loader.machine == program.machine and loader.linkage is not Linkage.OTHER:
            return None
        what = f"needs {path} as its loader, and the one of {subject.run_image}"
        return fails(Cause.NOT_EXECUTABLE, f"{what} is no loader for {program.machine}")
    if loader is not None:
        what = f"{path} of {subject.run_image} may not be executed"
        return fails(Cause.NOT_EXECUTABLE, f"needs it as its loader, and {what}")
    libc = {Linkage.GLIBC_DYNAMIC: "with glibc", Linkage.MUSL_DYNAMIC: "with musl"}
    return fails(
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
    return fails(
        Cause.WRONG_ARCHITECTURE, f"is built for {facts.machine}, and this machine is {machine}"
    )


def not_executable(subject: Subject, seen: Observation) -> Finding:
    """Return the finding for what did not start, for a reason that no file shows."""
    facts, machine = program_of(subject), _machine(subject.machine)
    if facts is not None and facts.machine not in {"", machine}:
        return _wrong_architecture(facts, machine)  # this kernel does not run its sibling's either
    program = quote(subject.cmd[0]) if subject.cmd else "an image without a command"
    said = f": {quote(seen.exec_error)}" if seen.exec_error else ""
    return fails(Cause.NOT_EXECUTABLE, f"{program} cannot be executed in {subject.run_image}{said}")


# --- what ends it in its own name, before its first instruction -----------------------------------


def not_run_by_env(subject: Subject) -> Finding | None:
    """Return why ``env`` cannot execute the interpreter that a script has it look for.

    Not for a form that the kernel does not take: many a shell is tried by ``env`` then.
    """
    steps = subject.facts.startup.steps
    behind = range(_executed(steps), len(steps))
    for number in behind:
        if steps[number].facts is None or not steps[number].executable:
            return _unfit(subject, steps[number], _script_before(steps, number))
    return _no_loader(subject) if behind else None


def unloadable(subject: Subject) -> Finding | None:
    """Return what the loader does not find: first a library, then a version of one."""
    libraries = subject.facts.startup.libraries
    missing = next((each for each in libraries if not each.path), None)
    if missing:
        return _missing_library(subject, missing)
    versions = [(each, version) for each in libraries for version in each.undefined]
    return _missing_version(subject, versions)


def _missing_library(subject: Subject, library: Library) -> Finding:
    own = subject.facts.startup.steps[-1].path
    by = "" if library.needed_by == own else f" for {plain(library.needed_by)}"
    return fails(
        Cause.MISSING_LIBRARY,
        f"needs the library {plain(library.name)}{by}, which {subject.image} does not have: link"
        " it statically, bring its libraries (libs: bundle), or run it in an image that has it",
    )


def _missing_version(subject: Subject, versions: list[tuple[Library, str]]) -> Finding | None:
    if not versions:
        return None
    versions = sorted(versions, key=lambda each: not each[1].startswith("GLIBC_"))
    library, version = versions[0]
    version = _highest(each for _, each in versions if _family(each) == _family(version))
    what = f"needs {plain(version)} of {plain(library.name)}"
    match _family(version):
        case "GLIBC":
            has = plain(subject.root.libc) or "another libc"
            return fails(
                Cause.LIBC_TOO_OLD,
                f"{what}, and {subject.run_image} has {has}: build it in an older image, link it"
                " statically, or run it in a newer one",
            )
        case "GLIBCXX" | "CXXABI":
            return fails(
                Cause.LIBSTDCXX_TOO_OLD,
                f"{what}, and the one of {subject.run_image} is older: build it in an older image,"
                " link with -static-libstdc++, or run it in a newer one",
            )
        case _:
            return fails(
                Cause.MISSING_LIBRARY,
                f"{what}, and the one of {subject.run_image} is another: run it in an image with"
                " the version that it was built with",
            )


def _family(version: str) -> str:
    return version.partition("_")[0]


def _highest(versions: Iterable[str]) -> str:
    """Return the highest of some symbol versions: GLIBC_2.34 is after GLIBC_2.4."""
    return max(versions, key=lambda name: ([int(part) for part in re.findall(r"\d+", name)], name))


def not_loaded(subject: Subject, seen: Observation) -> Finding | None:
    """Believe the loader's words only where the image's files agree: any program may print them."""
    words = seen.stderr[:SEARCHED]
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


def no_program(subject: Subject, seen: Observation) -> Finding | None:
    """Return that a signal ended a library: the kernel executes one, from its first byte on."""
    program = program_of(subject)
    if seen.signal is None or program is None or program.linkage is not Linkage.OTHER:
        return None
    return obstacle(subject)
