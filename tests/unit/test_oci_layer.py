"""A folder as a layer: what other tools read in it, and what leaves no trace in it."""

from __future__ import annotations

import errno
import io
import os
import socket
import stat
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from nox_variants.errors import LayoutError
from nox_variants.model import Digest
from nox_variants.oci import layer
from nox_variants.oci.digest import sha256_bytes
from nox_variants.oci.layer import LayerFacts, digest_tree, header, write_tree

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

EIGHT_GIB = 8 << 30


@dataclass(frozen=True)
class File:
    """A regular file to make."""

    data: bytes
    mode: int


@dataclass(frozen=True)
class Symlink:
    """A symbolic link to make."""

    target: bytes


@dataclass(frozen=True)
class Fifo:
    """A named pipe to make."""


Node: TypeAlias = "File | Symlink | Fifo | dict[bytes, Node]"
Tree: TypeAlias = dict[bytes, Node]

TEXT = st.one_of(
    st.text(min_size=1, max_size=60).map(str.encode),
    st.tuples(st.binary(min_size=1, max_size=5), st.integers(1, 51)).map(lambda x: x[0] * x[1]),
).map(lambda raw: raw.replace(b"\0", b"0"))
NAMES = TEXT.map(lambda raw: raw.replace(b"/", b"|")).filter(
    lambda name: name not in {b".", b".."} and not name.startswith(b".wh.")
)
FILES = st.builds(
    File,
    data=st.one_of(st.binary(max_size=40), st.sampled_from((511, 512, 513)).map(bytes)),
    mode=st.integers(0, 0o7777).map(lambda mode: mode | 0o400),
)
NODES: st.SearchStrategy[Node] = st.recursive(
    st.one_of(FILES, st.builds(Symlink, target=TEXT), st.builds(Fifo)),
    lambda inner: st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=10,
)
TREES = st.dictionaries(NAMES, NODES, max_size=5)

SAMPLE: Tree = {
    b"bin": {b"hello": File(b"\x7fELF" * 300, 0o755), b"hi": Symlink(b"hello")},
    b"etc": {b"motd": File(b"Hello, world!\n", 0o644), b"pipe": Fifo()},
    b"empty": File(b"", 0o600),
    b"long" * 30: {"ü".encode() * 60: Symlink(b"t" * 101), b"\xff" * 120: File(b"x", 0o644)},
}


def make(folder: bytes, tree: Tree, *, backwards: bool = False, mtime: int | None = None) -> None:
    """Make a tree's files, in the tree's order or in the opposite one."""
    names = reversed(tree) if backwards else iter(tree)
    for name in names:
        path = os.path.join(folder, name)  # noqa: PTH118  # bytes
        match tree[name]:
            case File(data, mode):
                Path(os.fsdecode(path)).write_bytes(data)
                Path(os.fsdecode(path)).chmod(mode)
            case Symlink(target):
                os.symlink(target, path)  # noqa: PTH211  # bytes
            case Fifo():
                os.mkfifo(path)
                Path(os.fsdecode(path)).chmod(0o644)
            case dict() as inner:
                Path(os.fsdecode(path)).mkdir()
                Path(os.fsdecode(path)).chmod(0o755)
                make(path, inner, backwards=backwards, mtime=mtime)
        if mtime is not None:
            os.utime(path, (0, mtime), follow_symlinks=False)


def listing(tree: Tree, prefix: bytes = b"") -> Iterator[tuple[str, bytes, int, bytes]]:
    """Yield name, type, mode, and content or target of all that a layer should hold, in order."""
    for name in sorted(tree):
        full = prefix + name
        match tree[name]:
            case File(data, mode):
                yield os.fsdecode(full), tarfile.REGTYPE, mode & 0o1777, data
            case Symlink(target):
                yield os.fsdecode(full), tarfile.SYMTYPE, 0o777, target
            case Fifo():
                yield os.fsdecode(full), tarfile.FIFOTYPE, 0o644, b""
            case dict() as inner:
                yield os.fsdecode(full), tarfile.DIRTYPE, 0o755, b""
                yield from listing(inner, full + b"/")


