"""Causes: each from the facts that mean it, in order, in words that are safe to print."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nox_variants.diagnosis import judge, judge_build_failure, needs_root, outcome, quote
from nox_variants.errors import BuildFailed
from nox_variants.model import Cause, Expected, Location, Smoke, Verdict
from nox_variants.results import ElfFacts, Finding, Linkage, Observation, Outcome, RootFacts

LOADER = "/lib64/ld-linux-x86-64.so.2"
STATIC = ElfFacts(linkage=Linkage.STATIC, machine="x86_64", bits=64)
GLIBC = replace(STATIC, linkage=Linkage.GLIBC_DYNAMIC, interpreter=LOADER)
SCRIPT = ElfFacts(linkage=Linkage.SCRIPT, interpreter="/bin/sh")
EMPTY = RootFacts()
UBUNTU = RootFacts(loaders=frozenset({LOADER}), libraries=frozenset({"libc.so.6"}))
WELL = Observation(started=True, exit_code=0)
NOT_STARTED = Observation(started=False)
WORKS = Finding(verdict=Verdict.WORKS)


def find(
    seen: Observation,
    *,
    facts: ElfFacts = STATIC,
    root: RootFacts | None = None,
    smoke: Smoke | None = None,
    machine: str = "x86_64",
    cmd: tuple[str, ...] = ("/hello",),
) -> Finding:
    """Judge, with what most tests have in common."""
    return judge(
        facts=facts,
        root=root,
        seen=seen,
        smoke=smoke or Smoke(),
        platform_machine=machine,
        run_image="scratch",
        cmd=cmd,
    )


def fails(cause: Cause, explanation: str) -> Finding:
    """Return a failure."""
    return Finding(verdict=Verdict.FAILS, cause=cause, explanation=explanation)


@pytest.mark.parametrize(
    ("seen", "needed"),
    [
        (NOT_STARTED, True),
        (replace(WELL, exit_code=127), True),
        (WELL, False),
        (replace(WELL, exit_code=126), False),
        (replace(WELL, exit_code=None), False),
    ],
)
def test_needs_root(seen: Observation, needed: bool) -> None:  # noqa: FBT001
    """The root filesystem is read only for the failures that it can explain."""
    assert needs_root(seen) is needed


@pytest.mark.parametrize(
    ("seen", "smoke"),
    [
        (WELL, Smoke()),
        (replace(WELL, stdout="Hello\n"), Smoke(stdout="Hello\n")),
        (replace(WELL, stdout="x Hello 1\n"), Smoke(matches=r"Hello \d")),
        (replace(WELL, exit_code=3), Smoke(exit_code=3)),
        (replace(WELL, exit_code=137, signal=9), Smoke(exit_code=137)),
        (replace(WELL, exit_code=127), Smoke(exit_code=127)),
        (replace(WELL, stderr="a warning", truncated=True), Smoke()),
    ],
)
def test_works(seen: Observation, smoke: Smoke) -> None:
    """A program that does what was expected works, and nothing has to be explained."""
    assert find(seen, smoke=smoke) == WORKS


@pytest.mark.parametrize(
    ("seen", "finding"),
    [
        (
            replace(WELL, exit_code=None, timed_out=True),
            fails(Cause.TIMEOUT, "did not end within 2.5 s"),
        ),
        (
            replace(WELL, exit_code=None, process_limit=True, out_of_memory=True),
            fails(Cause.PROCESS_LIMIT, "had more than 128 processes and threads"),
        ),
        (
            # Docker says 0 when a child, and not the program, was killed for its memory.
            replace(WELL, out_of_memory=True),
            fails(Cause.OUT_OF_MEMORY, "took more than 64 MB of memory"),
        ),
    ],
)
def test_limits(seen: Observation, finding: Finding) -> None:
    """A limit that ended the run is the cause, whatever else was seen."""
    assert find(seen, smoke=Smoke(timeout=2.5, memory=64_000_000)) == finding


@pytest.mark.parametrize(
    ("facts", "needs", "image"),
    [
        (GLIBC, f"the loader {LOADER}", "with glibc"),
        (
            replace(GLIBC, linkage=Linkage.MUSL_DYNAMIC, interpreter="/lib/ld-musl-x86_64.so.1"),
            "the loader /lib/ld-musl-x86_64.so.1",
            "with musl",
        ),
        (
            replace(GLIBC, linkage=Linkage.OTHER_DYNAMIC, interpreter="/l\n"),
            r"the loader '/l\n'",
            "that has it",
        ),
        (replace(GLIBC, interpreter="x" * 255), f"the loader {'x' * 255}", "with glibc"),
        (replace(GLIBC, interpreter="x" * 256), f"the loader '{'x' * 60}'...", "with glibc"),
    ],
)
def test_missing_loader(facts: ElfFacts, needs: str, image: str) -> None:
    """A loader that the root lacks is named, with the way out."""
    assert find(NOT_STARTED, facts=facts, root=EMPTY) == fails(
        Cause.MISSING_LOADER,
        f"needs {needs}, which scratch does not have: link it statically, or run it in an image"
        f" {image}",
    )


def test_missing_script_interpreter() -> None:
    """A script whose interpreter the root lacks cannot be executed there."""
    assert find(NOT_STARTED, facts=SCRIPT, root=EMPTY) == fails(
        Cause.NOT_EXECUTABLE,
        "is a script for /bin/sh, which scratch does not have: run it in an image that has it",
    )


@pytest.mark.parametrize(
    ("facts", "root"),
    [
        (GLIBC, UBUNTU),
        (GLIBC, None),
        (SCRIPT, RootFacts(interpreters=frozenset({"/bin/sh"}))),
        (STATIC, EMPTY),
        (ElfFacts(linkage=Linkage.OTHER), EMPTY),
    ],
)
def test_not_executable(facts: ElfFacts, root: RootFacts | None) -> None:
    """What did not start with its interpreter there is not executable, as the engine says."""
    seen = replace(NOT_STARTED, exec_error="permission denied")

    assert find(seen, facts=facts, root=root) == fails(
        Cause.NOT_EXECUTABLE, "'/hello' cannot be executed in scratch: 'permission denied'"
    )


def test_not_executable_without_words() -> None:
    """The sentence is whole without a command and without the engine's words."""
    finding = find(NOT_STARTED, cmd=())

    assert finding.explanation == "an image without a command cannot be executed in scratch"


