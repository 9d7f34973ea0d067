"""Layers that are damaged or made to hurt, with the words that refuse them."""

from __future__ import annotations

import gzip
import lzma
import tarfile

import zstandard

from layertars import (
    Entry,
    entry,
    file,
    folder,
    hard_link,
    headers,
    padded,
    patched,
    pax,
    symlink,
    tar,
)

OUT = "leads out of the image"

LONG = "n" * 256

HOSTILE: dict[str, tuple[list[Entry], str]] = {
    "out": ([file("../canary/secret")], f"'../canary/secret': {OUT}"),
    "out-behind-a-folder": ([file("a/../../x")], f"'a/../../x': {OUT}"),
    "out-at-the-end": ([file("a/..")], f"'a/..': {OUT}"),
    "out-of-the-top": ([file("/../x")], f"'/../x': {OUT}"),
    "out-behind-a-dot": ([file("./../x")], f"'./../x': {OUT}"),
    "folder-out": ([folder("..")], f"'..': {OUT}"),
    "out-inside": ([folder("a"), file("a/../x")], f"'a/../x': {OUT}"),
    "symlink-out": ([symlink("../x", "y")], f"'../x': {OUT}"),
    "whiteout-out": ([file("../.wh.canary")], f"'../.wh.canary': {OUT}"),
    "opaque-out": ([file("../.wh..wh..opq")], f"'../.wh..wh..opq': {OUT}"),
    "device-out": ([entry(tarfile.CHRTYPE, "../x")], f"'../x': {OUT}"),
    "hard-link-out": (
        [hard_link("x", "../canary/secret")],
        f"'x': is a hard link to '../canary/secret', which {OUT}",
    ),
    "hard-link-lost": ([hard_link("x", "y")], "'x': is a hard link to 'y', which is not there"),
    "hard-link-lost-behind": (
        [hard_link("x", "y/z")],
        "'x': is a hard link to 'y/z', which is not there",
    ),
    "hard-link-through-a-link": (
        [symlink("y", "/canary"), hard_link("x", "y/secret")],
        "'x': is a hard link to 'y/secret', which is not there",
    ),
    "hard-link-to-a-folder": (
        [folder("y"), hard_link("x", "y")],
        "'x': is a hard link to 'y', which is no file",
    ),
    "hard-link-to-the-root": (
        [hard_link("x", ".")],
        "'x': is a hard link to '.', which is no file",
    ),
    "hard-link-to-itself": (
        [file("x"), hard_link("x", "/x")],
        "'x': is a hard link to '/x', which is itself",
    ),
    "hard-link-that-removes-its-target": (
        [file("x/y"), hard_link("x", "x/y")],
        "'x': No such file or directory",
    ),
    "behind-a-file": ([file("x"), file("x/y")], "'x/y': lies behind b'x', which is no folder"),
    "behind-a-link-to-a-file": (
        [file("x"), symlink("y", "x"), folder("y/z")],
        "'y/z': lies behind b'x', which is no folder",
    ),
    "link-to-itself": ([symlink("x", "x"), file("x/y")], "'x/y': lies behind too many links"),
    "link-circle": (
        [symlink("x", "y"), symlink("y", "x"), file("x/z")],
        "'x/z': lies behind too many links",
    ),
    "41-links": (
        [*(symlink(f"{n}", f"{n + 1}") for n in range(41)), file("0/x")],
        "'0/x': lies behind too many links",
    ),
    "long-name": ([file(LONG)], f"{'n' * 200 + '...'!r}: File name too long"),
    "long-parent": ([file(f"{LONG}/x")], f"{'n' * 200 + '...'!r}: File name too long"),
    "long-path": ([file(f"{'n' * 200}/" * 30)], f"{'n' * 200 + '...'!r}: File name too long"),
    "long-target": ([symlink("x", "y" * 5000)], "'x': File name too long"),
    "symlink-to-nothing": ([symlink("x", "")], "'x': No such file or directory"),
    "null-target": (
        [symlink("x", "y", pax_headers={"linkpath": "a\0b"})],
        "'x': has a null byte in its target",
    ),
    "null-name": ([pax("x", path="a\0b")], "'a\\x00b': has a null byte in it"),
    "whiteout-of-nothing": ([file(".wh.")], "'.wh.': is a whiteout of no name"),
    "whiteout-in-a-folder": ([file("a/.wh.")], "'a/.wh.': is a whiteout of no name"),
    "whiteout-of-a-dot": ([file(".wh..")], "'.wh..': is a whiteout of no name"),
    "whiteout-of-two-dots": ([file(".wh...")], "'.wh...': is a whiteout of no name"),
    "behind-a-whiteout": ([file(".wh.x/y")], "'.wh.x/y': lies behind a whiteout"),
    "behind-an-opaque-mark": ([file(".wh..wh..opq/y")], "'.wh..wh..opq/y': lies behind a whiteout"),
    "unknown-type": ([entry(b"Z", "x")], "'x': has a type that is unknown: b'Z'"),
    "root-is-a-file": ([file(".")], "'.': is the image's root, and no folder"),
    "root-is-a-link": ([symlink("./.", "/")], "'./.': is the image's root, and no folder"),
    "root-is-a-hard-link": ([hard_link("/", "x")], "'/': is the image's root, and no folder"),
    "negative-owner": ([pax("x", uid="-1")], "'x': has an owner that no system has: -1"),
    "large-group": (
        [pax("x", gid="4294967295")],
        "'x': has an owner that no system has: 4294967295",
    ),
    "cut-off-file": ([file("x", size=4096)], "'x': is cut off: the layer ends in it"),
    "wrong-map": (
        [pax("x", **{"GNU.sparse.map": "5,9", "GNU.sparse.size": "10"})],
        "'x': has a wrong map of its holes",
    ),
    "negative-map": (
        [pax("x", **{"GNU.sparse.map": "0,-5", "GNU.sparse.size": "10"})],
        "'x': has a wrong map of its holes",
    ),
    "map-of-other-entries": (
        [pax("x", **{"GNU.sparse.map": "0,600", "GNU.sparse.size": "600"}), file("y")],
        "the layer has an entry that leads backwards",
    ),
    "huge-hole": (
        [pax("x", **{"GNU.sparse.map": "0,0", "GNU.sparse.size": str(1 << 60)})],
        f"'x': the image has more than {64 << 30} bytes",
    ),
    "huge-pax": (
        [file("x", pax_headers={"comment": "c" * (1 << 20)})],
        "the layer has an entry with headers that are too large",
    ),
}
"""Entries that are refused, in one layer as in several."""

