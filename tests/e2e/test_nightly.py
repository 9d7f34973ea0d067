"""A whole night: emit the matrix, run its shards elsewhere, join them, report; as CI jobs do."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from projects import HELLO, NOXFILE, REPOSITORY, Project

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.subprocess, pytest.mark.sandbox]

SECOND = HELLO.replace("version: 1\nprograms:\n", "").replace("hello-c:\n", "other-c:\n", 1)


def checkout(place: Path, home: Path) -> Project:
    """Make a folder as a job has it: two programs, and nothing of another job."""
    made = Project(folder=place, home=home)
    made.write("noxfile.py", NOXFILE)
    made.write("variants.yaml", HELLO + SECOND)
    shutil.copytree(REPOSITORY / "examples" / "hello-c", made.folder / "hello-c")
    return made


def emitted(project: Project, *arguments: str) -> list[dict[str, str]]:
    """Return the jobs that the first one asks for."""
    done = project.cli("ci", "--emit-matrix", *arguments)
    assert done.returncode == 0, done.stderr
    found: list[dict[str, str]] = json.loads(done.stdout)["include"]
    return found


def shards(project: Project, entries: list[dict[str, str]], tmp_path: Path) -> Path:
    """Run each shard in a process, a folder and a store of its own; return the artifacts."""
    artifacts = tmp_path / "artifacts"
    artifacts.mkdir()
    for number, entry in enumerate(entries):
        job = checkout(tmp_path / f"job-{number}", project.home)
        name = f"shard-{number}.json"
        done = job.nox("-s", "matrix", "--", "--shard", entry["shard"], "--json", name)
        assert done.returncode == 0, done.stdout + done.stderr
        shutil.copy(job.folder / name, artifacts)
    return artifacts


def test_a_night(tmp_path: Path, shared_home: Path) -> None:
    """One run with one report and one exit code comes of shards; the next night knows its times."""
    project = checkout(tmp_path / "report", shared_home)
    entries = emitted(project, "--shards", "3")
    assert [each["name"] for each in entries] == ["1/3", "2/3", "3/3"]
    artifacts = shards(project, entries, tmp_path)
    files = [str(each) for each in sorted(artifacts.iterdir())]
    summary = project.folder / "summary.md"

    done = project.run(
        *(sys.executable, "-m", "nox_variants", "merge", *files, "--json", "records.json"),
        GITHUB_STEP_SUMMARY=str(summary),
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "14 variants: 10 passed, 4 xfailed, 3 shards, run " in done.stdout
    document = json.loads((project.folder / "records.json").read_text("utf-8"))
    listed = project.cli("list", "--json")
    assert [each["variant"] for each in document["records"]] == [
        each["variant"] for each in json.loads(listed.stdout)
    ]
    assert {each["run_id"] for each in document["records"]} == {document["run_id"]}
    assert "shard" not in document
    assert summary.read_text("utf-8").count("other-c") >= 7
    report = project.cli("report")
    assert f"14 variants: 10 passed, 4 xfailed, run {document['run_id']}" in report.stdout
    page = project.cli("report", "--format", "html", "--output", "report.html")
    assert page.returncode == 0, page.stderr
    assert len(emitted(project)) == 1

    again = project.cli("merge", *files)
    assert again.returncode == 0, again.stderr
    assert (
        json.loads(project.cli("report", "--format", "json").stdout)["run_id"]
        == (document["run_id"])
    )


def test_a_bad_night(tmp_path: Path, shared_home: Path) -> None:
    """A shard that is missing is an error, not a smaller run; a bad outcome is the exit code."""
    project = checkout(tmp_path / "report", shared_home)
    file = project.folder / "variants.yaml"
    wrong = file.read_text("utf-8").replace('"Hello, world!\\n"', '"Hello!\\n"', 1)

    made: dict[int, dict[str, Any]] = {}
    for number in (1, 2):
        job = checkout(tmp_path / f"job-{number}", project.home)
        job.write("variants.yaml", wrong)
        job.nox("-s", "matrix", "--", "--shard", f"{number}/2", "--json", "out.json")
        made[number] = json.loads((job.folder / "out.json").read_text("utf-8"))
        shutil.copy(job.folder / "out.json", project.folder / f"{number}.json")
    assert {each["shard"]["variants"] for each in made.values()} == {14}

    alone = project.cli("merge", "1.json")
    assert alone.returncode == 2
    assert "shard is missing: 2/2" in alone.stderr
    assert not (project.folder / ".variants" / "history.sqlite").exists()

    both = project.cli("merge", "1.json", "2.json", "--json", "all.json")
    assert both.returncode == 1, both.stdout + both.stderr
    assert "5 passed, 5 failed, 4 xfailed" in both.stdout
    assert len(json.loads((project.folder / "all.json").read_text("utf-8"))["records"]) == 14


def test_more_shards_than_stages(tmp_path: Path, shared_home: Path) -> None:
    """A shard with nothing to do says so, and counts."""
    project = checkout(tmp_path / "report", shared_home)

    done = project.nox("-s", "matrix", "--", "--shard", "9/9", "--json", "9.json")

    assert done.returncode == 0, done.stdout + done.stderr
    assert "shard 9/9: it has no variant" in done.stdout
    values = json.loads((project.folder / "9.json").read_text("utf-8"))
    assert (values["records"], values["shard"]["index"]) == ([], 9)


def test_a_mistaken_shard(tmp_path: Path, shared_home: Path) -> None:
    """It is refused before anything is done."""
    project = checkout(tmp_path / "report", shared_home)

    done = project.nox("-s", "matrix", "--", "--shard", "4/3")

    assert done.returncode == 1
    assert "'4/3' is no shard: 1/4 is the first of four" in done.stdout + done.stderr


def test_a_store_that_moved(tmp_path: Path) -> None:
    """A cache of CI brings the store elsewhere, perhaps not all of it: what is there is used."""
    home = tmp_path / "store"
    first = checkout(tmp_path / "first", home)
    only = ("--only", "hello-c(scratch,*)")
    done = first.nox("-s", "matrix", "--", *only, "--json", "out.json")
    assert done.returncode == 0, done.stdout + done.stderr
    moved = tmp_path / "elsewhere" / "store"
    moved.parent.mkdir()
    subprocess.run(["cp", "-a", home, moved], check=True)
    shutil.rmtree(home)

    second = checkout(tmp_path / "second", moved)
    done = second.nox("-s", "matrix", "--", *only, "--json", "out.json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "unpacking" not in done.stdout
    assert all(each["build_cached"] for each in second.records().values())

    for name in ("refs", "builds"):
        entries = sorted((moved / name).iterdir())
        for entry in entries[: len(entries) // 2]:
            shutil.rmtree(entry)
    third = checkout(tmp_path / "third", moved)
    done = third.nox("-s", "matrix", "--", *only, "--json", "out.json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert [each["outcome"] for each in third.records().values()] == ["xfailed", "passed"]