def written(root: Path, *, mtime: int = 0) -> tuple[LayerFacts, bytes]:
    out = io.BytesIO()
    facts = write_tree(root, out, mtime=mtime)
    return facts, out.getvalue()


def opened(data: bytes) -> tarfile.TarFile:
    return tarfile.open(fileobj=io.BytesIO(data), mode="r:", encoding="utf-8")


def members(root: Path, *, mtime: int = 0) -> dict[str, tarfile.TarInfo]:
    with opened(written(root, mtime=mtime)[1]) as archive:
        return {member.name: member for member in archive}


def read(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    """Return a regular file's content, or a link's target."""
    file = archive.extractfile(member) if member.isreg() else None
    return os.fsencode(member.linkname) if file is None else file.read()


@settings(deadline=None, max_examples=40)
@given(tree=TREES)
@example(tree=SAMPLE)
@example(tree={})
def test_tarfile_reads_what_was_there(tree: Tree) -> None:
    """Every name, type, mode, byte and target comes back in byte order, with no owner and time."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        make(os.fsencode(root), tree)
        facts, data = written(root)
        assert digest_tree(root, mtime=0) == facts

    with opened(data) as archive:
        found = archive.getmembers()
        assert [(each.name, each.type, each.mode, read(archive, each)) for each in found] == list(
            listing(tree)
        )
    assert {(each.uid, each.gid, each.uname, each.gname, each.mtime) for each in found} <= {
        (0, 0, "", "", 0)
    }
    assert facts == LayerFacts(
        diff_id=sha256_bytes(data),
        content=sum(each.size for each in found),
        size=len(data),
        entries=len(found),
    )
    assert data.endswith(bytes(1024))
    assert len(data) % 512 == 0


@settings(deadline=None, max_examples=40)
@given(tree=TREES, links=st.lists(st.tuples(NAMES, st.integers(0, 9)), max_size=3))
@example(tree=SAMPLE, links=[(b"0" * 101, 0), (b"1", 2), (b"2", 2)])
def test_unpacked_layer_is_the_same_layer(tree: Tree, links: list[tuple[bytes, int]]) -> None:
    """What tarfile makes of a layer, hard links included, has the layer's own digest."""
    with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
        make(os.fsencode(first), tree)
        files = sorted(
            path for path in Path(first).rglob("*") if stat.S_ISREG(path.lstat().st_mode)
        )
        for name, number in links:
            target = Path(first) / os.fsdecode(name)
            if files and not os.path.lexists(target):
                target.hardlink_to(files[number % len(files)])
        facts, data = written(Path(first))
        with opened(data) as archive:
            archive.extraction_filter = lambda member, _: member  # our own layer, taken as it is
            archive.extractall(second)  # noqa: S202

        assert digest_tree(Path(second), mtime=0) == facts


@settings(deadline=None, max_examples=40)
@given(tree=TREES, mtime=st.integers(1_000, 2**33 - 1))
@example(tree=SAMPLE, mtime=1_000)
def test_order_and_late_times_leave_no_trace(tree: Tree, mtime: int) -> None:
    """The order in which files were made and times at or after the limit change nothing."""
    with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
        make(os.fsencode(first), tree, mtime=1_000)
        make(os.fsencode(second), tree, mtime=mtime, backwards=True)

        assert digest_tree(Path(first), mtime=1_000) == digest_tree(Path(second), mtime=1_000)


def test_layer_bytes_are_stable(tmp_path: Path) -> None:
    """The digest of a known folder, and so every image id, changes with no release unnoticed."""
    make(os.fsencode(tmp_path), SAMPLE, mtime=86_400)

    assert digest_tree(tmp_path, mtime=2**33 - 1) == LayerFacts(
        diff_id=Digest("sha256:28cce12e86186d22a806194730d4d4a73be6eff4e66d4d89630c90fb91123985"),
        content=1_215,
        size=11_776,
        entries=10,
    )


def test_owner_leaves_no_trace(tmp_path: Path) -> None:
    """Files of other users and groups give the same layer."""
    make(os.fsencode(tmp_path), SAMPLE)
    before = digest_tree(tmp_path, mtime=0)

    try:
        for path in tmp_path.rglob("*"):
            os.chown(path, 12_345, 54_321, follow_symlinks=False)
    except OSError:
        pytest.skip("this user cannot give files away")

    assert digest_tree(tmp_path, mtime=0) == before


@pytest.mark.parametrize(
    ("mode", "expected"), [(0o4755, 0o755), (0o2755, 0o755), (0o6711, 0o711), (0o1777, 0o1777)]
)
def test_setuid_and_setgid_are_dropped(tmp_path: Path, mode: int, expected: int) -> None:
    """A mode keeps its permissions and the sticky bit, and loses what would give rights."""
    (tmp_path / "file").touch()
    (tmp_path / "file").chmod(mode)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder").chmod(mode)

    assert {each.mode for each in members(tmp_path).values()} == {expected}


@pytest.mark.parametrize(
    ("nanoseconds", "limit", "expected"),
    [
        pytest.param(5_900_000_000, 10, 5, id="before-the-limit"),
        pytest.param(20_000_000_000, 10, 10, id="after-the-limit"),
        pytest.param(-1_500_000_000, 10, 0, id="before-1970"),
        pytest.param(1_700_000_000_999_999_999, 2**33 - 1, 1_700_000_000, id="nearly-the-next"),
    ],
)
def test_times_are_whole_and_limited(
    tmp_path: Path, nanoseconds: int, limit: int, expected: int
) -> None:
    """An entry's time is its whole seconds, from 1970 to the limit."""
    (tmp_path / "file").touch()
    os.utime(tmp_path / "file", ns=(0, nanoseconds))

    assert members(tmp_path, mtime=limit)["file"].mtime == expected


def test_large_file(tmp_path: Path) -> None:
    """A file that is read in several pieces arrives whole."""
    data = bytes(range(251)) * 8_400
    (tmp_path / "file").write_bytes(data)

    facts, tar = written(tmp_path)

    assert facts.content == len(data) > 2 << 20
    with opened(tar) as archive:
        assert read(archive, archive.getmember("file")) == data


def test_hard_links(tmp_path: Path) -> None:
    """A file with several names is kept once, under the first, and the others lead to it."""
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "one").write_bytes(b"content")
    (tmp_path / "a").hardlink_to(tmp_path / "b" / "one")
    (tmp_path / "b" / "two").hardlink_to(tmp_path / "a")

    facts, _ = written(tmp_path)
    found = members(tmp_path)

    assert facts.content == 7
    assert [(each.type, each.size, each.linkname) for each in found.values()] == [
        (tarfile.REGTYPE, 7, ""),
        (tarfile.DIRTYPE, 0, ""),
        (tarfile.LNKTYPE, 0, "a"),
        (tarfile.LNKTYPE, 0, "a"),
    ]


