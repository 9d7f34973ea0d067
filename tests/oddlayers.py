"""Layers that are odd, or reach for the host, and are applied all the same: with what they give."""

from __future__ import annotations

import tarfile

from hostile import HOST
from layertars import Entry, Tree, entry, file, folder, hard_link, pax, symlink


def folders(*names: str) -> Tree:
    return dict.fromkeys(names)


ODD: dict[str, tuple[list[list[Entry]], Tree]] = {
    "absolute": ([[file("/etc/x", b"1")]], {"etc": None, "etc/x": b"1"}),
    "dots": ([[file(".//a/./x", b"1")]], {"a": None, "a/x": b"1"}),
    "root": ([[folder("./"), folder(""), folder("/")]], {}),
    "twice": ([[file("x", b"1"), file("x", b"2")]], {"x": b"2"}),
    "link-over-file": ([[file("x")], [symlink("x", "/canary")]], {"x": "/canary"}),
    "file-over-link": ([[symlink("x", "/canary/secret")], [file("x", b"1")]], {"x": b"1"}),
    "file-over-folder": ([[folder("x"), file("x/y")], [file("x")]], {"x": b""}),
    "link-over-folder": ([[folder("x"), file("x/y")], [symlink("x", "z")]], {"x": "z"}),
    "folder-over-file": ([[file("x")], [folder("x"), file("x/y")]], {"x": None, "x/y": b""}),
    "folder-over-link": (
        [[symlink("x", "/y"), folder("y"), file("y/z")], [folder("x")]],
        {"x": None, "y": None, "y/z": b""},
    ),
    "folder-over-folder": ([[folder("x"), file("x/y")], [folder("x")]], {"x": None, "x/y": b""}),
    "folder-over-file-over-folder": (
        [[file("x/y/z")], [file("x"), folder("x"), file("x/y", b"1")]],
        {"x": None, "x/y": b"1"},
    ),
    "behind-a-link": (
        [[folder("usr/lib"), symlink("lib", "usr/lib")], [file("lib/x", b"1")]],
        {"usr": None, "usr/lib": None, "lib": "usr/lib", "usr/lib/x": b"1"},
    ),
    "behind-links-to-missing-folders": (
        [[symlink("a", "/b"), symlink("b", "c/../../d/e")], [file("a/x", b"1")]],
        {"a": "/b", "b": "c/../../d/e", "c": None, "d": None, "d/e": None, "d/e/x": b"1"},
    ),
    "behind-a-link-out": (
        [[symlink("a", "../../../../canary")], [file("a/secret", b"1")]],
        {"a": "../../../../canary", "canary": None, "canary/secret": b"1"},
    ),
    "whiteout-behind-a-link": (
        [
            [symlink("a", "/canary"), folder("canary"), file("canary/x"), file("canary/y")],
            [file("a/.wh.x"), file("a/y", b"1")],
        ],
        {"a": "/canary", "canary": None, "canary/y": b"1"},
    ),
    "40-links": (
        [[*(symlink(f"{n}", f"{n + 1}") for n in range(40))], [file("0/x")]],
        {**{f"{n}": f"{n + 1}" for n in range(40)}, "40": None, "40/x": b""},
    ),
    "link-goes-in-between": (
        [[folder("d"), symlink("l", "d")], [file("l/x"), file(".wh.l"), file("l/y")]],
        {"d": None, "d/x": b"", "l": None, "l/y": b""},
    ),
    "folder-becomes-a-link": (
        [[folder("d"), file("d/x"), symlink("d", "e"), file("d/y")]],
        {"d": "e", "e": None, "e/y": b""},
    ),
    "whiteout": ([[file("x"), file("y")], [file(".wh.x")]], {"y": b""}),
    "whiteout-of-a-folder": (
        [[file("a/b/x"), file("a/y")], [file("a/.wh.b")]],
        {"a": None, "a/y": b""},
    ),
    "whiteout-of-a-link": (
        [[symlink("x", "/y"), file("y/z")], [file(".wh.x")]],
        {"y": None, "y/z": b""},
    ),
    "whiteout-that-is-a-folder": ([[file("y/z")], [folder(".wh.y")]], {}),
    "whiteout-of-nothing": (
        [[file("x")], [file(".wh.y"), file("z/.wh.y"), file("x/.wh.y")]],
        {"x": b""},
    ),
    "whiteout-first": ([[file("x")], [file(".wh.x"), file("x", b"1")]], {"x": b"1"}),
    "whiteout-last": ([[file("x")], [file("x", b"1"), file(".wh.x")]], {"x": b"1"}),
    "whiteout-above-this-layer": (
        [[file("a/b/x"), file("a/b/y")], [file("a/b/y", b"1"), file(".wh.a")]],
        {"a": None, "a/b": None, "a/b/y": b"1"},
    ),
    "whiteout-of-this-folder": ([[file("a/x")], [folder("a"), file(".wh.a")]], folders("a")),
    "opaque-first": (
        [
            [file("a/x"), file("a/b/y"), file("z")],
            [folder("a"), file("a/.wh..wh..opq"), file("a/c", b"1")],
        ],
        {"a": None, "a/c": b"1", "z": b""},
    ),
    "opaque-last": (
        [
            [file("a/x"), file("a/b/y"), file("a/b/z")],
            [file("a/c", b"1"), file("a/b/z", b"2"), file("a/.wh..wh..opq")],
        ],
        {"a": None, "a/b": None, "a/b/z": b"2", "a/c": b"1"},
    ),
    "opaque-root": ([[file("a/x")], [file(".wh..wh..opq"), file("y")]], {"y": b""}),
    "opaque-nothing": ([[file("a")], [file("a/.wh..wh..opq"), file("b/.wh..wh..opq")]], {"a": b""}),
    "aufs": (
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
    ),
    "nearly-whiteouts": ([[file(".wh"), file(".whx")], [file(".wh..wh")]], {".whx": b""}),
    "devices": (
        [
            [
                entry(tarfile.CHRTYPE, "a/null"),
                entry(tarfile.BLKTYPE, "sda"),
                entry(tarfile.FIFOTYPE, "p"),
                file("x"),
            ]
        ],
        {"x": b""},
    ),
    "overlay-whiteout": (
        [[file("x", b"1")], [entry(tarfile.CHRTYPE, "x", devmajor=0, devminor=0)]],
        {"x": b"1"},
    ),
    "hard-link": (
        [[file("a/x", b"1")], [hard_link("b/y", "/a/x")]],
        {"a": None, "a/x": b"1", "b": None, "b/y": b"1"},
    ),
    "hard-link-to-a-link": (
        [[symlink("x", "/canary")], [hard_link("y", "x")]],
        {"x": "/canary", "y": "/canary"},
    ),
    "hard-link-behind-a-link": (
        [[folder("u"), file("u/x", b"1"), symlink("l", "/u")], [file("y"), hard_link("y", "l/x")]],
        {"u": None, "u/x": b"1", "l": "/u", "y": b"1"},
    ),
    "old-types": (
        [[entry(tarfile.CONTTYPE, "x", b"1"), entry(tarfile.AREGTYPE, "d/")]],
        {"x": b"1", "d": None},
    ),
    "any-bytes": ([[file("é\udcff\n", b"1")]], {"é\udcff\n": b"1"}),
    "any-target": ([[symlink("x", "\udcff")]], {"x": "\udcff"}),
    "long-names": (
        [[file("d" * 150 + "/" + "n" * 255, b"1")]],
        {"d" * 150: None, "d" * 150 + "/" + "n" * 255: b"1"},
    ),
    "long-target": ([[symlink("x", "t" * 300)]], {"x": "t" * 300}),
    "empty": ([[]], {}),
}
"""What container engines take, and how they take it."""

