"""Snapshots: what is taken, what decides the digest, and every source that cannot be taken."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nox_variants.errors import SourceError, VariantsError
from nox_variants.plan import WORKDIR
from nox_variants.sources import MOST_BYTES, Sources
from nox_variants.store import Store
from ordinary import ordinary_user

if TYPE_CHECKING:
    from collections.abc import Callable

    from nox_variants.sources import Snapshot


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with one source folder."""
    folder = tmp_path / "project"
    (folder / "hello").mkdir(parents=True)
    (folder / "hello" / "hello.c").write_text("int main;\n", encoding="utf-8")
    return folder


@pytest.fixture
def source(project: Path) -> Path:
    """The source folder of the project."""
    return project / "hello"


@pytest.fixture
def take(project: Path, home: Path) -> Callable[[], Snapshot]:
    """Takes a snapshot of the source folder, as a run of its own."""
    return lambda: Sources(Store(home), roots=(project,)).snapshot(project / "hello")


def names(snapshot: Snapshot) -> list[str]:
    """Return what is in a snapshot."""
    top = snapshot.root / WORKDIR.lstrip("/")
    return sorted(os.fspath(path.relative_to(top)) for path in top.rglob("*"))


def write(folder: Path, **files: str) -> None:
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")


def test_snapshot_holds_the_source(source: Path, take: Callable[[], Snapshot]) -> None:
    """Files, folders, links and the executable bit are there, and nothing else of the modes."""
    (source / "sub" / "empty").mkdir(parents=True)
    (source / "run.sh").write_bytes(b"#!/bin/sh\n")
    (source / "run.sh").chmod(0o4700)
    (source / "hello.c").chmod(0o671)
    (source / "sub").chmod(0o700)
    (source / "link").symlink_to("sub/../hello.c")
    (source / "folder").symlink_to("sub")
    top = take().root / "src"

    assert {
        path.name: stat.S_IMODE(path.stat().st_mode)
        for path in (top, *(path for path in top.rglob("*") if not path.is_symlink()))
    } == {"src": 0o755, "sub": 0o755, "empty": 0o755, "hello.c": 0o644, "run.sh": 0o755}
    assert (top / "link").readlink() == Path("sub/../hello.c")
    assert (top / "folder").readlink() == Path("sub")
    assert (top / "hello.c").read_bytes() == b"int main;\n"


def test_snapshot_has_one_time(source: Path, take: Callable[[], Snapshot]) -> None:
    """Everything has the time at which the snapshot was taken, however old the file is."""
    (source / "sub").mkdir()
    (source / "link").symlink_to("hello.c")
    (source / "folder").symlink_to("sub")
    os.utime(source / "hello.c", (1, 1))
    top = take().root

    times = {path.lstat().st_mtime_ns for path in (top, *top.rglob("*"))}
    assert len(times) == 1
    assert times.pop() >= (source / "sub").stat().st_mtime_ns


def test_umask_does_not_count(source: Path, take: Callable[[], Snapshot]) -> None:
    """A snapshot taken under a strict umask can be read by a build's other users too."""
    (source / "sub").mkdir()
    before = os.umask(0o077)
    try:
        top = take().root / "src"
    finally:
        os.umask(before)

    assert stat.S_IMODE(top.stat().st_mode) == 0o755
    assert stat.S_IMODE((top / "sub").stat().st_mode) == 0o755


def test_folder_is_read_once(source: Path, project: Path, home: Path) -> None:
    """One run builds from one snapshot, also when the source changes meanwhile."""
    sources = Sources(Store(home), roots=(project,))
    first = sources.snapshot(source)
    write(source, new="text")

    assert sources.snapshot(source) is first
    assert Sources(Store(home), roots=(project,)).snapshot(source).digest != first.digest


def test_digest_is_known(take: Callable[[], Snapshot]) -> None:
    """The digest is a function of the content: a change of this value makes builds unused."""
    assert take().digest == "2d7b398fca6974f3da3204725ba50e2484efd56f61aec223b2e853398158fcb8"


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: (folder / "hello.c").write_text("int main ;\n", encoding="utf-8"),
        lambda folder: (folder / "hello.c").chmod(0o755),
        lambda folder: (folder / "hello.c").rename(folder / "hallo.c"),
        lambda folder: (folder / "new").mkdir(),
        lambda folder: (folder / "new").symlink_to("hello.c"),
        lambda folder: (folder / "new").touch(),
    ],
    ids=["bytes", "executable bit", "name", "folder", "link", "file"],
)
def test_digest_changes(
    source: Path, take: Callable[[], Snapshot], change: Callable[[Path], object]
) -> None:
    """Whatever a build can see in a source changes its digest."""
    first = take()
    change(source)

    assert take().digest != first.digest