def test_names_outside_the_folder_do_not_count(tmp_path: Path) -> None:
    """A file with another name elsewhere is a file like any other."""
    (tmp_path / "elsewhere").write_bytes(b"content")
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "file").hardlink_to(tmp_path / "elsewhere")

    found = members(tmp_path / "root")["file"]

    assert (found.type, found.size) == (tarfile.REGTYPE, 7)


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        pytest.param("n" * 100, set(), id="name-full"),
        pytest.param("n" * 101, {"path"}, id="name-too-long"),
        pytest.param(f"{'p' * 155}/{'n' * 100}", set(), id="prefix-full"),
        pytest.param(f"{'p' * 156}/{'n' * 100}", {"path"}, id="prefix-too-long"),
        pytest.param(f"{'p' * 100}/{'q' * 54}/{'n' * 100}", set(), id="prefix-of-two"),
        pytest.param(f"p/{'n' * 101}", {"path"}, id="name-behind-a-short-prefix"),
        pytest.param(f"{'p' * 155}/n", set(), id="name-of-one-letter"),
        pytest.param(f"{'p' * 155}/n/", set(), id="folder-of-one-letter"),
        pytest.param(f"{'p' * 50}/{'n' * 99}/", set(), id="folder-full"),
        pytest.param(f"{'p' * 50}/{'n' * 100}/", {"path"}, id="folder-too-long"),
    ],
)
def test_extended_headers_only_where_needed(tmp_path: Path, name: str, fields: set[str]) -> None:
    """A name that ustar can hold in its two fields gets no pax record, the next longer one does."""
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if name.endswith("/"):
        path.mkdir()
    else:
        path.touch()

    assert set(members(tmp_path)[name.rstrip("/")].pax_headers) == fields


