"""Causes: each from the facts that mean it, in order, in words that are safe to print."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nox_variants.diagnosis import (
    PREDICTABLE,
    contradiction,
    judge,
    judge_build_failure,
    outcome,
    predict,
)
from nox_variants.errors import BuildFailed
from nox_variants.model import Cause, Expected, Location, Need, Service, Smoke, Verdict
from nox_variants.results import (
    FileFacts,
    Finding,
    ImageFacts,
    Library,
    Linkage,
    Observation,
    Outcome,
    RootFacts,
    ServiceSeen,
    Startup,
    Step,
)
from nox_variants.subject import Subject, quote

LOADER = "/lib64/ld-linux-x86-64.so.2"
STATIC = FileFacts(linkage=Linkage.STATIC, machine="x86_64", bits=64)
GLIBC = replace(STATIC, linkage=Linkage.GLIBC_DYNAMIC, interpreter=LOADER)
SCRIPT = FileFacts(linkage=Linkage.SCRIPT, interpreter="/bin/sh")
OTHER = FileFacts(linkage=Linkage.OTHER)
EMPTY = RootFacts()
WHOLE = RootFacts(  # noqa: S604  # a fact, not a call
    libc="glibc 2.36",
    shell=True,
    certificates="/etc/ssl/cert.pem",
    timezones=True,
    users=frozenset({"root"}),
)
WELL = Observation(started=True, exit_code=0)
NOT_STARTED = Observation(started=False)
WORKS = Finding(verdict=Verdict.WORKS)


def step(
    facts: FileFacts | None = STATIC, path: str = "/hello", *, executable: bool = True
) -> Step:
    """Return a file that the kernel opens; None when it is not there."""
    return Step(path=path, facts=facts, executable=executable and facts is not None)


def about(
    *steps: Step,
    loader: Step | None = None,
    libraries: tuple[Library, ...] = (),
    root: RootFacts = EMPTY,
    smoke: Smoke | None = None,
    machine: str = "x86_64",
    cmd: tuple[str, ...] = ("/hello",),
    artifact: FileFacts | None = None,
) -> Subject:
    """Return a subject, with what most tests have in common."""
    steps = steps or (step(),)
    return Subject(
        facts=ImageFacts(
            root=root, startup=Startup(steps=steps, loader=loader, libraries=libraries)
        ),
        artifact=artifact or steps[0].facts or STATIC,
        smoke=smoke or Smoke(),
        machine=machine,
        run_image="scratch",
        cmd=cmd,
    )


def find(seen: Observation, *, smoke: Smoke | None = None) -> Finding:
    """Judge a run of a static program."""
    return judge(about(smoke=smoke), seen)


def fails(cause: Cause, explanation: str) -> Finding:
    """Return a failure."""
    return Finding(verdict=Verdict.FAILS, cause=cause, explanation=explanation)


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


BRING = "link it statically, bring its libraries (libs: bundle), or run it in an image"


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
def test_missing_loader(facts: FileFacts, needs: str, image: str) -> None:
    """A loader that the root lacks is named, with the way out; before a run and after it."""
    subject = about(step(facts), loader=step(None, facts.interpreter))
    finding = fails(
        Cause.MISSING_LOADER, f"needs {needs}, which scratch does not have: {BRING} {image}"
    )

    assert judge(subject, NOT_STARTED) == predict(subject) == finding


def test_the_libc_of_the_image_is_named() -> None:
    """Where an image has another libc, the sentence says so."""
    root = RootFacts(libc="musl 1.2.3")
    finding = predict(about(step(GLIBC), loader=step(None, LOADER), root=root))

    assert "which scratch (musl) does not have" in finding.explanation


SH = step(path="/bin/sh")
CRLF = replace(SCRIPT, interpreter="/bin/sh\r")
BY_ENV = replace(SCRIPT, interpreter="/usr/bin/env", argument="python3")
SHELL_FORM = ("/bin/sh", "-c", "/hello")


@pytest.mark.parametrize(
    ("subject", "cause", "words"),
    [
        (about(step(None)), Cause.NOT_EXECUTABLE, "/hello is not there in scratch"),
        (about(step(executable=False)), Cause.NOT_EXECUTABLE, "chmod +x"),
        (about(step(OTHER)), Cause.NOT_EXECUTABLE, "neither a program for this kernel nor"),
        (
            about(step(GLIBC), loader=step(STATIC, LOADER, executable=False)),
            Cause.NOT_EXECUTABLE,
            f"{LOADER} of scratch may not be executed",
        ),
        (about(step(None, "/bin/sh"), cmd=SHELL_FORM), Cause.MISSING_SHELL, "is in shell form"),
        (
            about(step(SCRIPT), step(None, "/bin/sh")),
            Cause.MISSING_SHELL,
            "is a script for /bin/sh, which scratch does not have",
        ),
        (about(step(CRLF), step(None, "/bin/sh\r")), Cause.BAD_SHEBANG, "carriage return"),
        (
            about(step(replace(SCRIPT, interpreter=""))),
            Cause.BAD_SHEBANG,
            "the first line of /hello names no interpreter",
        ),
        (
            about(step(SCRIPT), SH, root=WHOLE),
            None,
            "",
        ),
        (about(step(SCRIPT), step(SCRIPT, "/a")), Cause.BAD_SHEBANG, "so is that one's"),
        (
            about(step(GLIBC), loader=step(OTHER, LOADER)),
            Cause.NOT_EXECUTABLE,
            f"{LOADER} as its loader, and the one of scratch is no loader for x86_64",
        ),
        (about(step(SCRIPT), step(OTHER, "/bin/sh")), Cause.NOT_EXECUTABLE, "/bin/sh is neither"),
    ],
)
def test_obstacles(subject: Subject, cause: Cause | None, words: str) -> None:
    """What keeps the kernel from executing a command is known before it tries."""
    predicted = predict(subject)

    assert predicted.cause is cause
    assert words in predicted.explanation
    if cause:
        assert judge(subject, replace(NOT_STARTED, exec_error="no such file")) == predicted


def test_not_executable_says_what_the_engine_said() -> None:
    """What did not start for no reason that files show is explained in the engine's words."""
    assert judge(about(), replace(NOT_STARTED, exec_error="permission denied")) == fails(
        Cause.NOT_EXECUTABLE, "'/hello' cannot be executed in scratch: 'permission denied'"
    )
    assert judge(about(cmd=()), NOT_STARTED).explanation == (
        "an image without a command cannot be executed in scratch"
    )