def test_digest_does_not_change(source: Path, take: Callable[[], Snapshot]) -> None:
    """Times, other mode bits and what .dockerignore leaves out do not change the digest."""
    write(source, **{".dockerignore": "out\n"})
    first = take()
    os.utime(source / "hello.c", (1, 1))
    (source / "hello.c").chmod(0o640)
    write(source, out="text")

    assert take() == first


CONTENT = st.tuples(st.sampled_from("fxdl"), st.binary(max_size=3))


@settings(max_examples=15, deadline=None)
@given(
    trees=st.lists(
        st.dictionaries(st.sampled_from(["a", "b", "ab", "\xe4"]), CONTENT), min_size=2, max_size=2
    )
)
def test_digest_tells_sources_apart(
    tmp_path_factory: pytest.TempPathFactory, trees: list[dict[str, tuple[str, bytes]]]
) -> None:
    """Two sources have the same digest exactly when they are the same."""
    folder = tmp_path_factory.mktemp("trees")
    store, digests, seen = Store(folder / "home"), [], []
    for at, tree in enumerate(trees):
        (folder / str(at)).mkdir()
        for name, (kind, data) in tree.items():
            make(folder / str(at) / name, kind, data)
        digests.append(Sources(store).snapshot(folder / str(at)).digest)
        seen.append({name: (kind, kind != "d" and data) for name, (kind, data) in tree.items()})

    assert (digests[0] == digests[1]) == (seen[0] == seen[1])


def make(path: Path, kind: str, data: bytes) -> None:
    match kind:
        case "d":
            path.mkdir()
        case "l":
            path.symlink_to(f"to-{data.hex()}")
        case _:
            path.write_bytes(data)
            path.chmod(0o755 if kind == "x" else 0o644)


def test_names_need_not_be_text(source: Path, take: Callable[[], Snapshot]) -> None:
    """Names that are not UTF-8, and links to them, are taken like any other."""
    name = os.fsdecode(b"caf\xe9")
    (source / name).touch()
    (source / "link").symlink_to(name)

    assert names(take()) == ["caf\udce9", "hello.c", "link"]


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("", ["a", "a/b", "a/b/c.o", "a/d.o", "hello.c"]),
        ("a\n", ["hello.c"]),
        ("a/\n", ["hello.c"]),
        ("\ufeffa\n", ["hello.c"]),
        ("# a comment\n\n  a  \n", ["hello.c"]),
        ("**/*.o\n", ["a", "a/b", "hello.c"]),
        ("a/*\n!a/d.o\n", ["a", "a/d.o", "hello.c"]),
        ("a\n!a/b/c.o\n", ["a", "a/b", "a/b/c.o", "hello.c"]),
        ("**/b\n", ["a", "a/d.o", "hello.c"]),
        ("*\n", []),
    ],
)
def test_dockerignore(
    source: Path, take: Callable[[], Snapshot], text: str, left: list[str]
) -> None:
    """What .dockerignore names is left out with all that is in it, but for its exceptions."""
    (source / "a" / "b").mkdir(parents=True)
    write(source, **{"a/b/c.o": "", "a/d.o": "", ".dockerignore": text})

    assert names(take()) == [".dockerignore", *left]


@pytest.mark.parametrize("ignore", [None, "*.o\n!.variants\n"])
def test_own_folder_is_never_taken(
    source: Path, take: Callable[[], Snapshot], ignore: str | None
) -> None:
    """What runs write beside variants.yaml is no part of a source that is that folder."""
    if ignore:
        write(source, **{".dockerignore": ignore})
    first = take()
    (source / ".variants").mkdir()
    write(source, **{".variants/history.sqlite": "text"})

    assert take() == first


