"""Layers applied in order: the merged root, and layers that are damaged or made to hurt."""

from __future__ import annotations

import errno
import gzip
import io
import os
import stat
import sys
import tarfile
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NoReturn, cast

import pytest
import zstandard
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hostile import HOSTILE, TWO
from layermodel import LAYERS, Model, RefusedError
from layertars import (
    Entry,
    Layout,
    Tree,
    entry,
    file,
    folder,
    hard_link,
    headers,
    padded,
    patched,
    pax,
    snapshot,
    symlink,
    tar,
    tree,
)
from nox_variants.errors import ImageError, LayoutError
from nox_variants.images import layerstream
from nox_variants.images.layers import AppliedLayer, Limits, Unpacker
from nox_variants.oci.digest import sha256_bytes
from nox_variants.oci.layer import DEEPEST
from oddlayers import ODD
from ordinary import ordinary_user

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


SECRET = b"of the host"


def unpacker(root: Path, limits: Limits | None = None) -> Unpacker:
    return Unpacker(root, limits=limits or Limits(), cancelled=threading.Event())


def applied(root: Path, *blobs: bytes) -> Unpacker:
    made = unpacker(root)
    apply_each(made, *blobs)
    made.finish()
    return made


def apply_each(made: Unpacker, *blobs: bytes) -> None:
    for blob in blobs:
        made.apply(io.BytesIO(blob))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "root"
    path.mkdir()
    return path


@pytest.fixture(autouse=True)
def canary(tmp_path: Path) -> Iterator[None]:
    """Nothing beside the root ever changes."""
    path = tmp_path / "canary"
    path.mkdir()
    (path / "secret").write_bytes(SECRET)
    before = snapshot(path)
    yield
    assert snapshot(path) == before
    assert {each.name for each in tmp_path.iterdir()} <= {"canary", "root", "other"}


@pytest.mark.parametrize(("entries", "text"), HOSTILE.values(), ids=HOSTILE)
def test_hostile_entries_in_a_second_layer(root: Path, entries: list[Entry], text: str) -> None:
    """What leads out of one layer leads out of two."""
    made = unpacker(root)
    with pytest.raises(LayoutError) as caught:
        apply_each(made, *map(tar, entries))

    # A layer of its own may end in the entry where another one followed.
    assert str(caught.value) == text or "cut off" in str(caught.value)


@pytest.mark.parametrize("number", range(1, len(TWO) - 1024, 97))
def test_cut_off_anywhere(root: Path, number: int) -> None:
    """A layer that is cut off before its end mark is refused, unless an entry ends just there."""
    for blob in (
        TWO[:number],
        gzip.compress(TWO)[: number % 60],
        zstandard.compress(TWO)[: number % 60],
    ):
        with pytest.raises(LayoutError):
            unpacker(root).apply(io.BytesIO(blob))