@pytest.mark.parametrize(
    ("interpreter", "argument", "cause"),
    [("/usr/bin/env", "python3", Cause.MISSING_SHELL), ("/usr/bin/env", "sh\r", Cause.BAD_SHEBANG)],
)
def test_interpreter_that_env_does_not_find(interpreter: str, argument: str, cause: Cause) -> None:
    """`env` starts, and ends with 127: the interpreter behind it is the cause."""
    script = replace(SCRIPT, interpreter=interpreter, argument=argument)
    subject = about(step(script), step(path=interpreter), step(None, argument))
    seen = replace(WELL, exit_code=127, stderr="env: 'python3': No such file or directory")

    assert predict(subject).cause is judge(subject, seen).cause is cause
    assert judge(subject, replace(seen, exit_code=1)).cause is Cause.EXIT_CODE


@pytest.mark.parametrize(
    ("behind", "loader", "code", "cause"),
    [
        ((step(None, "/bin/x"),), None, 127, Cause.MISSING_SHELL),
        ((step(path="/bin/x", executable=False),), None, 126, Cause.NOT_EXECUTABLE),
        ((step(GLIBC, "/bin/x"),), step(None, LOADER), 127, Cause.MISSING_LOADER),
        ((step(SCRIPT, "/bin/x"), step(None, "/bin/sh")), None, 127, Cause.MISSING_SHELL),
        ((step(OTHER, "/bin/x"),), None, 0, None),
    ],
)
def test_what_env_cannot_execute(
    behind: tuple[Step, ...], loader: Step | None, code: int, cause: Cause | None
) -> None:
    """`env` ends with 126 or 127 for what files say; a form unknown to it is the shell's affair."""
    subject = about(step(BY_ENV), step(path="/usr/bin/env"), *behind, loader=loader)

    assert predict(subject).cause is judge(subject, replace(WELL, exit_code=code)).cause is cause