@pytest.mark.parametrize(("length", "fields"), [(100, set()), (101, {"linkpath"})])
def test_long_targets(tmp_path: Path, length: int, fields: set[str]) -> None:
    """A link's target that ustar can hold gets no pax record, the next longer one does."""
    (tmp_path / "link").symlink_to("t" * length)

    found = members(tmp_path)["link"]

    assert found.linkname == "t" * length
    assert set(found.pax_headers) == fields


@pytest.mark.parametrize(
    ("name", "records", "short"),
    [
        pytest.param(
            b"\xc3\xa9" * 60,
            b"131 path=" + b"\xc3\xa9" * 60 + b"/\n",
            b"?" * 99 + b"/",
            id="utf-8",
        ),
        pytest.param(
            b"a\xff" * 60,
            b"21 hdrcharset=BINARY\n131 path=" + b"a\xff" * 60 + b"/\n",
            b"a?" * 49 + b"a/",
            id="not-utf-8",
        ),
    ],
)
def test_what_readers_without_pax_see(
    tmp_path: Path, name: bytes, records: bytes, short: bytes
) -> None:
    """Behind the record with the true name, the old field holds plain ASCII of the right kind."""
    (tmp_path / os.fsdecode(name)).mkdir()

    data = written(tmp_path)[1]

    assert data[156:157] == b"x"
    assert data[512:1024] == records.ljust(512, b"\0")
    assert data[1024:1124] == short.ljust(100, b"\0")


@settings(deadline=None, max_examples=40)
@given(key=st.binary(max_size=12), length=st.integers(0, 11_000))
@example(key=b"path", length=91)
@example(key=b"path", length=990)
def test_pax_records_count_themselves(key: bytes, length: int) -> None:
    """A record's number is the length of the whole record, its own digits included."""
    record = layer._record(key, b"v" * length)

    assert record == b"%d %s=%s\n" % (len(record), key, b"v" * length)


@pytest.mark.parametrize(
    ("size", "fields"),
    [(0, set()), (EIGHT_GIB - 1, set()), (EIGHT_GIB, {"size"}), (1 << 50, {"size"})],
)
def test_sizes_beyond_the_field(size: int, fields: set[str]) -> None:
    """A file's header says its size, in a pax record from 8 GiB on."""
    found = opened(header("name", size, mtime=7)).next()

    assert found is not None
    assert (found.name, found.size, found.mode, found.mtime) == ("name", size, 0o644, 7)
    assert found.isreg()
    assert set(found.pax_headers) == fields


def test_header_of_a_folder() -> None:
    """A name that ends in a slash is a folder's."""
    found = opened(header("name/", 0, mtime=7)).next()

    assert found is not None
    assert (found.name, found.size, found.mode, found.mtime) == ("name", 0, 0o755, 7)
    assert found.isdir()


