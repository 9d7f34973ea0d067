"""What OCI runtimes and daemons say of a program that cannot be executed."""

from __future__ import annotations

import re

ABSENT = "no such file or directory"
"""What is said of files that are missing, and never where all are there."""

_EXEC_ERRORS = (
    f"{ABSENT}|exec format error|permission denied|input/output error"
    "|accessing a corrupted shared library|too many levels of symbolic links|invalid argument"
)
"""What execve(2) says of files that are no programs, or whose interpreters are none."""

_ON_STDERR = re.compile(
    rf"(?:exec (?P<path>\S+): (?P<new>{_EXEC_ERRORS}))"
    r"|(?:standard_init_linux\.go:\d+: exec user process caused:? \"?(?P<old>[^\"\n]+)\"?)"
)
"""runc's words on a container's standard error, new and old."""

_NOT_STARTED = re.compile(
    rf"{_EXEC_ERRORS}|not found|is a directory|not a directory|unable to find (?:user|group)",
    re.IGNORECASE,
)
"""The same in the words of a daemon that could not start a container, crun's among them."""

_REFUSED = re.compile(
    r"OCI permission denied|OCI runtime attempted to invoke a command that was not found"
    r"|unable to find (?:user|group) \S+: no matching entries"  # moby/sys/user, on every engine
    r"|exec: \"[^\"]+\": is a directory"  # runc 1.2, which Podman has no name for
)
"""Podman's names for the runtime's refusal of a program (libpod/define, errors.go)."""


def on_stderr(text: str) -> str:
    """Return the runtime's words on a container's standard error; nothing when there is more."""
    failure = _ON_STDERR.fullmatch(text.strip())
    return "" if failure is None else failure["new"] or failure["old"]


def may_be(words: str) -> bool:
    """Tell whether a daemon's words on a start that failed may be about the program."""
    return bool(_NOT_STARTED.search(words))


def is_one(words: str) -> bool:
    """Tell whether they are about the program for sure, whatever the container's state."""
    return bool(_REFUSED.search(words))
