"""What Nox runs: the matrix and single variants, selected in every way that Nox knows."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import jsonschema
import pytest

from nox_variants.history import History
from nox_variants.record import json_schema

if TYPE_CHECKING:
    from projects import Project

pytestmark = [pytest.mark.apt, pytest.mark.sandbox]


def ran(project: Project, *arguments: str) -> dict[str, str]:
    """Run Nox and return status by session, from its own report."""
    done = project.nox("--report", "report.json", *arguments)
    report = json.loads((project.folder / "report.json").read_text(encoding="utf-8"))
    sessions = {each["signatures"][0]: each["result"] for each in report["sessions"]}
    assert sessions, done.stdout + done.stderr
    return sessions


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["-s", "hello-c(scratch,static)"], ["hello-c(scratch,static)"]),
        (["-s", "hello-c(busybox:glibc,dynamic)"], ["hello-c(busybox:glibc,dynamic)"]),
        (["-s", "hello-c(alpine,dynamic,alpine-gcc)"], ["hello-c(alpine,dynamic,alpine-gcc)"]),
        (["-t", "scratch"], ["hello-c(scratch,dynamic)", "hello-c(scratch,static)"]),
        (["-k", "scratch and static"], ["hello-c(scratch,static)"]),
        (
            ["-j", "2", "-t", "static"],
            [
                "hello-c(alpine,static)",
                "hello-c(busybox:glibc,static)",
                "hello-c(scratch,static)",
            ],
        ),
    ],
)
def test_selection(project: Project, arguments: list[str], expected: list[str]) -> None:
    """Ids, tags, keywords and `-j 2` run just what they name, and it succeeds."""
    assert ran(project, *arguments) == dict.fromkeys(expected, "success")


def test_program_runs_all_of_its_variants(project: Project) -> None:
    """`nox -s hello-c` runs every variant of the program; expected failures succeed."""
    sessions = ran(project, "-s", "hello-c")

    assert len(sessions) == 7
    assert set(sessions.values()) == {"success"}


def test_matrix_records_everything(project: Project) -> None:
    """One command gives verdicts, causes, sizes and facts, as JSON and in the history."""
    done = project.nox("-s", "matrix", "--", "--json", "out.json")

    assert done.returncode == 0, done.stdout + done.stderr
    records = project.records()
    schema = json_schema()
    for record in records.values():
        jsonschema.validate(record, schema)
    assert {
        name: (record["verdict"], record["cause"], record["outcome"])
        for name, record in records.items()
    } == {
        "hello-c(busybox:glibc,dynamic)": ("works", None, "passed"),
        "hello-c(busybox:glibc,static)": ("works", None, "passed"),
        "hello-c(alpine,dynamic)": ("fails", "missing-loader", "xfailed"),
        "hello-c(alpine,static)": ("works", None, "passed"),
        "hello-c(scratch,dynamic)": ("fails", "missing-loader", "xfailed"),
        "hello-c(scratch,static)": ("works", None, "passed"),
        "hello-c(alpine,dynamic,alpine-gcc)": ("works", None, "passed"),
    }
    smallest = records["hello-c(scratch,static)"]
    assert smallest["sizes"]["content"] == smallest["sizes"]["binary"] > 100_000
    assert smallest["linkage"]["actual"] == "static"
    assert any(line.startswith("libc6=") for line in smallest["images"][0]["packages"])
    assert all(image["stand_in"] for image in records["hello-c(alpine,static)"]["images"])
    run_id = smallest["run_id"]
    with History(project.folder / ".variants" / "history.sqlite") as history:
        assert {record.variant for record in history.run(run_id)} == set(records)
    assert "7 variants: 5 passed, 2 xfailed in" in done.stdout
    assert "stand-ins:" in done.stdout


def test_second_run_compiles_nothing(project: Project) -> None:
    """Warm, every build comes from the cache, and the images are the same to the digest."""
    project.nox("-s", "matrix", "--", "--json", "first.json")
    project.nox("-s", "matrix", "--", "--json", "second.json")

    first, second = project.records("first.json"), project.records("second.json")
    assert all(record["build_cached"] for record in second.values())
    assert {name: record["image"]["config_digest"] for name, record in first.items()} == {
        name: record["image"]["config_digest"] for name, record in second.items()
    }


def test_variant_session_prints_its_row_and_its_image(project: Project) -> None:
    """A single variant says where its image lies, and it does lie there."""
    done = project.nox("-s", "hello-c(scratch,static)")

    line = next(line for line in done.stdout.splitlines() if line.startswith("image: "))
    assert (project.folder / line.removeprefix("image: ") / "index.json").is_file()
    assert "hello-c(scratch,static)" in done.stdout


def test_unexpected_verdict_fails_the_session(project: Project) -> None:
    """Expecting the wrong thing is a non-zero exit, said in Nox's report without a traceback."""
    text = (project.folder / "variants.yaml").read_text(encoding="utf-8")
    project.write("variants.yaml", text.replace("[alpine, scratch]", "[scratch]"))

    done = project.nox("--report", "report.json", "-s", "matrix")

    assert done.returncode == 1
    assert "Traceback" not in done.stderr + done.stdout
    report = json.loads((project.folder / "report.json").read_text(encoding="utf-8"))
    assert report["sessions"][0]["reason"] == "1 variant: 1 failed"
    assert "/lib64/ld-linux-x86-64.so.2" in done.stdout