def test_folders_deeper_than_python_recurses(tmp_path: Path) -> None:
    """A build may nest folders as deep as paths can be."""
    folders = [tmp_path]
    try:
        while len(folders) <= 1_200:
            folder = folders[-1] / "d"
            folder.mkdir()
            folders.append(folder)

        assert digest_tree(tmp_path, mtime=0).entries == 1_200
    finally:
        for folder in reversed(folders[1:]):
            folder.rmdir()


def whiteout(path: Path) -> None:
    """Make overlayfs's mark for a removed file: any user may, from Linux 5.8 on."""
    try:
        os.mknod(path, stat.S_IFCHR, 0)
    except PermissionError:
        pytest.skip("this system lets nobody make whiteouts")


def mark(path: Path, attribute: str, value: bytes = b"y") -> None:
    try:
        os.setxattr(path, attribute, value)
    except OSError as error:
        pytest.skip(f"{attribute} cannot be set here: {error.strerror}")


def test_whiteouts(tmp_path: Path) -> None:
    """Overlayfs's mark for a removed file becomes the specification's, in the same folder."""
    (tmp_path / "usr").mkdir()
    whiteout(tmp_path / "usr" / "gone")
    whiteout(tmp_path / "lost")
    os.utime(tmp_path / "lost", (5, 5))

    found = members(tmp_path, mtime=10)

    assert list(found) == [".wh.lost", "usr", "usr/.wh.gone"]
    assert all(
        (each.type, each.mode, each.size, each.mtime) == (tarfile.REGTYPE, 0o644, 0, 0)
        for each in (found[".wh.lost"], found["usr/.wh.gone"])
    )
    assert digest_tree(tmp_path, mtime=10).content == 0


@pytest.mark.parametrize("attribute", ["user.overlay.opaque", "trusted.overlay.opaque"])
def test_opaque_folders(tmp_path: Path, attribute: str) -> None:
    """Overlayfs's mark for a replaced folder becomes the first file in it."""
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "!").touch()
    mark(tmp_path / "new", attribute)

    facts, data = written(tmp_path)

    with opened(data) as archive:
        assert archive.getnames() == ["new", "new/.wh..wh..opq", "new/!"]
    assert facts.entries == 3


@pytest.mark.parametrize(
    ("attribute", "value"), [("user.overlay.opaque", b"x"), ("user.comment", b"y")]
)
def test_other_attributes_leave_no_trace(tmp_path: Path, attribute: str, value: bytes) -> None:
    """No other attribute, and no other value, makes a folder opaque."""
    (tmp_path / "folder").mkdir()
    before = digest_tree(tmp_path, mtime=0)
    mark(tmp_path / "folder", attribute, value)

    assert digest_tree(tmp_path, mtime=0) == before


@pytest.mark.parametrize("name", [".wh.x", ".wh..wh..opq", ".wh."])
def test_names_that_would_hide_are_refused(tmp_path: Path, name: str) -> None:
    """A real file of a name that hides others in a layer is an error that names it."""
    (tmp_path / "usr").mkdir()
    (tmp_path / "usr" / name).touch()

    with pytest.raises(LayoutError) as caught:
        digest_tree(tmp_path, mtime=0)

    assert str(caught.value) == (
        f"{tmp_path / 'usr'}: a file cannot be part of an image: {name!r}. "
        "Names that start with '.wh.' hide files of the layers below (OCI image-spec)."
    )