@pytest.mark.parametrize(
    ("program", "machine", "foreign"),
    [
        ("x86_64", "x86_64", False),
        ("x86_64", "amd64", False),
        ("aarch64", "arm64", False),
        ("arm", "armv7l", False),
        ("i686", "i386", False),
        ("i686", "i586", False),
        ("i686", "386", False),
        ("", "x86_64", False),
        ("aarch64", "x86_64", True),
        ("x86_64", "arm64", True),
        ("x86_64", "i686", True),
        ("i686", "x86_64", True),
        ("arm", "aarch64", True),
        ("ppc64", "ppc64le", True),
        ("mips", "mips64", True),
    ],
)
def test_wrong_architecture(program: str, machine: str, foreign: bool) -> None:  # noqa: FBT001
    """A program of another machine is told apart, whether uname, Docker or ELF names it."""
    finding = find(NOT_STARTED, facts=replace(STATIC, machine=program), machine=machine)

    cause = Cause.WRONG_ARCHITECTURE if foreign else Cause.NOT_EXECUTABLE
    assert finding.cause is cause
    assert not foreign or finding.explanation.startswith(f"is built for {program}, and this ")


def test_architecture_comes_before_the_loader() -> None:
    """A loader cannot help a foreign program; it can help one that this kernel may run."""
    arm = replace(GLIBC, machine="aarch64")
    old = replace(GLIBC, machine="i686", interpreter="/lib/ld-linux.so.2")

    assert find(NOT_STARTED, facts=arm, root=EMPTY).explanation == (
        "is built for aarch64, and this machine is x86_64"
    )
    assert find(NOT_STARTED, facts=old, root=EMPTY).cause is Cause.MISSING_LOADER


@pytest.mark.parametrize(
    "stderr",
    [
        "/hello: error while loading shared libraries: libz.so.1: cannot open shared object\n",
        "Error loading shared library libz.so.1: No such file or directory (needed by /hello)\n",
    ],
)
def test_missing_library(stderr: str) -> None:
    """Both libcs name the library that they miss; the root has to agree."""
    seen = replace(WELL, exit_code=127, stderr=stderr)
    zlib = replace(UBUNTU, libraries=frozenset({"libz.so.1"}))

    assert find(seen, root=UBUNTU) == fails(
        Cause.MISSING_LIBRARY,
        "needs the library libz.so.1, which scratch does not have: link it statically, or run it"
        " in an image that has it",
    )
    assert find(seen, root=zlib).cause is Cause.EXIT_CODE
    assert find(seen, root=None).cause is Cause.EXIT_CODE
    assert find(replace(seen, exit_code=1), root=UBUNTU).cause is Cause.EXIT_CODE
    assert find(replace(seen, stderr="sh: not found"), root=UBUNTU).cause is Cause.EXIT_CODE