def test_ignored_folder_is_not_read(source: Path, take: Callable[[], Snapshot]) -> None:
    """What cannot be taken is no error where .dockerignore names it."""
    write(source, **{".dockerignore": "closed\npipe\nlink\n"})
    (source / "closed").mkdir(mode=0)
    os.mkfifo(source / "pipe")
    (source / "link").symlink_to("/etc/passwd")
    with ordinary_user():
        found = names(take())

    assert found == [".dockerignore", "hello.c"]


@pytest.mark.parametrize(
    ("data", "message"),
    [(b"\xff", "cannot be read: .*utf-8"), (b"[z-a]", "has a wrong pattern: bad character range")],
)
def test_wrong_dockerignore(
    source: Path, take: Callable[[], Snapshot], data: bytes, message: str
) -> None:
    """A .dockerignore that says nothing clear is an error that names it."""
    (source / ".dockerignore").write_bytes(data)

    with pytest.raises(SourceError, match=rf"hello/\.dockerignore: {message}"):
        take()


def test_dockerignore_that_is_a_folder(source: Path, take: Callable[[], Snapshot]) -> None:
    """Something else in the place of .dockerignore is an error that names it."""
    (source / ".dockerignore").mkdir()

    with pytest.raises(SourceError, match=r"\.dockerignore: cannot be read: .*Is a directory"):
        take()


@pytest.mark.parametrize("target", ["/etc/passwd", "../out", "sub/../../out", ".."])
def test_link_out_of_the_source(source: Path, take: Callable[[], Snapshot], target: str) -> None:
    """A link that leads out of the source folder is refused, with what to do."""
    (source / "link").symlink_to(target)

    with pytest.raises(
        SourceError, match=rf"hello/link: is a link .* to '{target}'\. Copy the file"
    ):
        take()


def test_what_no_image_can_hold(source: Path, take: Callable[[], Snapshot]) -> None:
    """Pipes and sockets are refused by name."""
    os.mkfifo(source / "pipe")

    with pytest.raises(SourceError, match=r"hello/pipe: is a device, socket or pipe\. Remove it"):
        take()


def test_too_large(source: Path, take: Callable[[], Snapshot]) -> None:
    """A source that is larger than any source is refused before it is read."""
    with (source / "core").open("wb") as file:
        file.truncate(MOST_BYTES + 1)

    with pytest.raises(SourceError, match=r"hello: more than 100000 files or 2 GiB\. Leave out"):
        take()


@pytest.mark.parametrize("name", ["file", "folder"])
def test_unreadable_content(source: Path, take: Callable[[], Snapshot], name: str) -> None:
    """A file or folder that cannot be read is named, with both things that can be done."""
    (source / "folder").mkdir()
    (source / "file").touch()
    (source / name).chmod(0)

    with (
        ordinary_user(),
        pytest.raises(
            SourceError,
            match=rf"hello/{name}: cannot be read: Permission denied\. Make it readable, or name",
        ),
    ):
        take()


class Meddling(Store):
    """A store that does something between reading a source and copying it."""

    def __init__(self, home: Path, action: Callable[[], object]) -> None:
        super().__init__(home)
        self._action = action

    def find(self, *_: object) -> None:
        self._action()


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (lambda file: file.write_text("other", encoding="utf-8"), "changed while it was read. Run"),
        (lambda file: file.unlink(), "cannot be read: No such file or directory"),
    ],
    ids=["changed", "removed"],
)
def test_source_changes_while_it_is_taken(
    source: Path, home: Path, action: Callable[[Path], object], message: str
) -> None:
    """A file that is not what was hashed is an error, and no snapshot is kept."""
    store = Meddling(home, lambda: action(source / "hello.c"))

    with pytest.raises(SourceError, match=f"hello/hello.c: {message}"):
        Sources(store).snapshot(source)

    assert [*(home / "sources").glob("*")] == []


def refused(project: Path, home: Path, name: str) -> str:
    """Return how a source of the project is refused."""
    with pytest.raises(SourceError) as raised:
        Sources(Store(home), roots=(project,)).snapshot(project / name)
    return str(raised.value)


def test_source_that_does_not_exist(project: Path, home: Path) -> None:
    """A missing source is named as in variants.yaml, with where it was looked for."""
    assert refused(project, home, "hallo") == (
        f"source 'hallo' does not exist in {project}."
        " Is it spelled right? It is relative to the folder of variants.yaml."
    )


