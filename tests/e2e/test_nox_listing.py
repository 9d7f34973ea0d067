"""What Nox lists: every variant, in words and for machines, quickly and silently."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from projects import Project

pytestmark = pytest.mark.subprocess

IDS = [
    "hello-c(busybox:glibc,dynamic)",
    "hello-c(busybox:glibc,static)",
    "hello-c(alpine,dynamic)",
    "hello-c(alpine,static)",
    "hello-c(scratch,dynamic)",
    "hello-c(scratch,static)",
    "hello-c(alpine,dynamic,alpine-gcc)",
]


def test_list_shows_every_variant_with_a_line(project: Project) -> None:
    """`nox -l` names matrix and every variant, each with tags and a description."""
    done = project.nox("-l")

    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith("- ")]
    assert lines[0] == ("- matrix -> Build, smoke-run and record all 7 variants of hello-c.")
    assert lines[1] == (
        "- hello-c(busybox:glibc,dynamic) [variant,hello_c,c,busybox_glibc,gcc,dynamic]"
        " -> Build hello-c (c) in gcc or alpine-gcc and smoke-run it."
    )
    assert [line.split()[1] for line in lines[1:]] == IDS


def test_json_listing_is_complete(project: Project) -> None:
    """`nox -l --json -t variant` gives every variant to machines."""
    done = project.nox("-l", "--json", "-t", "variant")

    assert done.returncode == 0, done.stderr
    sessions = json.loads(done.stdout)
    assert [session["session"] for session in sessions] == IDS
    assert all("variant" in session["tags"] for session in sessions)


def test_usage_tells_each_variant_apart(project: Project) -> None:
    """`nox --usage` of a variant names build image, link mode and run image of each."""
    done = project.nox("--usage", "hello-c(scratch,static)", "-s", "hello-c(scratch,static)")

    assert "hello-c(scratch,static): built in gcc, static, runs in scratch" in done.stdout


def test_listing_touches_nothing(project: Project) -> None:
    """Registration reads the file and writes nothing, and prints nothing of its own."""
    before = sorted(project.folder.rglob("*"))

    done = project.nox("-l", PYTHONDONTWRITEBYTECODE="1")

    assert sorted(project.folder.rglob("*")) == before
    assert "Traceback" not in done.stderr


def test_nothing_runs_by_default(project: Project) -> None:
    """Plain `nox` runs no variant: they are not default sessions."""
    done = project.nox("--report", "report.json")

    assert "Running session" not in done.stderr + done.stdout


def test_mistakes_are_printed_without_a_traceback(project: Project) -> None:
    """A wrong file ends Nox with status 2 and one line per problem."""
    text = (project.folder / "variants.yaml").read_text(encoding="utf-8")
    project.write("variants.yaml", text.replace("alpine, scratch]", "alpin, scratch]", 1))

    done = project.nox("-l")

    assert done.returncode == 2
    assert "Traceback" not in done.stderr + done.stdout
    assert "variants.yaml:6:28: programs.hello-c.run[1]: unknown image 'alpin'." in done.stderr
    assert "Did you mean 'alpine'?" in done.stderr
