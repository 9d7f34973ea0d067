"""`nox-variants debug`: what it takes, what it asks an engine for, and the tools it brings."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from elffiles import GLIBC_LOADER, INTERP, Maker
from nox_variants import cli, commands, config
from nox_variants.commands import debug
from nox_variants.engines.fake import FakeEngine
from nox_variants.errors import BuildFailed, ImageError, ImageUnavailable, UsageError, VariantsError
from nox_variants.matrix import Dropped, Expansion
from nox_variants.model import (
    Digest,
    Image,
    ImageSource,
    LinkMode,
    Location,
    Smoke,
    SourceKind,
    VariantId,
)
from nox_variants.results import PreparedImage
from nox_variants.sandbox import shell
from nox_variants.sandbox.bubblewrap import PATH
from nox_variants.store import Store
from samples import SETTINGS, variant

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

BUSYBOX = Image(name="busybox", sources=(ImageSource(kind=SourceKind.APT, packages=("busybox",)),))
WITH_TOOLS = replace(SETTINGS, images=(*SETTINGS.images, BUSYBOX))
STATIC = variant("scratch", LinkMode.STATIC)
TOOLS = PreparedImage(
    name="busybox", kind=SourceKind.APT, reference="", digest=Digest("sha256:" + "1" * 64)
)

EXPANSION = Expansion(
    variants=(STATIC, variant("scratch", LinkMode.DYNAMIC)),
    dropped=(
        Dropped(
            id=VariantId("hello-c(alpine,static)"),
            rule=Location(file="variants.yaml", line=9, column=9, path="hello-c.exclude[0]"),
        ),
    ),
)


@pytest.mark.parametrize(
    "name", ["hello-c(scratch,static)", "hello-c(scratch, static)", "*static)"]
)
def test_one_variant_is_found(name: str) -> None:
    """An id names a variant, white space aside; so does a glob that fits no other."""
    assert commands.find(EXPANSION, name) is STATIC


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "hello-c(alpine, static)",
            (
                "hello-c(alpine,static) is no variant: hello-c.exclude[0] drops it"
                " (variants.yaml:9:9). `nox-variants list` shows those that are left."
            ),
        ),
        (
            "hello-c(scratch,statc)",
            "no variant matches 'hello-c(scratch,statc)'. Did you mean 'hello-c(scratch,static)'?",
        ),
        (
            "*",
            "'*' is 2 variants: hello-c(scratch,static), hello-c(scratch,dynamic). Name one.",
        ),
    ],
)
def test_no_variant_is_found(name: str, said: str) -> None:
    """What is no variant is explained; of several, one has to be named."""
    with pytest.raises(UsageError) as caught:
        commands.find(EXPANSION, name)

    assert str(caught.value) == said


@pytest.mark.parametrize(
    ("words", "command"),
    [
        ((), ""),
        (("--",), ""),
        (("--", "ls", "-l"), "ls -l"),
        (("--engine", "embedded", "--", "env", "--", "--help"), "env -- --help"),
    ],
)
def test_command_line(
    words: tuple[str, ...], command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What follows ``--`` is the command, its own options and ``--`` included."""
    taken: list[str] = []

    def run(args: argparse.Namespace) -> int:
        taken.append(" ".join(args.command))
        return 7

    monkeypatch.setattr(debug, "run", run)

    assert cli.main(["debug", "hello-c(scratch,static)", *words]) == 7
    assert taken == [command]


