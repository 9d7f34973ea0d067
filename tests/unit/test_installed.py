"""Packages that a root says it has: Debian's, distroless's and Alpine's lists; hostile ones."""

from __future__ import annotations

import os
import shutil
import tarfile
import threading
from typing import TYPE_CHECKING

import pytest

from nox_variants.images.installed import MOST, installed
from nox_variants.images.provider import Images
from nox_variants.model import Image, ImageSource, SourceKind
from nox_variants.store import Store

if TYPE_CHECKING:
    from pathlib import Path

    from nox_variants.results import PreparedImage

DPKG = """\
Package: zlib1g
Status: install ok installed
Architecture: amd64
Multi-Arch: same
Version: 1:1.2.13.dfsg-1
Description: compression library
 Version: 9
 Package: none

Package: libc6
Status: hold ok installed
Version: 2.36-9+deb12u4

Package: gone
Status: deinstall ok config-files
Version: 1

Package: half
Status: install ok half-configured
Version: 1

Package: without-a-version
Status: install ok installed

"""

APK = """\
C:Q1abc=
P:musl
V:1.2.5-r0
A:x86_64
F:lib
R:ld-musl-x86_64.so.1

P:busybox
V:1.36.1-r29
F:bin

C:Q1abc=
P:.build-deps
V:20240101.000000
"""

DISTROLESS = {
    "base": "Package: base-files\nVersion: 12.4+deb12u5\nArchitecture: amd64\n",
    "libssl3": "Package: libssl3\nVersion: 3.0.11-1~deb12u2\n",
    "libssl3.md5sums": "Package: sums\nVersion: 1\n",
    ".hidden": "Package: hidden\nVersion: 1\n",
}


def write(root: Path, name: str, text: str) -> Path:
    """Write a file below a root."""
    file = root / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return file


def test_nothing(tmp_path: Path) -> None:
    """A root without lists has no packages that anybody knows."""
    assert installed(tmp_path) == ()


def test_debian(tmp_path: Path) -> None:
    """What is installed counts, with its whole version; what is removed or broken does not."""
    write(tmp_path, "var/lib/dpkg/status", DPKG)

    assert installed(tmp_path) == ("libc6=2.36-9+deb12u4", "zlib1g=1:1.2.13.dfsg-1")


def test_distroless(tmp_path: Path) -> None:
    """Each file is a package; sums of files are none."""
    for name, text in DISTROLESS.items():
        write(tmp_path, f"var/lib/dpkg/status.d/{name}", text)

    assert installed(tmp_path) == ("base-files=12.4+deb12u5", "libssl3=3.0.11-1~deb12u2")


@pytest.mark.parametrize("place", ["lib/apk/db/installed", "usr/lib/apk/db/installed"])
def test_alpine(tmp_path: Path, place: str) -> None:
    """Apk's packages are read where it keeps them; bundles of names are none."""
    write(tmp_path, place, APK)

    assert installed(tmp_path) == ("busybox=1.36.1-r29", "musl=1.2.5-r0")


def test_merged_folders(tmp_path: Path) -> None:
    """A list that is reached by two ways is one list; links within the root are followed."""
    write(tmp_path, "usr/lib/apk/db/installed", APK)
    (tmp_path / "lib").symlink_to("/usr/lib")

    assert installed(tmp_path) == ("busybox=1.36.1-r29", "musl=1.2.5-r0")


def test_links_that_lead_out(tmp_path: Path) -> None:
    """No link leads to a list of this machine."""
    outside = write(tmp_path, "outside/status", DPKG)
    for number, target in enumerate((str(outside), "../../../../../outside/status")):
        root = tmp_path / f"root{number}"
        (root / "var/lib/dpkg").mkdir(parents=True)
        (root / "var/lib/dpkg/status").symlink_to(target)
        (root / "var/lib/dpkg/status.d").symlink_to(outside.parent)
        assert installed(root) == ()


def test_no_files(tmp_path: Path) -> None:
    """Folders, pipes and loops in a list's place are no lists, and nobody waits for them."""
    (tmp_path / "var/lib/dpkg/status.d/folder").mkdir(parents=True)
    os.mkfifo(tmp_path / "var/lib/dpkg/status")
    (tmp_path / "var/lib/dpkg/status.d/loop").symlink_to("loop")
    (tmp_path / "lib/apk/db/installed").mkdir(parents=True)

    assert installed(tmp_path) == ()


