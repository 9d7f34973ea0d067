"""A matrix of handmade images, cold in a second: what faults and the soak are tried on."""

from __future__ import annotations

import fcntl
import json
import sqlite3
import tarfile
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from handmade import make_roots
from nox_variants.store import Store
from nox_variants.verification import verify
from projects import NOXFILE, Project

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

FILE = """\
version: 1
defaults: {language: plain, source: source, run: small, link: static}
programs:
  hello:
    run: [small, scratch]
    link: [static, dynamic]
    include: [{run: tools, link: static}]
    expect: [{link: dynamic, verdict: fails, cause: missing-loader}]
    smoke: {stdout: "Hello, world!\\n"}
  installed:
    language: installed
    smoke: {stdout: "Hello, world!\\n"}
  broken:
    language: broken
    expect: [{link: static, verdict: fails, cause: build-failed}]
  stuck:
    language: sleeper
    expect: [{link: static, verdict: fails, cause: timeout}]
    smoke: {timeout: 0.2s}
images:
  tools: {archive: {path: tools.tar, setup: ["echo 1 >/etc/made"]}}
  small: {archive: small.tar}
languages:
  plain:
    artifact: /out/{program}
    caches: [/root/kept]
    link:
      static:
        build: tools
        commands: ['cp /usr/lib/hello-static /out/{program}', 'echo s >>/root/kept/compiled']
      dynamic:
        build: tools
        commands: ['cp /usr/lib/hello-dynamic /out/{program}', 'echo d >>/root/kept/compiled']
  installed:
    artifact: /out/{program}
    link:
      static:
        build: tools
        commands: "cp /usr/lib/hello-static /out/{program}"
        install: "{artifact} >/etc/said"
  sleeper:
    artifact: /out/{program}
    cmd: [/bin/sleep, "600"]
    link: {static: {build: tools, commands: "cp /usr/lib/hello-static /out/{program}"}}
  broken:
    artifact: /out/{program}
    link: {static: {build: tools, commands: "exit 3"}}
"""

EXPECTED = {
    "hello(small,static)": ("works", "passed"),
    "hello(small,dynamic)": ("fails", "xfailed"),
    "hello(scratch,static)": ("works", "passed"),
    "hello(scratch,dynamic)": ("fails", "xfailed"),
    "hello(tools,static)": ("works", "passed"),
    "installed(small,static)": ("works", "passed"),
    "broken(small,static)": ("fails", "xfailed"),
    "stuck(small,static)": ("fails", "xfailed"),
}
"""Verdicts and outcomes."""

COMPILED = ["d", "s"]
"""What is left of the compiles of `hello`, each done once."""


def make(folder: Path, home: Path, archives: Path, **environ: str) -> Project:
    """Write a project.

    Args:
        folder: Where it goes.
        home: Its store.
        archives: What :func:`save` wrote.
        environ: More of its environment.
    """
    project = Project(folder=folder, home=home, environ=environ)
    project.write("noxfile.py", NOXFILE)
    project.write("variants.yaml", FILE)
    project.write("source/text", "text\n")
    for archive in archives.iterdir():
        (folder / archive.name).hardlink_to(archive)
    return project


def save(folder: Path) -> Path:
    """Write the archives of the images into a new folder; skip where this machine cannot."""
    roots, archives = make_roots(folder / "roots"), folder / "archives"
    archives.mkdir()
    for name, root in {"tools": roots["gcc"], "small": roots["alpine"]}.items():
        with tarfile.open(archives / f"{name}.tar", "w") as tar:
            tar.add(root, ".")
    return archives


def essence(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return what every run of the same matrix has to say about a variant."""
    seen = record["smoke"] or {}
    return {
        **{name: record[name] for name in ("verdict", "cause", "outcome", "reason", "sizes")},
        **{name: record[name] for name in ("explanation", "image", "linkage", "predicted")},
        "images": [each["digest"] for each in record["images"]],
        "smoke": [seen.get(name) for name in ("exit_code", "stdout", "stderr", "timed_out")],
    }


@dataclass(frozen=True)
class Whole:
    """What has to be whole about a project that nobody uses just now."""

    project: Project

    def damage(self) -> list[str]:
        """Return what is wrong with its store: entries, what is unfinished, locks that are held."""
        home = self.project.home
        with closing(Store(home)) as store:
            entries = [each for each in verify(store) if each.damage]
            found = [f"{each.kind}/{each.key}: {each.damage}" for each in entries]
            left = [path.name for path in (home / "tmp").iterdir() if path.suffix != ".lock"]
        return [*found, *left, *_held(home / "locks")]

    def half_written(self) -> list[str]:
        """Return files of its own folder that were begun and not finished."""
        folder = self.project.folder / ".variants"
        return [path.name for path in folder.rglob(".*") if path.name != ".gitignore"]

    def compiled(self) -> list[str]:
        """Return what the compiles of `hello` left in the folder that they keep."""
        (file,) = self.project.home.glob("caches/*/compiled")
        return sorted(file.read_text("utf-8").split())

    def records(self) -> dict[str, int]:
        """Return how many records each run has in the history, which has to be sound."""
        file = self.project.folder / ".variants/history.sqlite"
        if not file.exists():
            return {}
        with closing(sqlite3.connect(file)) as database:
            assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            if not database.execute("SELECT name FROM sqlite_schema").fetchall():
                return {}
            for (text,) in database.execute("SELECT record FROM records"):
                json.loads(text)
            return dict(database.execute("SELECT run_id, count(*) FROM records GROUP BY run_id"))


def _held(folder: Path) -> list[str]:
    """Return the names of locks that somebody holds."""
    found = []
    for file in folder.iterdir() if folder.is_dir() else ():
        with file.open("ab") as opened:
            try:
                fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                found.append(file.name)
    return found
