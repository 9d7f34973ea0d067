"""Layers applied in order: the merged root, and layers that are damaged or made to hurt."""

from __future__ import annotations

import errno
import gzip
import io
import lzma
import os
import stat
import sys
import tarfile
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal, NoReturn, TypeAlias, cast

import pytest
import zstandard
from hypothesis import example, given, settings
from hypothesis import strategies as st

from nox_variants.errors import ImageError, LayoutError
from nox_variants.images import layerstream
from nox_variants.images.layers import AppliedLayer, Limits, Unpacker
from nox_variants.oci.digest import sha256_bytes
from nox_variants.oci.layer import DEEPEST
from ordinary import ordinary_user

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Entry: TypeAlias = tuple[tarfile.TarInfo, bytes]
Layout: TypeAlias = Literal[0, 1, 2]
Tree: TypeAlias = "dict[str, str | bytes | None]"
"""By path: a file's bytes, a link's target, None for a folder."""

SECRET = b"of the host"


def entry(kind: bytes, name: str, data: bytes = b"", link: str = "", **fields: Any) -> Entry:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size, info.mode = kind, link, len(data), 0o644
    for field, value in fields.items():
        setattr(info, field, value)
    return info, data


def file(name: str, data: bytes = b"", **fields: Any) -> Entry:
    return entry(tarfile.REGTYPE, name, data, **fields)


def folder(name: str, mode: int = 0o755, **fields: Any) -> Entry:
    return entry(tarfile.DIRTYPE, name, mode=mode, **fields)


def symlink(name: str, target: str, **fields: Any) -> Entry:
    return entry(tarfile.SYMTYPE, name, link=target, **fields)


def hard_link(name: str, target: str, **fields: Any) -> Entry:
    return entry(tarfile.LNKTYPE, name, link=target, **fields)


def pax(name: str, **records: str) -> Entry:
    """Return a file whose pax records say something else than its header."""
    return file(name, pax_headers=records)


def headers(info: tarfile.TarInfo, layout: Layout = tarfile.PAX_FORMAT) -> bytes:
    return info.tobuf(layout, "utf-8", "surrogateescape")


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 512)


def tar(*entries: Entry, layout: Layout = tarfile.PAX_FORMAT, end: bytes = bytes(1024)) -> bytes:
    """Return a plain tar; an entry's size may say something else than its data."""
    return b"".join(headers(info, layout) + padded(data) for info, data in entries) + end


def patched(block: bytes, start: int, data: bytes) -> bytes:
    """Change bytes of a header, and its sum with them."""
    block = block[:start] + data + block[start + len(data) :]
    block = block[:148] + b" " * 8 + block[156:]
    return block[:148] + b"%06o\0 " % sum(block[:512]) + block[156:]


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


def content(path: Path) -> bytes | str | None:
    if path.is_symlink():
        return str(path.readlink())
    return None if path.is_dir() else path.read_bytes()


def tree(root: Path) -> Tree:
    """Return what is in a folder; no link is followed."""
    found: Tree = {}
    for path, folders, files in os.walk(root):
        for name in (*folders, *files):
            full = Path(path) / name
            found[str(full.relative_to(root))] = content(full)
    return found


def snapshot(path: Path) -> list[tuple[str, bytes | str | None, int, int, int]]:
    """Return all that must not change of a folder."""
    found = []
    for each in (path, *sorted(path.rglob("*"))):
        status = each.lstat()
        found.append(
            (str(each), content(each), status.st_mode, status.st_mtime_ns, status.st_nlink)
        )
    return found


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


OUT = "leads out of the image"
LONG = "n" * 256

