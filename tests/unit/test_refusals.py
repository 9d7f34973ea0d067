"""Runtimes' and daemons' words on programs, as they were seen."""

from __future__ import annotations

import pytest

from nox_variants.engines.docker import refusals

CONTAINER = "runc: runc create failed: unable to start container process"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("exec /hello: no such file or directory\n", "no such file or directory"),
        (
            'standard_init_linux.go:228: exec user process caused: "exec format error"\n',
            "exec format error",
        ),
        ("exec /hello: no such file or directory\nmore\n", ""),
        ("hello: exec /hello: permission denied\n", ""),
        ("exec /hello: nonsense\n", ""),
        ("", ""),
    ],
)
def test_on_stderr(text: str, words: str) -> None:
    """The runtime's words are all that there is, or they are the program's."""
    assert refusals.on_stderr(text) == words


@pytest.mark.parametrize(
    ("words", "may_be", "is_one"),
    [
        (f'{CONTAINER}: error during container init: exec: "/x": is a directory', True, True),
        (f'{CONTAINER}: exec: "/x": permission denied: OCI permission denied', True, True),
        ('OCI runtime create failed: exec: "/x": stat /x: no such file or directory', True, False),
        ("unable to find user me: no matching entries in passwd file", True, True),
        (f"{CONTAINER}: setrlimit `RLIMIT_NOFILE`: Operation not permitted", False, False),
        ("mount /x: is a directory", True, False),
    ],
)
def test_not_started(words: str, may_be: bool, is_one: bool) -> None:  # noqa: FBT001
    """A daemon that cannot start anything is told from a program that nobody can execute."""
    assert (refusals.may_be(words), refusals.is_one(words)) == (may_be, is_one)