def test_carriage_return_behind_env() -> None:
    """It is the script that ends its lines so, not `env`."""
    found = predict(about(step(BY_ENV), step(path="/usr/bin/env"), step(None, "python3\r")))

    assert "the first line of /hello ends with a carriage return" in found.explanation


def test_library_as_a_program() -> None:
    """The kernel executes a library, and a signal ends it: it is no program, as predicted."""
    subject = about(step(replace(OTHER, machine="x86_64", bits=64)))
    killed = replace(WELL, exit_code=139, signal=11)

    assert predict(subject) == judge(subject, killed)
    assert judge(subject, killed).cause is Cause.NOT_EXECUTABLE
    assert judge(about(), killed).cause is Cause.KILLED_BY_SIGNAL


@pytest.mark.parametrize(
    ("libc", "nss", "cause"),
    [
        ("glibc 2.31", {"compat", "dns"}, Cause.MISSING_USER),
        ("glibc 2.31", {"files"}, None),
        ("glibc 2.34", set(), None),
    ],
)
def test_users_without_a_module(libc: str, nss: set[str], cause: Cause | None) -> None:
    """Before 2.34, glibc reads /etc/passwd with a module."""
    root = replace(WHOLE, libc=libc, nss=frozenset(nss))
    smoke = Smoke(needs=(Need.USERS,))

    assert predict(about(step(GLIBC), root=root, smoke=smoke)).cause is cause
    assert predict(about(root=root, smoke=smoke)).cause is None


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
    finding = judge(about(step(replace(STATIC, machine=program)), machine=machine), NOT_STARTED)

    cause = Cause.WRONG_ARCHITECTURE if foreign else Cause.NOT_EXECUTABLE
    assert finding.cause is cause
    assert not foreign or finding.explanation.startswith(f"is built for {program}, and this ")


def test_architecture_comes_before_the_loader() -> None:
    """A loader cannot help a foreign program; it can help one that this kernel may run."""
    arm = step(replace(GLIBC, machine="aarch64"))
    old = step(replace(GLIBC, machine="i686", interpreter="/lib/ld-linux.so.2"))
    loader = step(None, "/lib/ld-linux.so.2")

    assert judge(about(arm, loader=loader), NOT_STARTED).explanation == (
        "is built for aarch64, and this machine is x86_64"
    )
    assert judge(about(old, loader=loader), NOT_STARTED).cause is Cause.MISSING_LOADER
    assert predict(about(step(replace(STATIC, machine="i686")))) == WORKS


GLIBC_SAYS = "/hello: error while loading shared libraries: {}: cannot open shared object file\n"
MUSL_SAYS = "Error loading shared library {}: No such file or directory (needed by /hello)\n"
VERSION_SAYS = "/hello: /lib/libc.so.6: version `{}' not found (required by /hello)\n"


def dynamic(*libraries: Library, root: RootFacts = WHOLE, smoke: Smoke | None = None) -> Subject:
    """Return a dynamic program that has its loader."""
    return about(step(GLIBC), loader=step(path=LOADER), libraries=libraries, root=root, smoke=smoke)


def library(name: str, path: str = "", by: str = "/hello", undefined: str = "") -> Library:
    """Return a library: found at a path, or not at all."""
    return Library(name=name, needed_by=by, path=path, undefined=tuple(undefined.split()))


def test_library_for_another_machine() -> None:
    """musl takes it for the one that it looks for, and then finds no symbols: it is missing."""
    subject = dynamic(library("libfoo.so"))
    words = "Error relocating /hello: foo: symbol not found\n"
    seen = replace(WELL, exit_code=127, stderr=words)

    assert judge(subject, seen) == predict(subject)
    assert judge(subject, seen).cause is Cause.MISSING_LIBRARY
    assert judge(dynamic(library("libfoo.so", "/lib/libfoo.so")), seen).cause is Cause.EXIT_CODE