HOSTILE = [
    pytest.param([file("../canary/secret")], f"'../canary/secret': {OUT}", id="out"),
    pytest.param([file("a/../../x")], f"'a/../../x': {OUT}", id="out-behind-a-folder"),
    pytest.param([file("a/..")], f"'a/..': {OUT}", id="out-at-the-end"),
    pytest.param([file("/../x")], f"'/../x': {OUT}", id="out-of-the-top"),
    pytest.param([file("./../x")], f"'./../x': {OUT}", id="out-behind-a-dot"),
    pytest.param([folder("..")], f"'..': {OUT}", id="folder-out"),
    pytest.param([folder("a"), file("a/../x")], f"'a/../x': {OUT}", id="out-inside"),
    pytest.param([symlink("../x", "y")], f"'../x': {OUT}", id="symlink-out"),
    pytest.param([file("../.wh.canary")], f"'../.wh.canary': {OUT}", id="whiteout-out"),
    pytest.param([file("../.wh..wh..opq")], f"'../.wh..wh..opq': {OUT}", id="opaque-out"),
    pytest.param([entry(tarfile.CHRTYPE, "../x")], f"'../x': {OUT}", id="device-out"),
    pytest.param(
        [hard_link("x", "../canary/secret")],
        f"'x': is a hard link to '../canary/secret', which {OUT}",
        id="hard-link-out",
    ),
    pytest.param(
        [hard_link("x", "y")], "'x': is a hard link to 'y', which is not there", id="hard-link-lost"
    ),
    pytest.param(
        [hard_link("x", "y/z")],
        "'x': is a hard link to 'y/z', which is not there",
        id="hard-link-lost-behind",
    ),
    pytest.param(
        [symlink("y", "/canary"), hard_link("x", "y/secret")],
        "'x': is a hard link to 'y/secret', which is not there",
        id="hard-link-through-a-link",
    ),
    pytest.param(
        [folder("y"), hard_link("x", "y")],
        "'x': is a hard link to 'y', which is no file",
        id="hard-link-to-a-folder",
    ),
    pytest.param(
        [hard_link("x", ".")],
        "'x': is a hard link to '.', which is no file",
        id="hard-link-to-the-root",
    ),
    pytest.param(
        [file("x"), hard_link("x", "/x")],
        "'x': is a hard link to '/x', which is itself",
        id="hard-link-to-itself",
    ),
    pytest.param(
        [file("x/y"), hard_link("x", "x/y")],
        "'x': No such file or directory",
        id="hard-link-that-removes-its-target",
    ),
    pytest.param(
        [file("x"), file("x/y")], "'x/y': lies behind b'x', which is no folder", id="behind-a-file"
    ),
    pytest.param(
        [file("x"), symlink("y", "x"), folder("y/z")],
        "'y/z': lies behind b'x', which is no folder",
        id="behind-a-link-to-a-file",
    ),
    pytest.param(
        [symlink("x", "x"), file("x/y")], "'x/y': lies behind too many links", id="link-to-itself"
    ),
    pytest.param(
        [symlink("x", "y"), symlink("y", "x"), file("x/z")],
        "'x/z': lies behind too many links",
        id="link-circle",
    ),
    pytest.param(
        [*(symlink(f"{n}", f"{n + 1}") for n in range(41)), file("0/x")],
        "'0/x': lies behind too many links",
        id="41-links",
    ),
    pytest.param([file(LONG)], f"{'n' * 200 + '...'!r}: File name too long", id="long-name"),
    pytest.param(
        [file(f"{LONG}/x")], f"{'n' * 200 + '...'!r}: File name too long", id="long-parent"
    ),
    pytest.param(
        [file(f"{'n' * 200}/" * 30)], f"{'n' * 200 + '...'!r}: File name too long", id="long-path"
    ),
    pytest.param([symlink("x", "y" * 5000)], "'x': File name too long", id="long-target"),
    pytest.param([symlink("x", "")], "'x': No such file or directory", id="symlink-to-nothing"),
    pytest.param(
        [symlink("x", "y", pax_headers={"linkpath": "a\0b"})],
        "'x': has a null byte in its target",
        id="null-target",
    ),
    pytest.param([pax("x", path="a\0b")], "'a\\x00b': has a null byte in it", id="null-name"),
    pytest.param([file(".wh.")], "'.wh.': is a whiteout of no name", id="whiteout-of-nothing"),
    pytest.param([file("a/.wh.")], "'a/.wh.': is a whiteout of no name", id="whiteout-in-a-folder"),
    pytest.param([file(".wh..")], "'.wh..': is a whiteout of no name", id="whiteout-of-a-dot"),
    pytest.param([file(".wh...")], "'.wh...': is a whiteout of no name", id="whiteout-of-two-dots"),
    pytest.param([file(".wh.x/y")], "'.wh.x/y': lies behind a whiteout", id="behind-a-whiteout"),
    pytest.param(
        [file(".wh..wh..opq/y")],
        "'.wh..wh..opq/y': lies behind a whiteout",
        id="behind-an-opaque-mark",
    ),
    pytest.param([entry(b"Z", "x")], "'x': has a type that is unknown: b'Z'", id="unknown-type"),
    pytest.param([file(".")], "'.': is the image's root, and no folder", id="root-is-a-file"),
    pytest.param(
        [symlink("./.", "/")], "'./.': is the image's root, and no folder", id="root-is-a-link"
    ),
    pytest.param(
        [hard_link("/", "x")], "'/': is the image's root, and no folder", id="root-is-a-hard-link"
    ),
    pytest.param(
        [pax("x", uid="-1")], "'x': has an owner that no system has: -1", id="negative-owner"
    ),
    pytest.param(
        [pax("x", gid="4294967295")],
        "'x': has an owner that no system has: 4294967295",
        id="large-group",
    ),
    pytest.param(
        [file("x", size=4096)], "'x': is cut off: the layer ends in it", id="cut-off-file"
    ),
    pytest.param(
        [pax("x", **{"GNU.sparse.map": "5,9", "GNU.sparse.size": "10"})],
        "'x': has a wrong map of its holes",
        id="wrong-map",
    ),
    pytest.param(
        [pax("x", **{"GNU.sparse.map": "0,-5", "GNU.sparse.size": "10"})],
        "'x': has a wrong map of its holes",
        id="negative-map",
    ),
    pytest.param(
        [pax("x", **{"GNU.sparse.map": "0,600", "GNU.sparse.size": "600"}), file("y")],
        "the layer has an entry that leads backwards",
        id="map-of-other-entries",
    ),
    pytest.param(
        [pax("x", **{"GNU.sparse.map": "0,0", "GNU.sparse.size": str(1 << 60)})],
        f"'x': the image has more than {64 << 30} bytes",
        id="huge-hole",
    ),
    pytest.param(
        [file("x", pax_headers={"comment": "c" * (1 << 20)})],
        "the layer has an entry with headers that are too large",
        id="huge-pax",
    ),
]