FILE = headers(file("x")[0])

TWO = tar(file("x", b"one"), file("y", b"two"))

LONG_NAMES = b"".join(headers(entry(b"L", "L", size=5)[0]) + padded(b"name") for _ in range(2_000))

DAMAGED: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "is no tar"),
    "one-byte": (b"x", "is no tar"),
    "text": (b"no tar at all" * 100, "is no tar"),
    "xz": (lzma.compress(TWO), "is no tar"),
    "bzip2": (b"BZh91AY&SY" + bytes(600), "is no tar"),
    "cut-off-header": (FILE[:300], "is no tar"),
    "gzip-of-text": (gzip.compress(b"text"), "is no tar"),
    "gzip-cut-off": (gzip.compress(TWO)[:-9], "its gzip stream does not end"),
    "gzip-without-sum": (gzip.compress(TWO)[:-1], "its gzip stream does not end"),
    "gzip-mark-only": (gzip.compress(TWO)[:5], "its gzip stream does not end"),
    "gzip-wrong-sum": (gzip.compress(TWO)[:-8] + bytes(8), "damaged: gzip: "),
    "gzip-and-more": (gzip.compress(TWO) + b"rest", "damaged: gzip: "),
    "gzip-broken": (b"\x1f\x8b" + b"\xff" * 100, "damaged: gzip: "),
    "zstd-cut-off": (zstandard.compress(TWO)[:-1], "its zstd stream does not end"),
    "zstd-mark-only": (zstandard.compress(TWO)[:6], "its zstd stream does not end"),
    "zstd-and-more": (zstandard.compress(TWO) + b"rest!", "damaged: zstd"),
    "zstd-broken": (b"\x28\xb5\x2f\xfd" + b"\xff" * 100, "damaged: zstd"),
    "broken-header": (TWO[:1024] + b"!" + TWO[1025:], "damaged behind 'x'"),
    "header-cut-off": (TWO[:1124], "damaged behind 'x'"),
    "padding-cut-off": (TWO[:700], "damaged behind 'x': unexpected end"),
    "negative-size": (patched(FILE, 124, b"\xff" * 12) + bytes(1024), "the layer|negative"),
    "negative-size-in-pax": (tar(pax("x", size="-512")), "the layer|negative"),
    "wrong-number": (patched(FILE, 100, b"8") + bytes(1024), "is no tar"),
    "huge-name": (
        headers(entry(b"L", "L", size=1 << 40)[0], tarfile.GNU_FORMAT) + bytes(1024),
        "headers that are too large",
    ),
    "names-without-end": (LONG_NAMES + FILE, "recursion"),
    "pax-of-nothing": (
        headers(entry(b"x", "x", size=11)[0]) + padded(b"11 path=y\n\n") + bytes(512),
        "is no tar",
    ),
    "map-of-words": (
        tar(pax("x", **{"GNU.sparse.map": "1,b", "GNU.sparse.size": "10"})),
        "the layer|negative",
    ),
    "map-missing": (
        tar(pax("x", **{"GNU.sparse.major": "1", "GNU.sparse.minor": "0"})),
        "the layer|negative",
    ),
}
"""Layers that are no tars, or damaged ones; the words are a pattern."""