def test_missing_library_expected_exit_code() -> None:
    """A loader's failure is one, also where its exit code is the one that was expected."""
    seen = replace(WELL, exit_code=127, stderr="Error loading shared library libz.so: gone")

    assert find(seen, root=EMPTY, smoke=Smoke(exit_code=127)).cause is Cause.MISSING_LIBRARY


@pytest.mark.parametrize(
    ("seen", "finding"),
    [
        (
            replace(WELL, exit_code=3),
            fails(Cause.EXIT_CODE, "ended with exit code 3, not 0"),
        ),
        (
            replace(WELL, exit_code=3, stderr="first\n\x1b[31mlast\n\n"),
            fails(
                Cause.EXIT_CODE,
                "ended with exit code 3, not 0; the last line of standard error is"
                r" '\x1b[31mlast'",
            ),
        ),
        (
            replace(WELL, exit_code=139, signal=11),
            fails(Cause.KILLED_BY_SIGNAL, "was killed by SIGSEGV"),
        ),
        (
            replace(WELL, exit_code=134, signal=6, stderr="assertion failed"),
            fails(
                Cause.KILLED_BY_SIGNAL,
                "was killed by SIGABRT; the last line of standard error is 'assertion failed'",
            ),
        ),
        (
            replace(WELL, exit_code=228, signal=100),
            fails(Cause.KILLED_BY_SIGNAL, "was killed by signal 100"),
        ),
    ],
)
def test_ended_badly(seen: Observation, finding: Finding) -> None:
    """A wrong exit code and a signal are told apart, with the program's last words."""
    assert find(seen, smoke=Smoke(stdout="Hello")) == finding


@pytest.mark.parametrize(
    ("got", "smoke", "sentence"),
    [
        ("Hi\n", Smoke(stdout="Hello\n"), r"printed 'Hi\n', not 'Hello\n'"),
        ("", Smoke(stdout="Hello\n"), r"printed '', not 'Hello\n'"),
        ("Hello\n", Smoke(stdout=""), r"printed 'Hello\n', not ''"),
        ("Hello\r\n", Smoke(stdout="Hello\n"), r"printed 'Hello\r\n', not 'Hello\n'"),
        (
            "0123456789\n" * 3 + "x",
            Smoke(stdout="0123456789\n" * 3 + "y"),
            r"printed '23456789\n0123456789\nx', not '23456789\n0123456789\ny' from line 2 on",
        ),
        (
            "x" * 100,
            Smoke(stdout="x" * 50),
            f"printed '{'x' * 60}'..., not '{'x' * 20}' from line 1 on",
        ),
        (
            "\n" * 25 + "x",
            Smoke(stdout="\n" * 25 + "y"),
            "printed {0}x', not {0}y' from line 6 on".format("'" + r"\n" * 20),
        ),
        (
            "Bye\n",
            Smoke(matches=r"^Hello \d$"),
            r"printed 'Bye\n', in which '^Hello \\d$' does not match",
        ),
    ],
)
def test_wrong_output(got: str, smoke: Smoke, sentence: str) -> None:
    """Where two texts part is shown, and no more of them than that."""
    seen = replace(WELL, stdout=got)

    assert find(seen, smoke=smoke) == fails(Cause.WRONG_OUTPUT, sentence)


def test_pattern_sees_a_bounded_text() -> None:
    """A pattern is tried on the beginning of the output only: it may take long."""
    long = "x" * 65536 + "Hello"

    assert find(replace(WELL, stdout=long), smoke=Smoke(matches="Hello")).cause is not None
    assert find(replace(WELL, stdout=long[1:]), smoke=Smoke(matches="H$")) == WORKS


def test_build_failure() -> None:
    """A failed build is the cause, in the build's own words."""
    finding = judge_build_failure(BuildFailed("`cc` ended with 1", log="many lines", seconds=1.0))

    assert finding == fails(Cause.BUILD_FAILED, "`cc` ended with 1")