def test_sockets_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A socket that a build left behind is not part of the layer."""
    monkeypatch.chdir(tmp_path)  # a socket's address is shorter than paths can be
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")

    assert stat.S_ISSOCK(Path("socket").stat().st_mode)
    assert digest_tree(Path(), mtime=0).entries == 0


@pytest.mark.parametrize("kind", [stat.S_IFCHR, stat.S_IFBLK])
def test_devices_are_left_out(tmp_path: Path, kind: int) -> None:
    """A device is not part of the layer, and not taken for a whiteout."""
    try:
        os.mknod(tmp_path / "device", kind, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("only root makes devices")

    assert digest_tree(tmp_path, mtime=0).entries == 0


@pytest.mark.parametrize(
    ("name", "reason"), [("missing", "No such file or directory"), ("file", "Not a directory")]
)
def test_no_folder(tmp_path: Path, name: str, reason: str) -> None:
    """What is no folder is an error that names it."""
    (tmp_path / "file").touch()

    with pytest.raises(LayoutError) as caught:
        digest_tree(tmp_path / name, mtime=0)

    assert str(caught.value) == f"{tmp_path / name}: cannot be read into a layer: {reason}"


class Meddler:
    """Takes a layer, and changes the folder when the entry of a certain name passes."""

    def __init__(self, name: str, change: Callable[[], object]) -> None:
        self.data = b""
        self._name = name.encode().ljust(100, b"\0")
        self._change = change

    def write(self, data: bytes | memoryview, /) -> None:
        self.data += data
        if bytes(data).startswith(self._name):
            self._change()


def replace_by(make_anew: Callable[[Path], object]) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        path.unlink()
        make_anew(path)

    return change


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        pytest.param(
            lambda file: os.truncate(file, 3), "became shorter while it was read", id="shorter"
        ),
        pytest.param(
            Path.unlink, "cannot be read into a layer: No such file or directory", id="removed"
        ),
        pytest.param(
            replace_by(lambda path: path.symlink_to("/dev/zero")),
            f"cannot be read into a layer: {os.strerror(errno.ELOOP)}",
            id="a-link",
        ),
        pytest.param(replace_by(os.mkfifo), "became shorter while it was read", id="a-pipe"),
        pytest.param(
            replace_by(Path.mkdir), "cannot be read into a layer: Is a directory", id="a-folder"
        ),
    ],
)
def test_file_that_changes_meanwhile(
    tmp_path: Path, change: Callable[[Path], object], problem: str
) -> None:
    """A file that is not what it was when its header was written is an error, without waiting."""
    file = tmp_path / "file"
    file.write_bytes(b"content")

    with pytest.raises(LayoutError) as caught:
        write_tree(tmp_path, Meddler("file", lambda: change(file)), mtime=0)

    assert str(caught.value) == f"{file}: {problem}"


def test_file_that_grows_meanwhile(tmp_path: Path) -> None:
    """A file that grows is taken as long as its header says, and what follows stays in place."""
    file = tmp_path / "a"
    file.write_bytes(b"content")
    (tmp_path / "b").write_bytes(b"next")
    out = Meddler("a", lambda: file.write_bytes(b"content and more"))

    facts = write_tree(tmp_path, out, mtime=0)

    assert facts.content == 11
    with opened(out.data) as archive:
        assert [read(archive, each) for each in archive] == [b"content", b"next"]


@pytest.mark.parametrize(("name", "remove"), [("b", Path.unlink), ("c", Path.rmdir)])
def test_entry_that_vanishes_meanwhile(
    tmp_path: Path, name: str, remove: Callable[[Path], None]
) -> None:
    """A link or a folder that goes away between being seen and being read is an error."""
    (tmp_path / "a").touch()
    (tmp_path / "b").symlink_to("a")
    (tmp_path / "c").mkdir()
    path = tmp_path / name
    out = Meddler("a", lambda: remove(path))

    with pytest.raises(LayoutError) as caught:
        write_tree(tmp_path, out, mtime=0)

    assert b".wh." not in out.data
    assert str(caught.value) == (f"{path}: cannot be read into a layer: No such file or directory")


@pytest.mark.parametrize("size", [0, 5])
def test_failure_to_write_is_not_one_to_read(tmp_path: Path, size: int) -> None:
    """A full disk comes out as it is, and no file of the folder is blamed for it."""
    (tmp_path / "file").write_bytes(bytes(size))

    with (
        Path("/dev/full").open("wb", buffering=0) as full,
        pytest.raises(OSError, match=os.strerror(errno.ENOSPC)),
    ):
        write_tree(tmp_path, full, mtime=0)