HOST = "/@host"
"""Stands for the absolute path of a folder of the host, with a file `secret`."""


REFUSED: dict[str, tuple[list[list[Entry]], str]] = {
    "hard-link-to-the-host": (
        [[hard_link("x", f"{HOST}/secret")]],
        f"'x': is a hard link to '{HOST}/secret', which is not there",
    ),
    "hard-link-behind-a-link-to-the-host": (
        [[symlink("a", HOST)], [hard_link("x", "a/secret")]],
        "'x': is a hard link to 'a/secret', which is not there",
    ),
    "hard-link-to-a-device": (
        [[entry(tarfile.CHRTYPE, "mem", devmajor=1, devminor=1), hard_link("x", "mem")]],
        "'x': is a hard link to 'mem', which is not there",
    ),
    "hard-link-before-its-target": (
        [[hard_link("x", "y"), file("y")]],
        "'x': is a hard link to 'y', which is not there",
    ),
    "hard-link-to-what-a-whiteout-took": (
        [[file("y")], [file(".wh.y"), hard_link("x", "y")]],
        "'x': is a hard link to 'y', which is not there",
    ),
    "pax-path-out": ([[pax("x", path="../secret")]], f"'../secret': {OUT}"),
    "pax-path-out-over-a-long-name": (
        [[pax("n" * 120, path="a/../../secret")]],
        f"'a/../../secret': {OUT}",
    ),
    "pax-link-out": (
        [[hard_link("x", "y", pax_headers={"linkpath": "../../secret"})]],
        f"'x': is a hard link to '../../secret', which {OUT}",
    ),
    "pax-name-of-a-sparse-file-out": (
        [
            [
                pax(
                    "x",
                    **{
                        "GNU.sparse.name": "../secret",
                        "GNU.sparse.map": "0,0",
                        "GNU.sparse.size": "1",
                    },
                )
            ]
        ],
        f"'../secret': {OUT}",
    ),
    "pax-size-of-more": ([[pax("x", size="4096")]], "'x': is cut off: the layer ends in it"),
    "pax-size-of-less": (
        [[file("x", b"no header" * 99, pax_headers={"size": "0"})]],
        "the layer is damaged behind 'x': bad header",
    ),
    "pax-for-all-entries": (
        [[entry(tarfile.XGLTYPE, "g", b"21 path=../../secret\n"), file("x")]],
        f"'../../secret': {OUT}",
    ),
    "deep": ([[file("d/" * 201 + "x")]], f"{'d/' * 100 + '...'!r}: lies in more than 200 folders"),
    "deep-behind-a-link": (
        [[symlink("l", "d/" * 150)], [file("l/" + "e/" * 60 + "x")]],
        f"{'l/' + 'e/' * 60 + 'x'!r}: lies in more than 200 folders",
    ),
    "whiteout-of-the-host": ([[file(f"..{HOST}/.wh.secret")]], f"'..{HOST}/.wh.secret': {OUT}"),
    "whiteout-behind-a-whiteout": (
        [[file(".wh.a/.wh.b")]],
        "'.wh.a/.wh.b': lies behind a whiteout",
    ),
    "terminal-in-a-name": ([[file("../\x1b[2J")]], f"'../\\x1b[2J': {OUT}"),
    "sparse-files-in-numbers": (
        [
            [
                pax(f"{n}", **{"GNU.sparse.map": "0,0", "GNU.sparse.size": str(20 << 30)})
                for n in range(4)
            ]
        ],
        f"'3': the image has more than {64 << 30} bytes",
    ),
}
"""Layers that are refused, besides those above."""