@pytest.mark.parametrize(("entries", "text"), HOSTILE)
def test_hostile_entries(root: Path, entries: list[Entry], text: str) -> None:
    """An entry that is malformed or leads out is refused, and named."""
    with pytest.raises(LayoutError) as caught:
        unpacker(root).apply(io.BytesIO(tar(*entries)))

    assert str(caught.value) == text


@pytest.mark.parametrize(("entries", "text"), HOSTILE)
def test_hostile_entries_in_a_second_layer(root: Path, entries: list[Entry], text: str) -> None:
    """What leads out of one layer leads out of two."""
    made = unpacker(root)
    with pytest.raises(LayoutError) as caught:
        apply_each(made, *map(tar, entries))

    # A layer of its own may end in the entry where another one followed.
    assert str(caught.value) == text or "cut off" in str(caught.value)


FILE = headers(file("x")[0])
TWO = tar(file("x", b"one"), file("y", b"two"))
LONG_NAMES = b"".join(headers(entry(b"L", "L", size=5)[0]) + padded(b"name") for _ in range(2_000))

DAMAGED = [
    pytest.param(b"", "is no tar", id="empty"),
    pytest.param(b"x", "is no tar", id="one-byte"),
    pytest.param(b"no tar at all" * 100, "is no tar", id="text"),
    pytest.param(lzma.compress(TWO), "is no tar", id="xz"),
    pytest.param(b"BZh91AY&SY" + bytes(600), "is no tar", id="bzip2"),
    pytest.param(FILE[:300], "is no tar", id="cut-off-header"),
    pytest.param(gzip.compress(b"text"), "is no tar", id="gzip-of-text"),
    pytest.param(gzip.compress(TWO)[:-9], "its gzip stream does not end", id="gzip-cut-off"),
    pytest.param(gzip.compress(TWO)[:-1], "its gzip stream does not end", id="gzip-without-sum"),
    pytest.param(gzip.compress(TWO)[:5], "its gzip stream does not end", id="gzip-mark-only"),
    pytest.param(gzip.compress(TWO)[:-8] + bytes(8), "damaged: gzip: ", id="gzip-wrong-sum"),
    pytest.param(gzip.compress(TWO) + b"rest", "damaged: gzip: ", id="gzip-and-more"),
    pytest.param(b"\x1f\x8b" + b"\xff" * 100, "damaged: gzip: ", id="gzip-broken"),
    pytest.param(zstandard.compress(TWO)[:-1], "its zstd stream does not end", id="zstd-cut-off"),
    pytest.param(zstandard.compress(TWO)[:6], "its zstd stream does not end", id="zstd-mark-only"),
    pytest.param(zstandard.compress(TWO) + b"rest!", "damaged: zstd", id="zstd-and-more"),
    pytest.param(b"\x28\xb5\x2f\xfd" + b"\xff" * 100, "damaged: zstd", id="zstd-broken"),
    pytest.param(TWO[:1024] + b"!" + TWO[1025:], "damaged behind 'x'", id="broken-header"),
    pytest.param(TWO[:1124], "damaged behind 'x'", id="header-cut-off"),
    pytest.param(TWO[:700], "damaged behind 'x': unexpected end", id="padding-cut-off"),
    pytest.param(
        patched(FILE, 124, b"\xff" * 12) + bytes(1024), "the layer|negative", id="negative-size"
    ),
    pytest.param(tar(pax("x", size="-512")), "the layer|negative", id="negative-size-in-pax"),
    pytest.param(patched(FILE, 100, b"8") + bytes(1024), "is no tar", id="wrong-number"),
    pytest.param(
        headers(entry(b"L", "L", size=1 << 40)[0], tarfile.GNU_FORMAT) + bytes(1024),
        "headers that are too large",
        id="huge-name",
    ),
    pytest.param(LONG_NAMES + FILE, "recursion", id="names-without-end"),
    pytest.param(
        headers(entry(b"x", "x", size=11)[0]) + padded(b"11 path=y\n\n") + bytes(512),
        "is no tar",
        id="pax-of-nothing",
    ),
    pytest.param(
        tar(pax("x", **{"GNU.sparse.map": "1,b", "GNU.sparse.size": "10"})),
        "the layer|negative",
        id="map-of-words",
    ),
    pytest.param(
        tar(pax("x", **{"GNU.sparse.major": "1", "GNU.sparse.minor": "0"})),
        "the layer|negative",
        id="map-missing",
    ),
]