def test_source_that_is_a_file(project: Path, home: Path) -> None:
    """A file is refused as a source, with what to name in its place."""
    assert refused(project, home, "hello/hello.c") == (
        "source 'hello/hello.c' is a file, not a folder. Name the folder that the file is in."
    )


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("hello/hello.c/deeper", "Not a directory"),
        ("loop", "Too many levels of symbolic links"),
        ("n" * 300, "File name too long"),
    ],
)
def test_source_that_cannot_be_reached(project: Path, home: Path, name: str, reason: str) -> None:
    """Whatever else keeps a source from being read is said in the system's words."""
    (project / "loop").symlink_to("loop")

    assert refused(project, home, name) == f"source '{name}' cannot be read: {reason}"


def test_source_that_cannot_be_read(project: Path, home: Path) -> None:
    """A source folder that is closed to this user is refused."""
    (project / "hello").chmod(0)
    with ordinary_user():
        message = refused(project, home, "hello")

    assert message == "source 'hello' cannot be read: Permission denied"


def test_source_that_is_a_link_out_of_the_project(project: Path, home: Path) -> None:
    """A source that leads out of the project is refused, with where it leads and what to do."""
    outside = project.parent / "outside"
    outside.mkdir()
    (project / "link").symlink_to("../outside")

    assert refused(project, home, "link") == (
        f"source 'link' is a link that leads out of {project}, to '{outside}'."
        " Move the folder into the project, or variants.yaml to a folder above both."
    )


def test_source_below_a_link_out_of_the_project(project: Path, home: Path) -> None:
    """The link among the folders above a source is named, and where it leads."""
    outside = project.parent / "outside"
    (outside / "hello").mkdir(parents=True)
    (project / "sub").mkdir()
    (project / "sub" / "link").symlink_to(outside)

    assert refused(project, home, "sub/link/hello").startswith(
        f"source 'sub/link/hello': 'sub/link' is a link that leads out of {project},"
        f" to '{outside}'. Move"
    )


def test_source_that_is_a_dangling_link_out_of_the_project(project: Path, home: Path) -> None:
    """A link to nothing outside is refused for leading out, not for the nothing."""
    (project / "link").symlink_to("/nowhere/at/all")

    assert "is a link that leads out of" in refused(project, home, "link")


def test_source_outside_of_the_project(project: Path, home: Path) -> None:
    """A folder that is simply elsewhere is refused too."""
    (project.parent / "other").mkdir()

    assert refused(project, home, str(project.parent / "other")).startswith(
        f"source '{project.parent}/other' lies outside of {project}. Move"
    )


@pytest.mark.parametrize("target", ["hello", "./sub/../hello"])
def test_link_inside_the_project(project: Path, home: Path, target: str) -> None:
    """A source may be a link to another folder of the project."""
    (project / "sub").mkdir()
    (project / "link").symlink_to(target)

    assert names(Sources(Store(home), roots=(project,)).snapshot(project / "link")) == ["hello.c"]


def test_project_behind_a_link(project: Path, home: Path) -> None:
    """A project whose own folder is reached through a link is no link out of it."""
    (project.parent / "link").symlink_to(project)
    root = project.parent / "link"

    assert names(Sources(Store(home), roots=(root,)).snapshot(root / "hello")) == ["hello.c"]


def test_any_folder_without_a_project(project: Path, home: Path) -> None:
    """Without a project's folder links are followed, and a missing source is named in full."""
    (project / "link").symlink_to(project / "hello")
    sources = Sources(Store(home))

    assert names(sources.snapshot(project / "link")) == ["hello.c"]
    with pytest.raises(SourceError, match=f"source '{project}/hallo' does not exist. Is it"):
        sources.snapshot(project / "hallo")


def test_socket_in_the_source(source: Path, take: Callable[[], Snapshot]) -> None:
    """An editor's or agent's socket in the folder is named, not hung on."""
    with socket.socket(socket.AF_UNIX) as server:
        descriptor = os.open(source, os.O_RDONLY)
        server.bind(f"/proc/self/fd/{descriptor}/agent")
        os.close(descriptor)

        with pytest.raises(VariantsError, match="hello/agent: is a device, socket or pipe"):
            take()
