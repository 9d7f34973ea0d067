"""The record that a team looks at: baseline, budgets, what moved, reports; as Nox runs it."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest

from projects import NOXFILE, REPOSITORY, Project

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.subprocess, pytest.mark.sandbox]

FILE = """\
version: 1
programs:
  hello-c:
    language: c
    source: hello-c
    run: [scratch, small]
    link: static
    smoke: {stdout: "Hello, world!\\n"}
    budget:
      - {size: {growth: 10%, ratchet: true}, where: {run: scratch}}
      - {size: {warn: 1kB}, where: {run: small}}
images: {small: {apt: busybox-static}}
"""
SCRATCH, SMALL = "hello-c(scratch,static)", "hello-c(small,static)"


@pytest.fixture
def project(tmp_path: Path, shared_home: Path) -> Project:
    """A C program with budgets, and its baseline."""
    made = Project(folder=tmp_path / "project", home=shared_home)
    made.write("noxfile.py", NOXFILE)
    made.write("variants.yaml", FILE)
    shutil.copytree(REPOSITORY / "examples" / "hello-c", made.folder / "hello-c")
    done = made.nox("-s", "matrix", "--", "--update-baseline")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "variants.lock: 2 of 2 variants are in the baseline now" in done.stdout
    return made


def grow(project: Project) -> None:
    """Add 400 kB to the program."""
    file = project.folder / "hello-c" / "hello.c"
    text = file.read_text("utf-8")
    file.write_text(f"const volatile char big[400000] = {{1}};\n{text}", encoding="utf-8")


def rows(project: Project) -> dict[str, dict[str, object]]:
    """Return the rows of the baseline's variants."""
    lock = json.loads((project.folder / "variants.lock").read_text("utf-8"))
    (platform,) = lock["platforms"].values()
    found: dict[str, dict[str, object]] = {}
    for each in platform["variants"].values():
        found |= each
    return found


def test_growth_fails_the_run_with_its_reason(project: Project) -> None:
    """The morning after: what grew, from what, and whose bytes they are; in the summary, too."""
    grow(project)
    summary = project.folder / "summary.md"

    done = project.nox("-s", "matrix", "--", "--json", "out.json", GITHUB_STEP_SUMMARY=str(summary))

    assert done.returncode == 1
    assert f"failed: {SCRATCH}" in done.stdout
    assert "of the baseline, and may be" in done.stdout
    assert "own layer +40" in done.stdout
    assert f"budget: {SMALL}" in done.stdout
    assert "since the baseline: 2 bigger" in done.stdout
    records = project.records()
    assert {name: each["outcome"] for name, each in records.items()} == {
        SCRATCH: "failed",
        SMALL: "passed",
    }
    assert [each["exceeded"] for each in records[SMALL]["budget"]] == [True]
    assert "| hello-c(scratch,static) | bigger |" in summary.read_text("utf-8")


def test_the_ratchet_holds_an_update(project: Project) -> None:
    """`--update-baseline` agrees on growth, but a ratchet has to be let go on purpose."""
    grow(project)
    before = rows(project)

    done = project.nox("-s", "matrix", "--", "--update-baseline")

    assert done.returncode == 1
    assert "that its ratchet keeps" in done.stdout
    after = rows(project)
    assert after[SCRATCH]["ratchet"] == before[SCRATCH]["ratchet"]
    assert int(str(after[SCRATCH]["content"])) > int(str(before[SCRATCH]["content"]))


def test_locked_runs_and_rows_that_are_not_there(project: Project) -> None:
    """The images of the lock are used; new variants have no row, old rows are stale."""
    file = project.folder / "variants.yaml"
    changed = FILE.replace("run: [scratch, small]", "run: [scratch, alpine]")
    file.write_text(changed.replace("where: {run: small}", "where: {run: alpine}"), "utf-8")

    done = project.nox("-s", "matrix")
    locked = project.nox("-s", SCRATCH, "--", "--locked")
    other = project.nox("-s", "hello-c(alpine,static)", "--", "--locked")

    assert "variants.lock: no row of hello-c(alpine,static)" in done.stdout
    assert f"variants.lock: stale rows, {SMALL}" in done.stdout
    assert locked.returncode == 0, locked.stdout
    assert other.returncode == 1
    assert "alpine" in other.stdout
    assert "variants.lock" in other.stdout
    assert "error" in other.stdout


def test_locked_without_a_lock(project: Project) -> None:
    """It says how to have one."""
    (project.folder / "variants.lock").unlink()

    done = project.nox("-s", "matrix", "--", "--locked")

    assert done.returncode == 1
    assert "--locked: there is no" in done.stderr + done.stdout
    assert "--update-baseline` writes it" in done.stderr + done.stdout


def test_every_variant_in_a_process_of_its_own(project: Project) -> None:
    """Sessions of `nox -j` update one baseline, and lose nothing of each other."""
    (project.folder / "variants.lock").unlink()

    done = project.nox("-s", "hello-c", "-j", "2", "--", "--update-baseline")

    assert done.returncode == 0, done.stdout + done.stderr
    assert set(rows(project)) == {SCRATCH, SMALL}


def test_reports_of_real_runs(project: Project) -> None:
    """Every format can be made of what runs recorded; a damaged history is rebuilt."""
    export = project.cli(
        *("report", "--format", "jsonl", "--since", "all", "--output", ".variants/all.jsonl")
    )
    assert export.returncode == 0, export.stderr
    for form in ("table", "markdown", "junit", "json", "html"):
        done = project.cli("report", "--format", form)
        assert (done.returncode, SCRATCH in done.stdout) == (0, True), done.stderr
    history = project.folder / ".variants" / "history.sqlite"
    for suffix in ("-wal", "-shm"):
        history.with_name(history.name + suffix).unlink(missing_ok=True)
    history.write_bytes(b"\0" * 8192)

    done = project.nox("-s", SCRATCH)

    assert done.returncode == 0, done.stdout
    assert "is damaged (file is not a database): set aside as" in done.stdout
    assert "2 more records from all.jsonl" in done.stdout
    trends = project.cli("report", "--since", "1d")
    assert trends.stdout.splitlines()[1].split()[:2] == [SCRATCH, "2"]