@pytest.mark.parametrize(("blob", "text"), DAMAGED)
def test_damaged_layers(root: Path, blob: bytes, text: str) -> None:
    """A layer that is no tar, or is damaged anywhere, is refused as a whole."""
    with pytest.raises(LayoutError, match=text):
        unpacker(root).apply(io.BytesIO(blob))


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


def folders(*names: str) -> Tree:
    return dict.fromkeys(names)


ODD = [
    pytest.param([[file("/etc/x", b"1")]], {"etc": None, "etc/x": b"1"}, id="absolute"),
    pytest.param([[file(".//a/./x", b"1")]], {"a": None, "a/x": b"1"}, id="dots"),
    pytest.param([[folder("./"), folder(""), folder("/")]], {}, id="root"),
    pytest.param([[file("x", b"1"), file("x", b"2")]], {"x": b"2"}, id="twice"),
    pytest.param([[file("x")], [symlink("x", "/canary")]], {"x": "/canary"}, id="link-over-file"),
    pytest.param(
        [[symlink("x", "/canary/secret")], [file("x", b"1")]], {"x": b"1"}, id="file-over-link"
    ),
    pytest.param([[folder("x"), file("x/y")], [file("x")]], {"x": b""}, id="file-over-folder"),
    pytest.param(
        [[folder("x"), file("x/y")], [symlink("x", "z")]], {"x": "z"}, id="link-over-folder"
    ),
    pytest.param(
        [[file("x")], [folder("x"), file("x/y")]], {"x": None, "x/y": b""}, id="folder-over-file"
    ),
    pytest.param(
        [[symlink("x", "/y"), folder("y"), file("y/z")], [folder("x")]],
        {"x": None, "y": None, "y/z": b""},
        id="folder-over-link",
    ),
    pytest.param(
        [[folder("x"), file("x/y")], [folder("x")]],
        {"x": None, "x/y": b""},
        id="folder-over-folder",
    ),
    pytest.param(
        [[file("x/y/z")], [file("x"), folder("x"), file("x/y", b"1")]],
        {"x": None, "x/y": b"1"},
        id="folder-over-file-over-folder",
    ),
    pytest.param(
        [[folder("usr/lib"), symlink("lib", "usr/lib")], [file("lib/x", b"1")]],
        {"usr": None, "usr/lib": None, "lib": "usr/lib", "usr/lib/x": b"1"},
        id="behind-a-link",
    ),
    pytest.param(
        [[symlink("a", "/b"), symlink("b", "c/../../d/e")], [file("a/x", b"1")]],
        {"a": "/b", "b": "c/../../d/e", "c": None, "d": None, "d/e": None, "d/e/x": b"1"},
        id="behind-links-to-missing-folders",
    ),
    pytest.param(
        [[symlink("a", "../../../../canary")], [file("a/secret", b"1")]],
        {"a": "../../../../canary", "canary": None, "canary/secret": b"1"},
        id="behind-a-link-out",
    ),
    pytest.param(
        [
            [symlink("a", "/canary"), folder("canary"), file("canary/x"), file("canary/y")],
            [file("a/.wh.x"), file("a/y", b"1")],
        ],
        {"a": "/canary", "canary": None, "canary/y": b"1"},
        id="whiteout-behind-a-link",
    ),
    pytest.param(
        [[*(symlink(f"{n}", f"{n + 1}") for n in range(40))], [file("0/x")]],
        {**{f"{n}": f"{n + 1}" for n in range(40)}, "40": None, "40/x": b""},
        id="40-links",
    ),
    pytest.param(
        [[folder("d"), symlink("l", "d")], [file("l/x"), file(".wh.l"), file("l/y")]],
        {"d": None, "d/x": b"", "l": None, "l/y": b""},
        id="link-goes-in-between",
    ),
    pytest.param(
        [[folder("d"), file("d/x"), symlink("d", "e"), file("d/y")]],
        {"d": "e", "e": None, "e/y": b""},
        id="folder-becomes-a-link",
    ),
    pytest.param([[file("x"), file("y")], [file(".wh.x")]], {"y": b""}, id="whiteout"),
    pytest.param(
        [[file("a/b/x"), file("a/y")], [file("a/.wh.b")]],
        {"a": None, "a/y": b""},
        id="whiteout-of-a-folder",
    ),
    pytest.param(
        [[symlink("x", "/y"), file("y/z")], [file(".wh.x")]],
        {"y": None, "y/z": b""},
        id="whiteout-of-a-link",
    ),
    pytest.param([[file("y/z")], [folder(".wh.y")]], {}, id="whiteout-that-is-a-folder"),
    pytest.param(
        [[file("x")], [file(".wh.y"), file("z/.wh.y"), file("x/.wh.y")]],
        {"x": b""},
        id="whiteout-of-nothing",
    ),
    pytest.param([[file("x")], [file(".wh.x"), file("x", b"1")]], {"x": b"1"}, id="whiteout-first"),
    pytest.param([[file("x")], [file("x", b"1"), file(".wh.x")]], {"x": b"1"}, id="whiteout-last"),
    pytest.param(
        [[file("a/b/x"), file("a/b/y")], [file("a/b/y", b"1"), file(".wh.a")]],
        {"a": None, "a/b": None, "a/b/y": b"1"},
        id="whiteout-above-this-layer",
    ),
    pytest.param(
        [[file("a/x")], [folder("a"), file(".wh.a")]], folders("a"), id="whiteout-of-this-folder"
    ),
    pytest.param(
        [
            [file("a/x"), file("a/b/y"), file("z")],
            [folder("a"), file("a/.wh..wh..opq"), file("a/c", b"1")],
        ],
        {"a": None, "a/c": b"1", "z": b""},
        id="opaque-first",
    ),
    pytest.param(
        [
            [file("a/x"), file("a/b/y"), file("a/b/z")],
            [file("a/c", b"1"), file("a/b/z", b"2"), file("a/.wh..wh..opq")],
        ],
        {"a": None, "a/b": None, "a/b/z": b"2", "a/c": b"1"},
        id="opaque-last",
    ),
    pytest.param([[file("a/x")], [file(".wh..wh..opq"), file("y")]], {"y": b""}, id="opaque-root"),
    pytest.param(
        [[file("a")], [file("a/.wh..wh..opq"), file("b/.wh..wh..opq")]],
        {"a": b""},
        id="opaque-nothing",
    ),
    pytest.param(
        [
            [file("x")],
            [
                file(".wh..wh.aufs"),
                folder(".wh..wh.plnk"),
                file(".wh..wh.plnk/1.2"),
                file(".wh..wh..x"),
            ],
        ],
        {"x": b""},
        id="aufs",
    ),
    pytest.param(
        [[file(".wh"), file(".whx")], [file(".wh..wh")]], {".whx": b""}, id="nearly-whiteouts"
    ),
    pytest.param(
        [
            [
                entry(tarfile.CHRTYPE, "a/null"),
                entry(tarfile.BLKTYPE, "sda"),
                entry(tarfile.FIFOTYPE, "p"),
                file("x"),
            ]
        ],
        {"x": b""},
        id="devices",
    ),
    pytest.param(
        [[file("x", b"1")], [entry(tarfile.CHRTYPE, "x", devmajor=0, devminor=0)]],
        {"x": b"1"},
        id="overlay-whiteout",
    ),
    pytest.param(
        [[file("a/x", b"1")], [hard_link("b/y", "/a/x")]],
        {"a": None, "a/x": b"1", "b": None, "b/y": b"1"},
        id="hard-link",
    ),
    pytest.param(
        [[symlink("x", "/canary")], [hard_link("y", "x")]],
        {"x": "/canary", "y": "/canary"},
        id="hard-link-to-a-link",
    ),
    pytest.param(
        [[folder("u"), file("u/x", b"1"), symlink("l", "/u")], [file("y"), hard_link("y", "l/x")]],
        {"u": None, "u/x": b"1", "l": "/u", "y": b"1"},
        id="hard-link-behind-a-link",
    ),
    pytest.param(
        [[entry(tarfile.CONTTYPE, "x", b"1"), entry(tarfile.AREGTYPE, "d/")]],
        {"x": b"1", "d": None},
        id="old-types",
    ),
    pytest.param([[file("é\udcff\n", b"1")]], {"é\udcff\n": b"1"}, id="any-bytes"),
    pytest.param([[symlink("x", "\udcff")]], {"x": "\udcff"}, id="any-target"),
    pytest.param(
        [[file("d" * 150 + "/" + "n" * 255, b"1")]],
        {"d" * 150: None, "d" * 150 + "/" + "n" * 255: b"1"},
        id="long-names",
    ),
    pytest.param([[symlink("x", "t" * 300)]], {"x": "t" * 300}, id="long-target"),
    pytest.param([[]], {}, id="empty"),
]