@pytest.mark.parametrize(
    ("command", "terminal", "asked"),
    [((), "xterm", "busybox xterm"), (("ls", "-l"), "", "busybox ls -l")],
)
def test_what_is_asked_of_the_engine(
    command: tuple[str, ...], terminal: str, asked: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Images, build and image are made, then the shell is run; its exit code is the answer."""
    engine = FakeEngine(debugged=7)
    smoke = Smoke(args=("a b",))
    settings = replace(
        WITH_TOOLS, programs=tuple(replace(each, smoke=smoke) for each in WITH_TOOLS.programs)
    )

    assert debug.debug(engine, settings, STATIC, command, terminal=terminal) == 7

    assert [name for name, _ in engine.calls] == [
        *("prepare", "prepare", "build", "prepare", "assemble", "debug")
    ]
    assert engine.calls[-1][1] == f"hello-c:gcc-static.scratch: {asked}"
    assert capsys.readouterr().err == (
        "hello-c(scratch,static): its own files, and busybox's tools in /.debug/bin. Its command:"
        " /hello-c 'a b'. Ctrl-D or exit leaves; what you write is thrown away.\n"
        if terminal
        else ""
    )


@pytest.mark.parametrize(
    ("engine", "said"),
    [
        (FakeEngine(builds={"gcc": BuildFailed("no", log="hello.c:1: wrong\n")}), "wrong\n"),
        (FakeEngine(images={"busybox": ImageUnavailable("no")}), ""),
    ],
)
def test_failures(engine: FakeEngine, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What does not compile shows why; nothing is run then."""
    with pytest.raises(VariantsError):
        debug.debug(engine, WITH_TOOLS, STATIC, (), terminal="")

    assert capsys.readouterr().err.endswith(said)
    assert "debug" not in [name for name, _ in engine.calls]


def test_tools_are_in_the_catalogue(tmp_path: Path) -> None:
    """A file need not name the image that the tools come from."""
    file = tmp_path / "variants.yaml"
    file.write_text(
        "version: 1\nprograms: {a: {language: c, source: ., run: [scratch], link: [static]}}\n",
        encoding="utf-8",
    )

    assert debug.TOOLS in [image.name for image in config.load(file).images]


def make_root(folder: Path, program: bytes) -> Path:
    """Make the root of an image with busybox under several names."""
    for name in ("bin", "usr/bin"):
        (folder / name).mkdir(parents=True)
    (folder / "bin/busybox").write_bytes(program)
    os.link(folder / "bin/busybox", folder / "bin/ls")
    (folder / "usr/bin/env").symlink_to("/bin/busybox")
    (folder / "bin/other").write_bytes(program)
    (folder / "bin/nowhere").symlink_to("/gone")
    return folder


def test_tools(tmp_path: Path, home: Path) -> None:
    """Busybox is brought under all its names, hard links and others, and under no other."""
    store = Store(home)
    root = make_root(tmp_path / "root", Maker().build())

    made = shell.tools(store, TOOLS, root)

    assert {path.name for path in (made / ".debug/bin").iterdir()} == {"busybox", "ls", "env", "sh"}
    assert (made / ".debug/bin/env").readlink().name == "busybox"
    assert (made / ".debug/bin/busybox").read_bytes() == Maker().build()
    assert os.access(made / ".debug/bin/busybox", os.X_OK)
    assert shell.tools(store, TOOLS, tmp_path / "gone") == made


@pytest.mark.parametrize(
    "program", [None, b"#!/bin/sh\n", Maker().add(INTERP, GLIBC_LOADER).build()]
)
def test_no_tools(program: bytes | None, tmp_path: Path, home: Path) -> None:
    """A busybox that needs a loader, or none at all, helps nobody on an empty image."""
    root = tmp_path / "root"
    if program is not None:
        make_root(root, program)

    with pytest.raises(ImageError, match="image busybox has no static /bin/busybox"):
        shell.tools(Store(home), TOOLS, root)


@pytest.mark.parametrize(
    ("env", "kind", "wanted"),
    [
        ((), "", {"PATH": f"{PATH}:/.debug/bin"}),
        ((("PATH", ""),), "", {"PATH": f"{PATH}:/.debug/bin"}),
        (
            (("PATH", "/a"), ("PATH", "/b"), ("A", "1")),
            "xterm",
            {"PATH": "/b:/.debug/bin", "A": "1", "TERM": "xterm"},
        ),
        ((("TERM", "vt100"),), "xterm", {"PATH": f"{PATH}:/.debug/bin", "TERM": "vt100"}),
    ],
)
def test_environment(env: tuple[tuple[str, str], ...], kind: str, wanted: dict[str, str]) -> None:
    """The tools are the last that PATH finds; TERM is the user's where the image has none."""
    assert shell.environment(env, kind) == wanted