LOADER_MISSING = fails(Cause.MISSING_LOADER, "needs the loader")
HERE = Location(file="variants.yaml", line=14, column=9)
EXPECT_FAILURE = Expected(verdict=Verdict.FAILS, location=HERE)
EXPECT_LOADER = replace(EXPECT_FAILURE, cause=Cause.MISSING_LOADER)
WITH_LOADER = "expects it to fail with missing-loader"
WITH_TIMEOUT = "expects it to fail with timeout"
CORRECT = "correct the expectation"
EXPECT_TIMEOUT = Expected(verdict=Verdict.FAILS, cause=Cause.TIMEOUT)


@pytest.mark.parametrize(
    ("expected", "finding", "mismatch", "result"),
    [
        (Expected(), WORKS, None, (Outcome.PASSED, "")),
        (Expected(), LOADER_MISSING, None, (Outcome.FAILED, "needs the loader")),
        (EXPECT_FAILURE, LOADER_MISSING, None, (Outcome.XFAILED, "")),
        (EXPECT_LOADER, LOADER_MISSING, None, (Outcome.XFAILED, "")),
        (
            EXPECT_TIMEOUT,
            LOADER_MISSING,
            None,
            (
                Outcome.FAILED,
                f"fails with missing-loader, but the file {WITH_TIMEOUT}: needs the loader",
            ),
        ),
        (
            EXPECT_LOADER,
            WORKS,
            None,
            (Outcome.XPASSED, f"works, but variants.yaml:14:9 {WITH_LOADER}: {CORRECT}"),
        ),
        (
            EXPECT_FAILURE,
            WORKS,
            None,
            (Outcome.XPASSED, f"works, but variants.yaml:14:9 expects it to fail: {CORRECT}"),
        ),
        (Expected(), WORKS, "is dynamic", (Outcome.FAILED, "is dynamic")),
        (EXPECT_LOADER, LOADER_MISSING, "is dynamic", (Outcome.FAILED, "is dynamic")),
        (EXPECT_LOADER, WORKS, "is dynamic", (Outcome.FAILED, "is dynamic")),
        (
            Expected(verdict=Verdict.FAILS, cause=Cause.BUILD_FAILED),
            fails(Cause.BUILD_FAILED, "no cc"),
            "is dynamic",
            (Outcome.XFAILED, ""),
        ),
    ],
)
def test_outcome(
    expected: Expected, finding: Finding, mismatch: str | None, result: tuple[Outcome, str]
) -> None:
    """A finding against an expectation is one of four outcomes; bad ones say why."""
    assert outcome(expected, finding, mismatch) == result


@pytest.mark.parametrize(
    ("text", "quoted"),
    [
        ("", "''"),
        ("a\n", r"'a\n'"),
        ("\x1b[2J\u202e", r"'\x1b[2J\u202e'"),
        ("x" * 60, f"'{'x' * 60}'"),
        ("x" * 61, f"'{'x' * 60}'..."),
    ],
)
def test_quote(text: str, quoted: str) -> None:
    """Untrusted text is quoted, escaped and cut."""
    assert quote(text) == quoted


HOSTILE = st.text(st.characters(exclude_categories=()), max_size=300)
OBSERVATIONS = st.builds(
    Observation,
    started=st.booleans(),
    exec_error=HOSTILE,
    exit_code=st.sampled_from([0, 1, 127, 139, None]),
    signal=st.sampled_from([None, 11, 99]),
    stdout=HOSTILE,
    stderr=HOSTILE | st.builds("Error loading shared library {}:".format, HOSTILE),
    timed_out=st.booleans(),
)
FACTS = st.builds(
    ElfFacts,
    linkage=st.sampled_from(Linkage),
    machine=st.sampled_from(["", "x86_64", "i686", "aarch64"]),
    interpreter=st.just("") | HOSTILE,
)


@given(facts=FACTS, seen=OBSERVATIONS, root=st.sampled_from([None, EMPTY, UBUNTU]))
def test_every_sentence_is_safe(facts: ElfFacts, seen: Observation, root: RootFacts | None) -> None:
    """Whatever a program says, a failure has a cause and one bounded, printable line for it."""
    finding = find(
        seen, facts=facts, root=root, smoke=Smoke(stdout="Hello\n"), cmd=(seen.stdout, "x")
    )

    assert (finding.cause is None) == (finding.verdict is Verdict.WORKS)
    assert (finding.explanation == "") == (finding.verdict is Verdict.WORKS)
    assert finding.explanation.isprintable()
    assert len(finding.explanation) < 2000
