"""The store's entries against what was written."""

from __future__ import annotations

import io
import json
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from nox_variants.checkup import State, verified
from nox_variants.images.content import Descriptor, ImageContent
from nox_variants.images.layered import Layered
from nox_variants.model import Image, ImageSource, SourceKind
from nox_variants.oci.digest import hex_of, sha256_bytes
from nox_variants.oci.layer import digest_tree, write_tree
from nox_variants.sources import Sources
from nox_variants.store import Store
from nox_variants.verification import verify

if TYPE_CHECKING:
    from collections.abc import Callable

SOURCE = ImageSource(kind=SourceKind.REGISTRY, reference="r.example.com/base:1")


class Blobs:
    """Gives one layer."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def fetch(self, layer: Descriptor, file: Path) -> None:
        assert layer.size == len(self._data)
        file.write_bytes(self._data)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store with an entry of every kind."""
    made = Store(tmp_path / "home")
    root = tmp_path / "files"
    (root / "etc").mkdir(parents=True)
    (root / "etc" / "motd").write_text("hello\n", encoding="utf-8")
    out = io.BytesIO()
    facts = write_tree(root, out, mtime=0)
    layer = Descriptor(media_type="", digest=facts.diff_id, size=facts.size)
    content = ImageContent(
        digest=sha256_bytes(b"manifest"), layers=(layer,), diff_ids=(facts.diff_id,), env=()
    )
    layered = Layered(made, progress=lambda _: None, cancelled=threading.Event())
    layered.prepare(Image(name="base", sources=()), SOURCE, content, Blobs(out.getvalue()))
    with made.publish("images", hex_of(digest_tree(root, mtime=0).diff_id)) as staging:
        write_files(staging / "root")
    with made.publish("images", hex_of(sha256_bytes(b""))) as staging:
        (staging / "root").mkdir()
    with made.publish("builds", "b") as staging:
        (staging / "artifacts").mkdir()
        (staging / "artifacts" / "a").write_bytes(b"program")
        values = {"path": "/out/a", "name": "a", "digest": sha256_bytes(b"program")}
        made.write_json(staging / "build.json", {"artifacts": [values]})
    with made.publish("layers", "l") as staging:
        (staging / hex_of(facts.diff_id)).write_bytes(out.getvalue())
        made.write_json(staging / "layer.json", {"diff_id": facts.diff_id})
    with made.publish("layers", "skeleton-1") as staging:
        (staging / "root").mkdir()
    with made.publish("facts", "f") as staging:
        made.write_json(staging / "facts.json", {"a": 1})
    with made.publish("refs", "r") as staging:
        made.write_json(staging / "image.json", {"a": 1})
    Sources(made).snapshot(root)
    return made


def write_files(root: Path) -> None:
    (root / "etc").mkdir(parents=True)
    (root / "etc" / "motd").write_text("hello\n", encoding="utf-8")


def damaged(store: Store) -> dict[str, str]:
    """Return what is wrong, by kind."""
    return {each.kind: each.damage for each in verify(store) if each.damage}


def test_sound(store: Store) -> None:
    """Nothing is wrong with what was just written, and nothing is taken out."""
    before = sorted(store.home.glob("*/*"))

    assert damaged(store) == {}
    assert len(list(verify(store))) == 10
    assert sorted(store.home.glob("*/*")) == before
    assert verified(store.home).state is State.USABLE


def change(file: Path) -> None:
    file.chmod(0o644)
    file.write_bytes(b"else" + file.read_bytes())


DAMAGES: dict[str, tuple[str, Callable[[Path], None], str]] = {
    "a blob that was changed": ("blobs/*/blob", change, "its content has the digest sha256:"),
    "a blob that is gone": ("blobs/*/blob", Path.unlink, "is missing"),
    "a file of an image": ("images/*/root/etc/motd", change, "its files have the digest sha256:"),
    "a file of an image too many": (
        "images/*/root/etc/motd",
        lambda file: file.with_name("more").touch(),
        "its files have the digest sha256:",
    ),
    "an artifact": ("builds/b/artifacts/a", change, "artifact /out/a has the digest sha256:"),
    "a layer": ("layers/l/" + "?" * 64, change, "its tar has the digest sha256:"),
    "a source": ("sources/*/root/src/etc/motd", change, "its files have the digest "),
    "a reference": ("refs/r/image.json", change, "was changed or cut off"),
    "facts": ("facts/f/facts.json", change, "was changed or cut off"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damage(store: Store, name: str) -> None:
    """Whatever was changed is found, said and taken out; the rest stays."""
    pattern, damage, words = DAMAGES[name]
    file = min(store.home.glob(pattern))
    damage(file)
    kind, key = file.relative_to(store.home).parts[:2]

    (found,) = [each for each in verify(store) if each.damage]

    assert (found.kind, found.key) == (kind, key)
    assert words in found.damage
    assert not (store.home / kind / key).exists()
    assert damaged(store) == {}


def test_scratch_with_files(store: Store) -> None:
    """An image of nothing has nothing."""
    (store.home / "images" / hex_of(sha256_bytes(b"")) / "root" / "file").touch()

    assert damaged(store) == {"images": "scratch has files"}


def test_doctor_says_what_is_damaged(store: Store) -> None:
    """The check counts, names what was taken out, and says what to do."""
    change(store.home / "facts/f/facts.json")

    check = verified(store.home)

    assert check.state is State.TROUBLE
    assert check.words == "1 of 10 entries are not what was written: taken out"
    assert check.notes[0].startswith("facts/f: ")
    assert "made again" in check.hint
    assert json.dumps(check.notes)