@pytest.mark.parametrize("layout", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
@pytest.mark.parametrize(("entries", "expected"), ODD.values(), ids=ODD)
def test_merged(root: Path, layout: Layout, entries: list[list[Entry]], expected: Tree) -> None:
    """Layers in order give the root that container engines give."""
    applied(root, *(tar(*each, layout=layout) for each in entries))

    assert tree(root) == expected


PLAIN = tar(
    folder("a"), file("a/x", bytes(3_000_000)), hard_link("a/y", "a/x"), file("z", b"12345")
)


@pytest.mark.parametrize(
    "compress",
    [
        pytest.param(lambda data: data, id="plain"),
        pytest.param(gzip.compress, id="gzip"),
        pytest.param(lambda data: gzip.compress(data) + bytes(77), id="gzip-padded"),
        pytest.param(
            lambda data: b"".join(
                gzip.compress(data[at : at + 999_999]) for at in range(0, len(data), 999_999)
            ),
            id="gzip-members",
        ),
        pytest.param(zstandard.compress, id="zstd"),
        pytest.param(
            lambda data: (
                zstandard.compress(data[:700])
                + zstandard.compress(data[700:])
                + b"\x50\x2a\x4d\x18\x03\0\0\0abc"
            ),
            id="zstd-frames",
        ),
    ],
)
@pytest.mark.parametrize("padding", [b"", bytes(9_000), b"anything" * 300_000])
def test_compression(root: Path, compress: Callable[[bytes], bytes], padding: bytes) -> None:
    """A layer is the same however it is compressed; all of the tar counts, to its last byte."""
    data = PLAIN + padding

    found = unpacker(root).apply(io.BytesIO(compress(data)))

    assert found == AppliedLayer(diff_id=sha256_bytes(data), size=len(data), content=3_000_005)
    assert (root / "a" / "x").stat().st_size == 3_000_000
    assert (root / "a" / "x").samefile(root / "a" / "y")


def test_blobs_that_come_in_drops(root: Path) -> None:
    """A blob may give fewer bytes than it is asked for."""

    class Drops(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            return super().read(min(size or -1, 3))

    found = unpacker(root).apply(Drops(gzip.compress(TWO)))

    assert found.diff_id == sha256_bytes(TWO)
    assert tree(root) == {"x": b"one", "y": b"two"}


def test_without_zstandard(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where zstd cannot be read, the error says what to install."""
    monkeypatch.setitem(sys.modules, "zstandard", None)

    with pytest.raises(LayoutError, match="zstd") as caught:
        unpacker(root).apply(io.BytesIO(zstandard.compress(TWO)))

    assert caught.value.hint == "pip install zstandard"


def test_end_without_mark(root: Path) -> None:
    """A tar that ends behind an entry, without zeros, is whole; so is one of zeros only."""
    applied(root, tar(file("x", b"1"), end=b""), bytes(1024))

    assert tree(root) == {"x": b"1"}


@pytest.mark.parametrize(
    ("kind", "mode", "expected"),
    [
        (tarfile.REGTYPE, 0o000, 0o400),
        (tarfile.REGTYPE, 0o111, 0o511),
        (tarfile.REGTYPE, 0o6755, 0o755),
        (tarfile.REGTYPE, 0o666, 0o666),
        (tarfile.DIRTYPE, 0o000, 0o700),
        (tarfile.DIRTYPE, 0o555, 0o755),
        (tarfile.DIRTYPE, 0o1777, 0o777),
        (tarfile.DIRTYPE, 0o2775, 0o775),
    ],
)
def test_modes(root: Path, kind: bytes, mode: int, expected: int) -> None:
    """A mode is written as the layer says, whatever the umask, but nothing that gives rights."""
    before = os.umask(0o077)
    try:
        applied(root, tar(entry(kind, "new/x", mode=mode)))
    finally:
        os.umask(before)

    assert stat.S_IMODE((root / "new" / "x").stat().st_mode) == expected
    assert stat.S_IMODE((root / "new").stat().st_mode) == 0o755


def test_later_modes_count(root: Path) -> None:
    """A folder takes its mode from the last layer that has it, and the root does too."""
    applied(root, tar(folder("."), folder("a", 0o700)), tar(folder("a", 0o750), folder(".", 0o711)))

    assert stat.S_IMODE((root / "a").stat().st_mode) == 0o750
    assert stat.S_IMODE(root.stat().st_mode) == 0o711


def test_hidden_folders_lose_their_mode(root: Path) -> None:
    """A removed folder that this layer fills is a new one, wherever in the tar it was removed."""
    below = tar(folder("a", 0o700, uid=7), file("a/x"))
    for above in ([file("a/y"), file(".wh.a")], [file(".wh.a"), file("a/y")]):
        made = applied(root, below, tar(*above))

        assert tree(root) == {"a": None, "a/y": b""}
        assert stat.S_IMODE((root / "a").stat().st_mode) == 0o755
        assert made.owners == {}


@pytest.mark.parametrize(
    ("mtime", "expected"),
    [
        (1_700_000_000, 1_700_000_000),
        (1_700_000_000.5, 1_700_000_000.5),
        (-5.5, 0),
        (1 << 62, 2**33 - 1),
        (float("inf"), 2**33 - 1),
        (float("nan"), 0),
    ],
)
def test_times(root: Path, mtime: float, expected: float) -> None:
    """Files, links and folders, also filled ones, have the times that the layer says."""
    told: dict[str, Any] = {"pax_headers": {"mtime": str(mtime)}}
    applied(
        root,
        tar(folder("a", **told), file("a/x", **told), symlink("a/y", "z", **told)),
        tar(file("a/z")),
    )

    assert {(root / name).lstat().st_mtime for name in ("a", "a/x", "a/y")} == {expected}


def test_owners(root: Path) -> None:
    """What the disk does not tell is told, for as long as the path is there."""
    made = unpacker(root)
    made.apply(
        io.BytesIO(
            tar(
                folder(".", gid=3),
                folder("tmp", 0o1777),
                file("etc/shadow", mode=0o640, gid=42),
                file("bin/su", mode=0o4755),
                hard_link("bin/sudo", "bin/su", uid=9),
                file("bin/sh", mode=0o755),
                symlink("bin/csh", "sh", uid=5, mode=0o777),
                folder("home/user", 0o700, uid=1000, gid=1000),
                file("home/user/\udcff", uid=1000, gid=1001),
                file("var/gone", uid=8),
            )
        )
    )
    expected = {
        "/": (0, 3, 0o755),
        "/tmp": (0, 0, 0o1777),
        "/etc/shadow": (0, 42, 0o640),
        "/bin/su": (0, 0, 0o4755),
        "/bin/sudo": (0, 0, 0o4755),
        "/bin/csh": (5, 0, 0o777),
        "/home/user": (1000, 1000, 0o700),
        "/home/user/\udcff": (1000, 1001, 0o644),
        "/var/gone": (8, 0, 0o644),
    }
    assert made.owners == expected

    made.apply(
        io.BytesIO(
            tar(
                file("bin/su", mode=0o755),
                file("home/.wh.user"),
                folder("tmp"),
                file("etc/shadow", uid=1),
                file("var/.wh..wh..opq"),
                file("bin/csh"),
            )
        )
    )

    assert made.owners == {
        "/": (0, 3, 0o755),
        "/bin/sudo": (0, 0, 0o4755),
        "/etc/shadow": (1, 0, 0o644),
    }


def test_existing_files_are_never_written(root: Path, tmp_path: Path) -> None:
    """A file that another root shares stays as it is, whatever a later layer does to its name."""
    names = ("x", "y", "z", "d/e")
    applied(root, tar(*(file(name, b"shared", mode=0o600, mtime=5) for name in names)))
    (tmp_path / "other").mkdir()
    for number, name in enumerate(names):
        (tmp_path / "other" / str(number)).hardlink_to(root / name)
    made = unpacker(root)

    made.apply(
        io.BytesIO(
            tar(
                file("x", b"new", mode=0o777),
                hard_link("y", "x"),
                symlink("z", "x"),
                hard_link("w", "d/e", mode=0o777, mtime=9),
                file("d/.wh.e"),
            )
        )
    )

    for path in (tmp_path / "other").iterdir():
        status = path.stat()
        assert (path.read_bytes(), status.st_mtime) == (b"shared", 5)
        assert stat.S_IMODE(status.st_mode) == 0o600
    assert tree(root) == {"x": b"new", "y": b"new", "z": "x", "w": b"shared", "d": None}


@pytest.mark.parametrize(
    "blob",
    [
        pytest.param(
            tar(
                file(
                    "x",
                    b"abc" + b"de",
                    pax_headers={"GNU.sparse.map": "0,3,100000,2", "GNU.sparse.size": "200000"},
                )
            ),
            id="pax-0.1",
        ),
        pytest.param(
            tar(
                file(
                    "x",
                    padded(b"2\n0\n3\n100000\n2\n") + b"abcde",
                    pax_headers={
                        "GNU.sparse.major": "1",
                        "GNU.sparse.minor": "0",
                        "GNU.sparse.realsize": "200000",
                    },
                )
            ),
            id="pax-1.0",
        ),
        pytest.param(
            patched(
                headers(entry(b"S", "x", size=5)[0], tarfile.GNU_FORMAT),
                386,
                b"%011o\0%011o\0%011o\0%011o\0" % (0, 3, 100_000, 2)
                + bytes(48 + 1)
                + b"%011o\0" % 200_000,
            )
            + padded(b"abcde")
            + bytes(1024),
            id="gnu",
        ),
    ],
)
def test_sparse_files(root: Path, blob: bytes) -> None:
    """A file with holes has them on disk too."""
    found = unpacker(root).apply(io.BytesIO(blob))

    assert (root / "x").read_bytes() == b"abc".ljust(100_000, b"\0") + b"de".ljust(100_000, b"\0")
    assert found.content == 200_000


def test_deep_folders(root: Path) -> None:
    """Folders as deep as is allowed are made and removed again; deeper ones are refused."""
    names = ["d" + "/d" * depth for depth in range(DEEPEST - 1)]
    above = [file("/".join(["d"] * 100 + ["x"])), file(".wh.d")]

    applied(root, tar(*map(folder, names)), tar(*above))
    assert len(tree(root)) == 101

    for deep in ("e/" * DEEPEST + "x", "l/" + "e/" * 150 + "x"):
        with pytest.raises(LayoutError, match="lies in more than 200 folders"):
            applied(root, tar(symlink("l", "d/" * 100), file(deep)))
    applied(root, tar(file(".wh.e"), file(".wh.l")))

    applied(root, tar(file("y"), file("d")))
    assert tree(root) == {"y": b"", "d": b""}


def test_many_entries_are_not_kept(root: Path) -> None:
    """Tarfile's list of what it has read does not grow with the layer."""
    source = layerstream.Source(
        iter([tar(*(file(f"{number}") for number in range(100)))]),
        limit=1 << 30,
        cancelled=threading.Event(),
    )
    members = layerstream.members(source)

    assert [each.name for each in members] == [f"{number}" for number in range(100)]
    assert tree(root) == {}


def test_too_many_entries(root: Path) -> None:
    """Entries count over all layers, devices and whiteouts too, and folders that they lack."""
    made = unpacker(root, Limits(entries=6))
    made.apply(io.BytesIO(tar(file("a/b/x"), entry(tarfile.FIFOTYPE, "y"))))
    made.apply(io.BytesIO(tar(file(".wh.z"))))

    made.apply(io.BytesIO(tar(file("last"))))
    with pytest.raises(LayoutError, match="'one': the image has more than 6 entries"):
        made.apply(io.BytesIO(tar(file("one"))))


def test_too_large(root: Path) -> None:
    """Bytes count over all layers, padding too."""
    made = unpacker(root, Limits(size=5_000))
    made.apply(io.BytesIO(TWO))
    assert len(TWO) == 3_072

    with pytest.raises(LayoutError, match="too large"):
        made.apply(io.BytesIO(TWO))


class Endless(io.RawIOBase):
    """A layer that never ends."""

    def __init__(self, start: bytes, stop: Callable[[], object] = lambda: None) -> None:
        self._start = start
        self._stop = stop
        self.given = 0

    def read(self, size: int = -1) -> bytes:
        assert 0 < size <= 1 << 20
        data, self._start = (self._start or bytes(size))[:size], self._start[size:]
        self.given += len(data)
        if self.given > 3 << 20:
            self._stop()
        return data


ENDLESS = [
    pytest.param(headers(file("x", size=1 << 32)[0], tarfile.GNU_FORMAT), id="in-a-file"),
    pytest.param(bytes(1024), id="behind-the-end"),
    pytest.param(headers(entry(b"5", "x")[0]) + bytes(512), id="behind-a-folder"),
]


@pytest.mark.parametrize("start", ENDLESS)
def test_bombs_stop_early(root: Path, start: bytes) -> None:
    """No more is read than may be."""
    bomb = Endless(start)

    with pytest.raises(LayoutError, match=r"too large|more than"):
        unpacker(root, Limits(size=8 << 20)).apply(cast("IO[bytes]", bomb))

    assert bomb.given < 10 << 20


@pytest.mark.parametrize("compress", [gzip.compress, zstandard.compress], ids=["gzip", "zstd"])
def test_compressed_bombs_stop_early(root: Path, compress: Callable[[bytes], bytes]) -> None:
    """What a small blob becomes is counted while it becomes it."""
    bomb = compress(headers(file("x")[0]) + bytes(64 << 20))

    with pytest.raises(LayoutError, match=r"too large|more than"):
        unpacker(root, Limits(size=1 << 20)).apply(io.BytesIO(bomb))


@pytest.mark.parametrize(
    "start", [*ENDLESS, pytest.param(b"\x1f\x8b\x08\x08" + bytes(6) + b"x", id="in-gzip-zeros")]
)
def test_cancelled_meanwhile(root: Path, start: bytes) -> None:
    """Work that is cancelled ends within a megabyte or so."""
    cancelled = threading.Event()
    layer = Endless(start, cancelled.set)
    if start.startswith(b"\x1f\x8b"):
        layer = Endless(gzip.compress(TWO), cancelled.set)  # and zeros, which become nothing

    with pytest.raises(ImageError, match=r"^cancelled$"):
        Unpacker(root, cancelled=cancelled).apply(cast("IO[bytes]", layer))

    assert layer.given < 6 << 20


def test_cancelled_between_entries(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small entries that come in one piece are not all made."""
    cancelled = threading.Event()
    symlink_to = os.symlink

    def and_cancel(target: bytes, path: bytes) -> None:
        symlink_to(target, path)
        cancelled.set()

    monkeypatch.setattr(os, "symlink", and_cancel)

    with pytest.raises(ImageError, match=r"^cancelled$"):
        Unpacker(root, cancelled=cancelled).apply(io.BytesIO(tar(symlink("x", "y"), file("z"))))

    assert tree(root) == {"x": "y"}


def test_cancelled_before(root: Path) -> None:
    """Nothing is done for who has given up."""
    cancelled = threading.Event()
    cancelled.set()

    with pytest.raises(ImageError, match=r"^cancelled$"):
        Unpacker(root, cancelled=cancelled).apply(io.BytesIO(TWO))

    assert tree(root) == {}


def test_cancelled_while_removing(root: Path) -> None:
    """Removing a lower layer's folders is work that can be cancelled too."""
    cancelled = threading.Event()
    made = Unpacker(root, cancelled=cancelled)
    made.apply(io.BytesIO(tar(file("a/x"))))
    cancelled.set()

    with pytest.raises(ImageError, match=r"^cancelled$"):
        made._clear(os.fsencode(root / "a"))


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS])
def test_errors_of_the_machine(root: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """A full or failing disk is no fault of the layer."""

    def fail(*_: object) -> NoReturn:
        raise OSError(number, "of the disk")

    monkeypatch.setattr(os, "symlink", fail)

    with pytest.raises(OSError, match="of the disk") as caught:
        unpacker(root).apply(io.BytesIO(tar(symlink("x", "y"))))

    assert caught.value.errno == number


def test_errors_while_removing(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be removed is named."""

    def fail(_: bytes) -> NoReturn:
        raise OSError(errno.EBUSY, "in use")

    made = applied(root, tar(folder("a")))

    layer = io.BytesIO(tar(file(".wh.a")))

    with monkeypatch.context() as patch:
        patch.setattr(os, "rmdir", fail)
        with pytest.raises(LayoutError, match=r"^'.wh.a': in use$"):
            made.apply(layer)


def test_as_an_ordinary_user(root: Path) -> None:
    """Folders that nobody may write to, and files that nobody may read, are no obstacle."""
    below = tar(
        folder("a", 0o555), file("a/x", b"1", mode=0), folder("a/b", 0), file("a/b/y"), file("a/z")
    )
    above = tar(file("a/.wh.b"), file("a/x", b"2", mode=0), file("a/.wh.z"), file("a/new", mode=0))

    with ordinary_user():
        applied(root, below, above)

        assert tree(root) == {"a": None, "a/x": b"2", "a/new": b""}


@settings(deadline=None, max_examples=400)
@given(images=LAYERS)
@example(images=[[file("a/b"), symlink("b", "a")], [file("b/c"), file(".wh.a"), file("b/a")]])
@example(images=[[symlink("b", "/"), folder("b/b"), file("b/b/a")]])
def test_like_the_model(images: list[list[Entry]]) -> None:
    """Any layers give what the model gives, or are refused where it refuses, and stay inside."""
    with tempfile.TemporaryDirectory() as name:
        root, outside = Path(name) / "root", Path(name) / "canary"
        for path in (root, outside, outside / "a"):
            path.mkdir()
        (outside / "b").write_bytes(SECRET)
        before = snapshot(outside)
        made, model = unpacker(root), Model()
        for model.layer, entries in enumerate(images):
            refused = False
            try:
                for each in entries:
                    model.add(*each)
            except RefusedError:
                refused = True
            if refused:
                with pytest.raises(LayoutError):
                    made.apply(io.BytesIO(tar(*entries)))
                break
            made.apply(io.BytesIO(tar(*entries)))
            expected = {"/".join(place): value for place, (value, _) in model.nodes.items()}
            assert tree(root) == expected
        made.finish()
        assert snapshot(outside) == before
        assert {each.name for each in Path(name).iterdir()} == {"root", "canary"}


ALL_KINDS = tar(
    folder("a"),
    file("b", b"x"),
    pax("c", path="d"),
    symlink("e", "a"),
    hard_link("f", "b"),
    pax("g", **{"GNU.sparse.map": "0,0", "GNU.sparse.size": "9"}),
    file(".wh.a"),
)


@settings(deadline=None, max_examples=200)
@given(changes=st.dictionaries(st.integers(0, len(ALL_KINDS) - 1), st.integers(0, 255), max_size=4))
def test_any_bytes_are_a_layer_or_an_error(changes: dict[int, int]) -> None:
    """A layer with wrong bytes is applied or refused, and nothing else."""
    blob = bytearray(ALL_KINDS)
    for place, value in changes.items():
        blob[place] = value
        start = place // 512 * 512
        blob[start : start + 512] = patched(bytes(blob[start : start + 512]), 0, b"")
    with tempfile.TemporaryDirectory() as name, suppress(LayoutError):
        applied(Path(name), bytes(blob))