@pytest.mark.parametrize("words", [GLIBC_SAYS, MUSL_SAYS])
def test_missing_library(words: str) -> None:
    """Both libcs name the library that they miss; the root has to agree."""
    seen = replace(WELL, exit_code=127, stderr=words.format("libz.so.1"))
    subject = dynamic(library("libc.so.6", "/lib/libc.so.6"), library("libz.so.1"))
    finding = fails(
        Cause.MISSING_LIBRARY,
        f"needs the library libz.so.1, which scratch (glibc) does not have: {BRING} that has it",
    )

    assert judge(subject, seen) == predict(subject) == finding
    assert judge(dynamic(library("libz.so.1", "/lib/libz.so.1")), seen).cause is Cause.EXIT_CODE
    assert judge(subject, replace(seen, stderr="sh: not found")).cause is Cause.EXIT_CODE
    assert judge(subject, replace(seen, exit_code=0)) == WORKS


def test_missing_library_of_a_library() -> None:
    """Who needs it is said, where that is not the program."""
    finding = predict(dynamic(library("libz.so.1", by="/lib/libpng.so")))

    assert finding.explanation.startswith("needs the library libz.so.1 for /lib/libpng.so, which")


def test_missing_library_expected_exit_code() -> None:
    """A loader's failure is one, also where its exit code is the one that was expected."""
    seen = replace(WELL, exit_code=127, stderr=MUSL_SAYS.format("libz.so"))
    subject = dynamic(library("libz.so"), smoke=Smoke(exit_code=127))

    assert judge(subject, seen).cause is Cause.MISSING_LIBRARY


@pytest.mark.parametrize(
    ("undefined", "cause", "words"),
    [
        ("GLIBC_2.4 GLIBC_2.38", Cause.LIBC_TOO_OLD, "needs GLIBC_2.38 of libc.so.6, and scratch"),
        ("GLIBCXX_3.4.32", Cause.LIBSTDCXX_TOO_OLD, "needs GLIBCXX_3.4.32 of libstdc++.so.6"),
        ("CXXABI_1.3.15", Cause.LIBSTDCXX_TOO_OLD, "needs CXXABI_1.3.15"),
        ("GLIBCXX_3.4.32 GLIBC_2.38", Cause.LIBC_TOO_OLD, "needs GLIBC_2.38"),
        ("OPENSSL_3.0.0", Cause.MISSING_LIBRARY, "needs OPENSSL_3.0.0"),
    ],
)
def test_missing_version(undefined: str, cause: Cause, words: str) -> None:
    """A library that is too old is told by the versions that it lacks, libc before all others."""
    name = "libstdc++.so.6" if "CXX" in undefined else "libc.so.6"
    subject = dynamic(library(name, f"/lib/{name}", undefined=undefined))
    stderr = "".join(map(VERSION_SAYS.format, undefined.split()))

    assert predict(subject).cause is cause
    assert words.partition(" of ")[0] in predict(subject).explanation
    assert judge(subject, replace(WELL, exit_code=1, stderr=stderr)) == predict(subject)
    whole = dynamic(library(name, f"/lib/{name}"))
    assert judge(whole, replace(WELL, exit_code=1, stderr=stderr)).cause is Cause.EXIT_CODE


def test_class_version() -> None:
    """A class file that is newer than the runtime is told by both numbers."""
    subject = about(
        step(path="/usr/bin/java"),
        root=replace(WHOLE, java=61),
        artifact=replace(OTHER, class_version=65),
    )
    words = "Exception: java.lang.UnsupportedClassVersionError: Hello has been compiled by a more"

    assert predict(subject).explanation == (
        "is compiled for Java 21, and scratch has Java 17: compile it with --release 17, or run it"
        " in a newer image"
    )
    assert judge(subject, replace(WELL, exit_code=1, stderr=words)) == predict(subject)
    assert predict(replace(subject, artifact=replace(OTHER, class_version=61))) == WORKS


@pytest.mark.parametrize(
    ("need", "words", "cause"),
    [
        (Need.CERTIFICATES, "x509: certificate signed by unknown authority", "certificates"),
        (Need.TIME_ZONES, "unknown time zone Europe/Paris", "timezone-data"),
        (Need.USERS, "user: unknown user root", "user"),
    ],
)
def test_needs(need: Need, words: str, cause: str) -> None:
    """What the image lacks is the cause where the program is known to need it, or says so."""
    said = replace(WELL, exit_code=1, stderr=words)
    asking = Smoke(needs=(need,))
    expected = Cause(f"missing-{cause}")

    assert predict(about(smoke=asking)).cause is expected
    assert judge(about(smoke=asking), replace(said, stderr="no", distrusted=True)).cause is expected
    assert judge(about(), said).cause is expected
    assert judge(about(root=WHOLE, smoke=asking), said).cause is Cause.EXIT_CODE
    assert predict(about(root=WHOLE, smoke=asking)) == WORKS
    assert judge(about(smoke=asking), WELL) == WORKS


