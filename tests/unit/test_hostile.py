"""Hostile images: nothing but the store changes, and what is wrong is named."""

from __future__ import annotations

import copy
import os
import re
import stat
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from hostile import DAMAGED, HOST, HOSTILE, REFUSED
from hostile_archives import LAYOUTS, SAVED, TARS, UNPACKED
from imagefiles import Image as MadeImage
from imagefiles import tar as tar_of
from layertars import Entry, Tree, snapshot, tar, tree
from nox_variants.errors import VariantsError
from nox_variants.images.provider import Images
from nox_variants.model import Image, ImageSource, SourceKind
from nox_variants.oci.digest import hex_of, sha256_bytes
from nox_variants.store import Store
from oddlayers import APPLIED, ODD

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from imagefiles import Content
    from nox_variants.results import PreparedImage

ARCHIVE = "image.tar"
MEMORY = "/dev/shm"


class Host:
    """A machine: a store, an image's file, and much that is nobody's business.

    Args:
        folder: All of it.
    """

    def __init__(self, folder: Path) -> None:
        self.home = folder / "home"
        self.file = folder / ARCHIVE
        self.secrets = folder / "secrets"
        self._rest = folder / "rest"
        for each in (self.secrets / "folder", self._rest):
            each.mkdir(parents=True)
        (self.secrets / "secret").write_bytes(b"of the host")
        (self.secrets / "folder/empty").touch(0o600)
        (self.secrets / "link").symlink_to("secret")
        (self._rest / "hanging").symlink_to("nowhere")
        (self._rest / "linked").hardlink_to(self.secrets / "secret")
        self._folder = folder

    def prepare(self, data: bytes) -> PreparedImage:
        """Take an image out of a file."""
        self.file.write_bytes(data)
        source = ImageSource(kind=SourceKind.ARCHIVE, reference=ARCHIVE)
        images = Images(
            Store(self.home),
            policy="auto",
            refresh=False,
            progress=lambda _: None,
            cancelled=threading.Event(),
            root=self._folder,
            host="linux/amd64",
            environ={},
        )
        return images.prepare(Image(name="app", sources=(source,)))

    def root(self, image: PreparedImage) -> Path:
        """Return the folder of an image's files."""
        return self.home / "images" / hex_of(image.digest) / "root"

    def seen(self) -> object:
        """Return all but the store and the image's file."""
        others = {path.name for path in self._folder.iterdir()} - {"home", ARCHIVE}
        return others, snapshot(self.secrets), snapshot(self._rest)

    def placed(self, entries: list[Entry]) -> bytes:
        """Return a layer that knows this machine's paths."""
        return tar(*(self._placed(each) for each in entries))

    def _placed(self, made: Entry) -> Entry:
        info = copy.copy(made[0])
        info.name = self.real(info.name)
        info.linkname = self.real(info.linkname)
        return info, made[1]

    def real(self, text: str) -> str:
        """Return a text with this machine's path."""
        return text.replace(HOST, str(self.secrets)).replace(HOST[1:], str(self.secrets)[1:])


@pytest.fixture
def host() -> Iterator[Host]:
    """Give a machine that only its store may change of; in memory, which no test waits for."""
    memory = MEMORY if os.access(MEMORY, os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=memory) as name:
        made = Host(Path(name))
        before = made.seen()
        yield made
        assert made.seen() == before


def image(*layers: bytes) -> bytes:
    """Return the file of an image; its layers may be anything."""
    return tar_of(MadeImage(*layers).oci())


def refusal(host: Host, data: bytes) -> str:
    """Return what an image is refused with, after looking that nothing is left of it."""
    with pytest.raises(VariantsError) as caught:
        host.prepare(data)
    assert caught.value.hint
    assert caught.value.message.isprintable()
    assert not [*host.home.glob("images/*"), *host.home.glob("refs/*")]
    left = {path.name for path in host.home.glob("tmp/*") if path.suffix != ".lock"}
    assert all(name.startswith("discarded.") for name in left)
    return caught.value.message


LAYERS: dict[str, tuple[list[list[Entry]], str]] = {
    **{name: ([entries], text) for name, (entries, text) in HOSTILE.items()},
    **REFUSED,
}


@pytest.mark.parametrize("name", LAYERS)
def test_hostile_layers(name: str, host: Host) -> None:
    """The message says which entry of which layer of which image is wrong."""
    layers, text = LAYERS[name]
    blobs = [host.placed(each) for each in layers]

    message = refusal(host, image(*blobs))

    assert message == f"image app: layer {sha256_bytes(blobs[-1])}: {host.real(text)}"


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_layers(name: str, host: Host) -> None:
    """A layer that is no tar, or is damaged anywhere, is refused as a whole."""
    blob, text = DAMAGED[name]

    message = refusal(host, image(blob))

    assert message.startswith(f"image app: layer {sha256_bytes(blob)}: ")
    assert re.search(text, message)


FILES: dict[str, tuple[bytes | Mapping[str, Content], str]] = {
    **{f"layout: {name}": case for name, case in (LAYOUTS | UNPACKED).items()},
    **{f"saved: {name}": case for name, case in SAVED.items()},
    **{f"tar: {name}": case for name, case in TARS.items()},
}


@pytest.mark.parametrize("name", FILES)
def test_hostile_files(name: str, host: Host) -> None:
    """A file that is no image, or another one than it says, is named with what is wrong."""
    data, text = FILES[name]

    message = refusal(host, data if isinstance(data, bytes) else tar_of(data))

    assert message.startswith((f"{host.file}: ", "image app: layer "))
    assert re.search(text, message)


HARMLESS = {**ODD, **APPLIED}


@pytest.mark.parametrize("name", HARMLESS)
def test_odd_layers(name: str, host: Host) -> None:
    """What is odd only is applied: inside the image's root, without rights and devices."""
    layers, expected = HARMLESS[name]

    made = host.prepare(image(*map(host.placed, layers)))

    found = tree(host.root(made))
    assert found == with_folders(
        {host.real(path): real(host, what) for path, what in expected.items()}
    )
    for path in found:
        mode = (host.root(made) / path).lstat().st_mode
        assert stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISLNK(mode)
        assert not mode & 0o7000


def real(host: Host, value: bytes | str | None) -> bytes | str | None:
    return host.real(value) if isinstance(value, str) else value


def with_folders(files: Tree) -> Tree:
    """Return paths with the folders that they lie in."""
    above = (parent for path in files for parent in Path(path).parents)
    return dict.fromkeys(str(each) for each in above if each != Path()) | files


def test_rights_are_recorded(host: Host) -> None:
    """What a file may do in the image is told, and not given to it here."""
    made = host.prepare(image(*map(host.placed, APPLIED["setuid"][0])))

    values = Store(host.home).read_json(host.root(made).parent / "layers.json")
    assert values["owners"] == {
        "/su": [7, 0, 0o6755],
        "/tmp": [0, 0, 0o1777],
        "/sh": [0, 0, 0o4000],
    }