@pytest.mark.parametrize(
    ("name", "version"),
    [
        ("", "1"),
        ("x", ""),
        ("-x", "1"),
        ("x y", "1"),
        ("x\x1b[31m", "1"),
        ("x=1", "1"),
        ("x", "1=2"),
        ("x", "1 2"),
        ("x", "1\x07"),
        ("x", "\N{ARABIC-INDIC DIGIT ONE}"),
        ("x" * 129, "1"),
        ("x", "1" * 128),
    ],
)
def test_no_names_and_versions(tmp_path: Path, name: str, version: str) -> None:
    """What cannot be a name or a version is passed over, and what is around it stays."""
    good = "Package: good\nVersion: 1\n\n"
    write(tmp_path, "var/lib/dpkg/status", f"{good}Package: {name}\nVersion: {version}\n\n{good}")

    assert installed(tmp_path) == ("good=1",)


def test_fields_that_are_there_twice(tmp_path: Path) -> None:
    """The first one counts, and the same package twice is one."""
    text = "Package: a\nPackage: b\nVersion: 1\nVersion: 2\r\n\r\n"
    write(tmp_path, "var/lib/dpkg/status", text * 3)

    assert installed(tmp_path) == ("a=1",)


def test_bounds(tmp_path: Path) -> None:
    """No more is kept than is bounded, and a list that is too large loses its end."""
    many = (f"Package: p{number}\nVersion: 1\n\n" for number in range(MOST + 100))
    write(tmp_path / "many", "var/lib/dpkg/status", "".join(many))
    large = "Package: first\nVersion: 1\n\n" + "x\n" * (9 << 20) + "\nPackage: p\nVersion: 1\n"
    write(tmp_path / "large", "var/lib/dpkg/status", large)
    lines = "Package: first\nVersion: 1\n\n" + "\n" * (9 << 20)
    write(tmp_path / "lines", "lib/apk/db/installed", lines)

    assert len(installed(tmp_path / "many")) == MOST
    assert installed(tmp_path / "large") == ("first=1",)
    assert installed(tmp_path / "lines") == ()


def test_no_text(tmp_path: Path) -> None:
    """Bytes that are no text are no packages."""
    file = write(tmp_path, "var/lib/dpkg/status", "")
    file.write_bytes(b"Package: \xff\xfe\nVersion: 1\n\n\x00\x01\nPackage: a\nVersion: 1\n")

    assert installed(tmp_path) == ("a=1",)


# Images


def prepared(store: Store, root: Path) -> PreparedImage:
    """Return an image out of a root's tar."""
    with tarfile.open(store.home / "root.tar", "w") as tar:
        tar.add(root, arcname=".")
    source = ImageSource(kind=SourceKind.ARCHIVE, reference="root.tar")
    images = Images(
        store,
        policy="auto",
        refresh=False,
        progress=lambda _: None,
        cancelled=threading.Event(),
        root=store.home,
        host="linux/amd64",
        environ={},
    )
    return images.prepare(Image(name="base", sources=(source,)))


def test_image(home: Path, tmp_path: Path) -> None:
    """An image that comes as layers has its packages, also the second time."""
    root = tmp_path / "root"
    for name, text in DISTROLESS.items():
        write(root, f"var/lib/dpkg/status.d/{name}", text)
    store = Store(home)

    made = prepared(store, root)

    assert made.packages == ("base-files=12.4+deb12u5", "libssl3=3.0.11-1~deb12u2")
    shutil.rmtree(home / "refs")
    assert prepared(store, root) == made


def test_entry_of_before(home: Path, tmp_path: Path) -> None:
    """An entry of the store that says nothing of packages is still good."""
    write(tmp_path / "root", "var/lib/dpkg/status", DPKG)
    store = Store(home)
    made = prepared(store, tmp_path / "root")
    (file,) = home.glob("images/*/layers.json")
    values = store.read_json(file)
    del values["packages"]
    store.write_json(file, values)
    shutil.rmtree(home / "refs")

    again = prepared(store, tmp_path / "root")

    assert again.packages == ()
    assert (again.digest, again.layers) == (made.digest, made.layers)