def test_needs_are_no_excuse() -> None:
    """A program that never refused a certificate, or crashed, failed for a reason of its own."""
    asking = about(smoke=Smoke(needs=tuple(Need)), root=replace(WHOLE, certificates=""))
    crashed = replace(WELL, exit_code=139, signal=11, distrusted=True)

    assert judge(asking, replace(WELL, exit_code=1)).cause is Cause.EXIT_CODE
    assert judge(asking, crashed).cause is Cause.KILLED_BY_SIGNAL
    refused = replace(WELL, exit_code=1, distrusted=True)
    assert judge(asking, refused).cause is Cause.MISSING_CERTIFICATES


NAMES = Smoke(needs=(Need.NAMES,))
STATIC_GLIBC = replace(STATIC, abi_tag=True)
OLD = RootFacts(libc="glibc 2.31")


@pytest.mark.parametrize(
    ("facts", "root", "resolves"),
    [
        (GLIBC, WHOLE, True),
        (GLIBC, replace(WHOLE, hosts=("files", "dns")), True),
        (GLIBC, replace(WHOLE, hosts=("files",)), False),
        (STATIC_GLIBC, replace(WHOLE, hosts=("files",)), False),
        (STATIC_GLIBC, EMPTY, True),
        (STATIC, replace(WHOLE, hosts=("files",)), True),
        (GLIBC, OLD, False),
        (GLIBC, replace(OLD, nss=frozenset({"dns"})), True),
        (STATIC_GLIBC, OLD, True),
    ],
)
def test_name_resolution(facts: FileFacts, root: RootFacts, resolves: bool) -> None:  # noqa: FBT001
    """Glibc asks the services of nsswitch.conf; before 2.34 each of them is a module."""
    subject = about(step(facts), root=root, smoke=NAMES)
    failed = judge(subject, replace(WELL, exit_code=1))

    assert predict(subject).cause is (None if resolves else Cause.NAME_RESOLUTION)
    assert failed.cause is (Cause.EXIT_CODE if resolves else Cause.NAME_RESOLUTION)


def test_read_only_root() -> None:
    """Who writes to the root is told that it is read-only."""
    seen = replace(WELL, exit_code=1, stderr="open /data: Read-only file system\n")

    assert find(seen).cause is Cause.READ_ONLY_FILESYSTEM
    assert find(seen).explanation.endswith("is 'open /data: Read-only file system'")


SERVICE = Service(port=8080, path="/x", body="Hi\n")


@pytest.mark.parametrize(
    ("served", "seen", "finding"),
    [
        (ServiceSeen(listened=True, status=200, body="Hi\n", stopped=True), WELL, WORKS),
        (
            ServiceSeen(listened=True, status=200, body="Hi\n"),
            replace(WELL, exit_code=137, signal=9),
            WORKS,
        ),
        (
            ServiceSeen(listened=False),
            replace(WELL, exit_code=None),
            fails(Cause.NOT_LISTENING, "did not listen on port 8080 within 10 s"),
        ),
        (
            ServiceSeen(listened=False),
            replace(WELL, exit_code=2, stderr="no port"),
            fails(
                Cause.NOT_LISTENING,
                "did not listen on port 8080: it ended with exit code 2; the last line of standard"
                " error is 'no port'",
            ),
        ),
        (
            ServiceSeen(listened=True, status=200, body="Hi\n", stopped=True),
            replace(WELL, exit_code=139, signal=11),
            fails(Cause.KILLED_BY_SIGNAL, "was killed by SIGSEGV"),
        ),
        (
            ServiceSeen(listened=True, error="reset"),
            WELL,
            fails(Cause.WRONG_OUTPUT, "/x: gave no answer: 'reset'"),
        ),
        (
            ServiceSeen(listened=True, status=404),
            WELL,
            fails(Cause.WRONG_OUTPUT, "/x: answered with status 404, not 200"),
        ),
        (
            ServiceSeen(listened=True, status=200, body="Ho\n"),
            WELL,
            fails(Cause.WRONG_OUTPUT, r"/x: printed 'Ho\n', not 'Hi\n'"),
        ),
    ],
)
def test_service(served: ServiceSeen, seen: Observation, finding: Finding) -> None:
    """A server is judged by its answer, not by how it ends."""
    assert find(replace(seen, service=served), smoke=Smoke(service=SERVICE)) == finding