AT = HOST.removeprefix("/")

APPLIED: dict[str, tuple[list[list[Entry]], Tree]] = {
    "name-of-the-host": ([[file(f"{HOST}/secret", b"1")]], {f"{AT}/secret": b"1"}),
    "behind-a-link-to-the-host": (
        [[symlink("a", HOST)], [file("a/secret", b"1")]],
        {"a": HOST, f"{AT}/secret": b"1"},
    ),
    "behind-a-link-up-to-the-host": (
        [[symlink("a", f"{'../' * 40}{AT}")], [file("a/secret", b"1"), folder("a", 0o777)]],
        {"a": None, f"{AT}/secret": b"1"},
    ),
    "behind-a-link-of-this-layer": (
        [[symlink("a", HOST), file("a/secret", b"1")]],
        {"a": HOST, f"{AT}/secret": b"1"},
    ),
    "over-a-link-to-the-host": (
        [[symlink("x", f"{HOST}/secret")], [file("x", b"1", mode=0o777)]],
        {"x": b"1"},
    ),
    "over-a-link-to-a-folder-of-the-host": (
        [[symlink("x", HOST)], [folder("x", 0o777), file("x/secret", b"1")]],
        {"x": None, "x/secret": b"1"},
    ),
    "hard-link-over-a-link-to-the-host": (
        [[symlink("x", f"{HOST}/secret"), file("y", b"1")], [hard_link("x", "y", mode=0o777)]],
        {"x": b"1", "y": b"1"},
    ),
    "hard-link-to-a-link-to-the-host": (
        [[symlink("x", f"{HOST}/secret"), hard_link("y", "x"), file("y", b"1")]],
        {"x": f"{HOST}/secret", "y": b"1"},
    ),
    "whiteout-behind-a-link-to-the-host": (
        [[symlink("a", HOST)], [file("a/.wh.secret")]],
        {"a": HOST},
    ),
    "opaque-behind-a-link-to-the-host": (
        [[symlink("a", HOST)], [file("a/.wh..wh..opq")]],
        {"a": HOST},
    ),
    "whiteout-of-a-link-to-the-host": ([[symlink("a", HOST)], [file(".wh.a")]], {}),
    "opaque-over-links-to-the-host": (
        [[folder("d"), symlink("d/a", HOST), file("d/b/c")], [file("d/.wh..wh..opq")]],
        {"d": None},
    ),
    "file-over-a-folder-of-links-to-the-host": (
        [[symlink("d/a", HOST), symlink("d/b/c", f"{HOST}/secret")], [file("d", b"1")]],
        {"d": b"1"},
    ),
    "setuid": (
        [[file("su", b"1", mode=0o6755, uid=7), folder("tmp", 0o1777), file("sh", mode=0o4000)]],
        {"su": b"1", "tmp": None, "sh": b""},
    ),
    "devices-of-the-host": (
        [
            [
                entry(tarfile.BLKTYPE, "dev/sda", devmajor=8, devminor=0, mode=0o666),
                entry(tarfile.CHRTYPE, "dev/mem", devmajor=1, devminor=1, mode=0o666),
                entry(tarfile.CHRTYPE, "dev/console", devmajor=5, devminor=1),
                entry(tarfile.FIFOTYPE, "run/pipe"),
            ],
            [file("dev/sda", b"1")],
        ],
        {"dev/sda": b"1"},
    ),
    "each-kind-twice": (
        [
            [
                *(symlink("a", HOST), file("a"), folder("a"), symlink("a", HOST)),
                *(file("b", b"1"), hard_link("a", "b"), file("b", b"2")),
            ]
        ],
        {"a": b"1", "b": b"2"},
    ),
    "whiteout-twice": ([[file("a/x")], [file("a/.wh.x"), file("a/.wh.x")]], {"a": None}),
    "opaque-and-whiteouts": (
        [[file("a/x"), file("a/y")], [file("a/.wh.x"), file("a/.wh..wh..opq"), file("a/.wh.z")]],
        {"a": None},
    ),
    "whiteout-of-what-opaque-kept": (
        [[file("a/x")], [file("a/.wh..wh..opq"), file("a/y"), file("a/.wh.y")]],
        {"a/y": b""},
    ),
    "pax-attributes": (
        [
            [
                pax(
                    "x",
                    **{
                        "SCHILY.xattr.security.capability": "\1\0\0\2",
                        "SCHILY.xattr.trusted.overlay.opaque": "y",
                        "SCHILY.acl.access": "user::rwx",
                        "uname": "root",
                        "hdrcharset": "BINARY",
                    },
                )
            ]
        ],
        {"x": b""},
    ),
    "huge-hole-within-bounds": (
        [[pax("x", **{"GNU.sparse.map": "0,0", "GNU.sparse.size": str(1 << 20)})]],
        {"x": bytes(1 << 20)},
    ),
    "name-that-ends-in-a-slash": ([[file("x/", b"1")]], {"x": b"1"}),
    "link-with-a-size": ([[symlink("x", "y", size=0), folder("z", size=0)]], {"x": "y", "z": None}),
    "names-that-look-alike": (
        [[file("e\u0301"), file("\u00e9", b"1"), file("E\u0301", b"2")]],
        {"e\u0301": b"", "\u00e9": b"1", "E\u0301": b"2"},
    ),
}
"""What reaches for the host, for its rights and its devices, and gets none of them."""
