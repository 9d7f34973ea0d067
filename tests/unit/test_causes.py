"""The documentation of causes: each has its entry, and quotes what is really printed."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from nox_variants.diagnosis import judge, judge_build_failure, predict
from nox_variants.errors import BuildFailed
from nox_variants.model import Cause, Need, Service, Smoke
from nox_variants.results import (
    FileFacts,
    ImageFacts,
    Library,
    Linkage,
    Observation,
    RootFacts,
    ServiceSeen,
    Startup,
    Step,
)
from nox_variants.subject import Subject
from projects import REPOSITORY

TEXT = (REPOSITORY / "docs" / "causes.md").read_text(encoding="utf-8")
ENTRIES = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", TEXT, re.MULTILINE | re.DOTALL))

STATIC = FileFacts(linkage=Linkage.STATIC, machine="x86_64", bits=64)
DYNAMIC = replace(STATIC, linkage=Linkage.GLIBC_DYNAMIC, interpreter="/lib64/ld-linux-x86-64.so.2")
SCRIPT = FileFacts(linkage=Linkage.SCRIPT, interpreter="/bin/sh\r")
LOADER = Step(path=DYNAMIC.interpreter, facts=STATIC, executable=True)
GLIBC = RootFacts(libc="glibc 2.36")
FULL = RootFacts(certificates="/etc/ssl", timezones=True, users=frozenset({"root"}))
ENDED = Observation(started=True, exit_code=0)


def in_image(
    image: str,
    *libraries: Library,
    root: RootFacts = FULL,
    facts: FileFacts = STATIC,
    steps: tuple[Step, ...] = (),
    **changes: Any,
) -> Subject:
    """Return a program in an image; a dynamic one with libraries has its loader."""
    made = Subject(
        facts=ImageFacts(root=root, startup=Startup(steps=())),
        artifact=facts,
        smoke=Smoke(),
        machine="x86_64",
        run_image=image,
        cmd=("/hello-c",),
    )
    made = replace(made, **changes)
    steps = steps or (Step(path=made.cmd[0], facts=facts, executable=True),)
    loader = LOADER if libraries else Step(path=facts.interpreter)
    startup = Startup(
        steps=steps, loader=loader if facts.interpreter else None, libraries=libraries
    )
    return replace(made, facts=ImageFacts(root=root, startup=startup))


def lacks(version: str, library: str) -> Library:
    """Return a library that does not define a version."""
    return Library(name=library, needed_by="/hello-c", path="/lib/x", undefined=(version,))


def needing(need: Need) -> Smoke:
    """Return a smoke run that tries a need."""
    return Smoke(needs=(need,))


PREDICTED = {
    Cause.MISSING_LOADER: in_image("alpine", facts=DYNAMIC, root=RootFacts(libc="musl 1.2.5")),
    Cause.MISSING_LIBRARY: in_image(
        "busybox:glibc",
        Library(name="libgcc_s.so.1", needed_by="/hello-c"),
        facts=DYNAMIC,
        root=GLIBC,
    ),
    Cause.LIBC_TOO_OLD: in_image(
        "ubuntu", lacks("GLIBC_2.38", "libc.so.6"), facts=DYNAMIC, root=GLIBC
    ),
    Cause.LIBSTDCXX_TOO_OLD: in_image(
        "ubuntu", lacks("GLIBCXX_3.4.32", "libstdc++.so.6"), facts=DYNAMIC, root=GLIBC
    ),
    Cause.WRONG_ARCHITECTURE: in_image("scratch", facts=replace(STATIC, machine="aarch64")),
    Cause.MISSING_SHELL: in_image(
        "scratch", steps=(Step(path="/bin/sh"),), cmd=("/bin/sh", "-c", "hello")
    ),
    Cause.MISSING_INTERPRETER: in_image(
        "scratch", steps=(Step(path="python3"),), cmd=("python3", "/app/main.py")
    ),
    Cause.BAD_SHEBANG: in_image(
        "alpine",
        steps=(Step(path="/run.sh", facts=SCRIPT, executable=True), Step(path="/bin/sh\r")),
        cmd=("/run.sh",),
    ),
    Cause.NOT_EXECUTABLE: in_image("scratch", steps=(Step(path="/hello-c", facts=STATIC),)),
    Cause.MISSING_CERTIFICATES: in_image(
        "scratch", root=replace(FULL, certificates=""), smoke=needing(Need.CERTIFICATES)
    ),
    Cause.MISSING_TIMEZONE_DATA: in_image(
        "scratch", root=replace(FULL, timezones=False), smoke=needing(Need.TIME_ZONES)
    ),
    Cause.MISSING_USER: in_image(
        "scratch", root=replace(FULL, users=frozenset()), smoke=needing(Need.USERS)
    ),
    Cause.NAME_RESOLUTION: in_image(
        "files-only",
        facts=replace(STATIC, abi_tag=True),
        root=replace(FULL, hosts=("files",)),
        smoke=needing(Need.NAMES),
    ),
    Cause.CLASS_VERSION: in_image(
        "jre",
        root=replace(FULL, java=61),
        artifact=FileFacts(linkage=Linkage.OTHER, class_version=65),
    ),
}
SCRATCH = in_image("scratch")
SEEN = {
    Cause.EXIT_CODE: (Smoke(), replace(ENDED, exit_code=3, stderr="no such table\n")),
    Cause.WRONG_OUTPUT: (Smoke(stdout="Hello, world!\n"), replace(ENDED, stdout="Hello!\n")),
    Cause.TIMEOUT: (Smoke(timeout=5), replace(ENDED, timed_out=True)),
    Cause.KILLED_BY_SIGNAL: (Smoke(), replace(ENDED, exit_code=139, signal=11)),
    Cause.OUT_OF_MEMORY: (Smoke(memory=64_000_000), replace(ENDED, out_of_memory=True)),
    Cause.PROCESS_LIMIT: (Smoke(), replace(ENDED, process_limit=True)),
    Cause.READ_ONLY_FILESYSTEM: (
        Smoke(),
        replace(ENDED, exit_code=1, stderr="open /data: Read-only file system\n"),
    ),
    Cause.NOT_LISTENING: (
        Smoke(service=Service(port=8080)),
        replace(ENDED, exit_code=1, stderr="no config\n", service=ServiceSeen(listened=False)),
    ),
}


def said(cause: Cause) -> str:
    """Return what is printed of a cause."""
    if cause is Cause.BUILD_FAILED:
        command = "'cc -o /out/hello-c hello.c'"
        found = judge_build_failure(BuildFailed(f"{command} ended with exit code 1 in gcc"))
    elif cause in PREDICTED:
        found = predict(PREDICTED[cause])
    else:
        smoke, seen = SEEN[cause]
        found = judge(replace(SCRATCH, smoke=smoke), seen)
    assert found.cause is cause
    return found.explanation


def test_every_cause_has_an_entry() -> None:
    """The headings are the causes, in their order."""
    assert re.findall(r"^## (.+)$", TEXT, re.MULTILINE) == list(Cause)


@pytest.mark.parametrize("cause", Cause)
def test_entries(cause: Cause) -> None:
    """An entry says how its cause is recognised, what is printed, word for word, and what to do."""
    entry = ENTRIES[cause]

    assert re.findall(r"^- \*\*(.+?)\*\*:", entry, re.MULTILINE) in (
        ["Recognised by", "Elsewhere", "Says", "Remedies"],
        ["Recognised by", "Says", "Remedies"],
    )
    (quoted,) = re.findall(r"\*\*Says\*\*: `([^`]+)`", entry)
    assert " ".join(quoted.split()) == said(cause)