@pytest.mark.parametrize("layout", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
@pytest.mark.parametrize(("entries", "expected"), ODD)
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


# A model of the specification: a dictionary of all paths, and who made each.

NAMES = st.sampled_from(("a", "b", "c"))
PATHS = st.lists(NAMES, min_size=1, max_size=3).map("/".join)
TARGETS = st.sampled_from(
    ("a", "b", "c/a", "../a", "/a/b", "/", ".", "..", "../../canary", "/canary", "../../canary/a")
)
MARKS = st.builds(
    lambda path: "/".join((*path.split("/")[:-1], ".wh." + path.split("/")[-1])), PATHS
)
OPAQUES = st.one_of(st.just(".wh..wh..opq"), PATHS.map(lambda path: f"{path}/.wh..wh..opq"))
ENTRIES = st.one_of(
    st.builds(file, PATHS, st.binary(max_size=3)),
    st.builds(folder, PATHS),
    st.builds(symlink, PATHS, TARGETS),
    st.builds(hard_link, PATHS, PATHS),
    st.builds(file, MARKS),
    st.builds(file, OPAQUES),
)
LAYERS = st.lists(st.lists(ENTRIES, max_size=6), min_size=1, max_size=4)

Place: TypeAlias = tuple[str, ...]


class RefusedError(Exception):
    """The model refuses an entry."""


class Model:
    """What layers give, as simply as it can be said."""

    def __init__(self) -> None:
        self.nodes: dict[Place, tuple[bytes | str | None, int]] = {}
        self.layer = 0

    def add(self, info: tarfile.TarInfo, data: bytes) -> None:
        *parents, last = info.name.split("/")
        if last.startswith(".wh."):
            self._whiteout(parents, last.removeprefix(".wh."))
            return
        place = (*self._made(parents), last)
        value = self._value(info, data, place)
        if value is not None or (place in self.nodes and self.nodes[place][0] is not None):
            self._remove(place, self.layer + 1)
        self.nodes[place] = value, self.layer

    def _value(self, info: tarfile.TarInfo, data: bytes, place: Place) -> bytes | str | None:
        if info.issym():
            return info.linkname
        if not info.islnk():
            return data if info.isreg() else None
        *parents, last = info.linkname.split("/")
        behind = self._resolve(parents, make=False)
        target = (*behind, last) if behind is not None else ()
        value = self.nodes.get(target, (None, 0))[0]
        if value is None or target[: len(place)] == place:
            raise RefusedError
        return value

    def _whiteout(self, parents: list[str], name: str) -> None:
        place = self._resolve(parents, make=False)
        if place is not None and name == ".wh..opq":
            for each in [each for each in self.nodes if each[:-1] == place]:
                self._remove(each, self.layer)
        elif place is not None:
            self._remove((*place, name), self.layer)

    def _remove(self, place: Place, before: int) -> None:
        """Remove what was made before a layer, but not the folders of what stays."""
        inside = [each for each in self.nodes if each[: len(place)] == place]
        stays = [each for each in inside if self.nodes[each][1] >= before]
        for each in inside:
            if not any(other[: len(each)] == each for other in stays):
                del self.nodes[each]

    def _made(self, parts: list[str]) -> Place:
        place = self._resolve(parts, make=True)
        if place is None:
            raise RefusedError
        return place

    def _resolve(self, parts: list[str], *, make: bool) -> Place | None:
        place: Place = ()
        todo, links = list(parts), 0
        while todo:
            part = todo.pop(0)
            if part in {"", ".", ".."}:
                place = place[:-1] if part == ".." else place
                continue
            below = (*place, part)
            if make:
                self.nodes.setdefault(below, (None, self.layer))
            value = self.nodes[below][0] if below in self.nodes else b"missing"
            if isinstance(value, bytes):
                return None
            if value is None:
                place = below
                continue
            place, todo, links = (
                () if value.startswith("/") else place,
                value.split("/") + todo,
                links + 1,
            )
            if links > 40:
                raise RefusedError
        return place


@settings(deadline=None, max_examples=400)
@given(images=LAYERS)
@example(images=[[file("a/b"), symlink("b", "a")], [file("b/c"), file(".wh.a"), file("b/a")]])
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