def test_build_failure_is_shown_once(project: Project) -> None:
    """The compiler's words appear once for the stage; every variant of it fails."""
    project.write("hello-c/hello.c", "int main(void) { return oops; }\n")

    done = project.nox("-s", "matrix", "--", "--json", "out.json", "--only", "*static)")

    assert done.returncode == 1
    assert done.stdout.count("'oops' undeclared") == 1
    assert {record["cause"] for record in project.records().values()} == {"build-failed"}
    assert len(project.records()) == 3


def test_missing_source_is_skipped_or_an_error(project: Project) -> None:
    """An image that has no usable source skips its variants; `--strict` makes that an error."""
    only = ("--only", "hello-c(scratch,static)", "--images", "registry", "--json", "out.json")

    lenient = project.nox("-s", "matrix", "--", *only)
    (record,) = project.records().values()
    strict = project.nox("-s", "matrix", "--", *only, "--strict")

    assert (lenient.returncode, strict.returncode) == (0, 1)
    assert record["outcome"] == "skipped"
    assert "registry" in record["reason"]


def test_mistakes_in_options_are_explained(project: Project) -> None:
    """An unknown option or id is one sentence; `--help` succeeds."""
    unknown = project.nox("-s", "matrix", "--", "--onyl", "x")
    nothing = project.nox("-s", "matrix", "--", "--only", "hello-d*")
    helped = project.nox("-s", "matrix", "--", "--help")

    assert (unknown.returncode, nothing.returncode, helped.returncode) == (1, 1, 0)
    assert "unrecognized arguments: --onyl x" in unknown.stderr + unknown.stdout
    assert "hello-d*" in nothing.stderr + nothing.stdout
    assert "Traceback" not in unknown.stderr + nothing.stderr
    assert "usage: nox -s matrix --" in helped.stdout


COMMAND = ("-m", "nox", "-s", "matrix", "--", "--jobs", "2")

SLOW = """\
  slow:
    language: c
    source: hello-c
    run: scratch
    link: static
    smoke: {args: ["600"], timeout: 10m}
"""

SLEEPER = """\
#include <stdio.h>
#include <unistd.h>
int main(int n, char **words) {
    puts("Hello, world!");
    fflush(stdout);
    if (n > 1) sleep(600);
    return 0;
}
"""


def test_interrupt_leaves_finished_records_and_no_child(project: Project) -> None:
    """Ctrl-C ends every child; what had finished is in the history; the next run works."""
    project.write("hello-c/hello.c", SLEEPER)
    text = (project.folder / "variants.yaml").read_text(encoding="utf-8")
    project.write("variants.yaml", text + SLOW)
    process = subprocess.Popen(
        # What runs in the background of a shell ignores SIGINT, and so would what it starts.
        [*("env", "--default-signal=INT", sys.executable), *COMMAND],
        cwd=project.folder,
        env=project.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    finished = 0
    while finished < 7:
        line = process.stdout.readline()
        assert line, "it ended before it was interrupted"
        finished += line.startswith(("passed", "xfailed"))
    wait_for_program("/slow")
    os.killpg(process.pid, signal.SIGINT)
    rest = process.stdout.read()
    process.wait()
    process.stdout.close()

    assert process.returncode == 130, rest
    assert "Traceback" not in rest
    assert not running("/slow", "600")
    with History(project.folder / ".variants" / "history.sqlite") as history:
        last = history.last_run()
        assert last is not None
        assert len(history.run(last)) == 7
    project.write("variants.yaml", text)
    assert project.nox("-s", "matrix").returncode == 0


def running(*argv: str) -> bool:
    """Tell whether a process of this machine has just these words."""
    words = b"\0".join(word.encode() for word in argv) + b"\0"
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if file.read_bytes() == words:
                return True
    return False


def wait_for_program(name: str) -> None:
    """Wait until a program is in its smoke run."""
    end = time.monotonic() + 30
    while not running(name, "600"):
        assert time.monotonic() < end, f"{name} never ran"
        time.sleep(0.02)


def test_fail_fast_begins_nothing_new(project: Project) -> None:
    """After the first bad outcome the rest is accounted for as not started."""
    text = (project.folder / "variants.yaml").read_text(encoding="utf-8")
    project.write("variants.yaml", text.replace('stdout: "Hello, world!\\n"', 'stdout: "Bye\\n"'))

    done = project.nox("-s", "matrix", "--", "--fail-fast", "--jobs", "1", "--json", "out.json")

    assert done.returncode == 1
    outcomes = [record["outcome"] for record in project.records().values()]
    assert len(outcomes) == 7
    assert outcomes.count("failed") == 1
    assert {"failed", "skipped"} >= set(outcomes) - {"xfailed"}


def test_two_matrices_at_once_share_one_store(project: Project) -> None:
    """Two processes on one store and one history both succeed."""
    command = [sys.executable, "-m", "nox", "-s", "matrix"]
    both = [
        subprocess.Popen(
            command, cwd=project.folder, env=project.environment(), stdout=subprocess.DEVNULL
        )
        for _ in range(2)
    ]

    assert [process.wait() for process in both] == [0, 0]
