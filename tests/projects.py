"""Nox as a subprocess, in projects of the tests' own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[1]

NOXFILE = 'import nox_variants\n\nnox_variants.register("variants.yaml")\n'

HELLO = """\
version: 1
programs:
  hello-c:
    language: c
    source: hello-c
    run: ["busybox:glibc", alpine, scratch]
    link: [dynamic, static]
    include:
      - {run: alpine, link: dynamic, build: alpine-gcc}
    expect:
      - {run: [alpine, scratch], link: dynamic, build: gcc, verdict: fails, cause: missing-loader}
    smoke: {stdout: "Hello, world!\\n"}
"""


@dataclass(frozen=True)
class Project:
    """A folder with a noxfile and a variants.yaml."""

    folder: Path
    home: Path
    environ: dict[str, str] = field(default_factory=dict)

    def nox(self, *arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
        """Run Nox and return what became of it."""
        return self.run(sys.executable, "-m", "nox", *arguments, **changes)

    def cli(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run `nox-variants`."""
        return self.run(sys.executable, "-m", "nox_variants", *arguments)

    def run(self, *command: str, **changes: str) -> subprocess.CompletedProcess[str]:
        """Run a command in the folder."""
        return subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment(**changes),
            text=True,
            capture_output=True,
            check=False,
        )

    def environment(self, **changes: str) -> dict[str, str]:
        """Return the environment of the project's commands."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("NOX")}
        return {
            **kept,
            "NOX_VARIANTS_HOME": str(self.home),
            "NOX_VARIANTS_ENGINE": "embedded",
            "NO_COLOR": "1",
            **self.environ,
            **changes,
        }

    def write(self, name: str, text: str) -> Path:
        """Write a file of the project."""
        file = self.folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
        return file

    def records(self, name: str = "out.json") -> dict[str, dict[str, Any]]:
        """Return the records of a `--json` file by variant."""
        values = json.loads((self.folder / name).read_text(encoding="utf-8"))
        return {record["variant"]: record for record in values["records"]}