def test_service_pattern() -> None:
    """A pattern has to be found in the body."""
    smoke = Smoke(service=replace(SERVICE, body=None, matches="H."))
    seen = replace(WELL, service=ServiceSeen(listened=True, status=200, body="Ho"))

    assert find(seen, smoke=smoke) == WORKS
    no = replace(seen, service=ServiceSeen(listened=True, status=200, body="no"))
    assert find(no, smoke=smoke).explanation == ("/x: answered 'no', in which 'H.' does not match")


MISSING = fails(Cause.MISSING_LOADER, "x")


@pytest.mark.parametrize(
    ("predicted", "found", "wrong"),
    [
        (WORKS, WORKS, False),
        (WORKS, fails(Cause.EXIT_CODE, "x"), False),
        (WORKS, fails(Cause.BUILD_FAILED, "x"), False),
        (MISSING, fails(Cause.BUILD_FAILED, "x"), False),
        (MISSING, MISSING, False),
        (fails(Cause.WRONG_ARCHITECTURE, "x"), WORKS, False),
        (WORKS, MISSING, True),
        (MISSING, WORKS, True),
        (MISSING, fails(Cause.EXIT_CODE, "x"), True),
        (MISSING, fails(Cause.MISSING_LIBRARY, "x"), True),
    ],
)
def test_contradiction(predicted: Finding, found: Finding, wrong: bool) -> None:  # noqa: FBT001
    """A prediction is held against what lies in files, and against nothing else."""
    assert (contradiction(predicted, found) is not None) is wrong


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
HERE = Location(file="variants.yaml", line=14, column=9, text="- {run: alpine}")
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
            (
                Outcome.XPASSED,
                f"works, but variants.yaml:14:9 (- {{run: alpine}}) {WITH_LOADER}: {CORRECT}",
            ),
        ),
        (
            EXPECT_FAILURE,
            WORKS,
            None,
            (
                Outcome.XPASSED,
                f"works, but variants.yaml:14:9 (- {{run: alpine}}) expects it to fail: {CORRECT}",
            ),
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
STEPS = st.builds(
    Step,
    path=HOSTILE,
    facts=st.none()
    | st.builds(
        FileFacts,
        linkage=st.sampled_from(Linkage),
        machine=st.sampled_from(["", "x86_64", "i686", "aarch64"]),
        interpreter=st.just("") | HOSTILE,
        abi_tag=st.booleans(),
    ),
    executable=st.booleans(),
)
LIBRARIES = st.builds(
    Library,
    name=HOSTILE,
    needed_by=HOSTILE,
    path=st.just("") | HOSTILE,
    undefined=st.tuples(st.builds("GLIBC_{}".format, HOSTILE) | HOSTILE),
)
SUBJECTS = st.builds(
    about,
    STEPS,
    STEPS,
    loader=st.none() | STEPS,
    libraries=st.tuples(LIBRARIES),
    root=st.sampled_from([EMPTY, WHOLE])
    | st.builds(RootFacts, libc=HOSTILE, hosts=st.tuples(HOSTILE)),
    smoke=st.builds(Smoke, stdout=HOSTILE, needs=st.sampled_from([(), tuple(Need)])),
    cmd=st.tuples(HOSTILE),
)


@given(subject=SUBJECTS, seen=OBSERVATIONS)
def test_every_sentence_is_safe(subject: Subject, seen: Observation) -> None:
    """Whatever a program says, a failure has a cause and one bounded, printable line for it."""
    for finding in (judge(subject, seen), predict(subject)):
        assert (finding.cause is None) == (finding.verdict is Verdict.WORKS)
        assert (finding.explanation == "") == (finding.verdict is Verdict.WORKS)
        assert finding.explanation.isprintable()
        assert len(finding.explanation) < 3000
    assert predict(subject).cause in {None, *PREDICTABLE}
