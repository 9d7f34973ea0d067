"""Images that variants.lock pins: which source gives them, what is used again, what is refused."""

from __future__ import annotations

import io
import shutil
import tarfile
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from nox_variants.baseline import Pin
from nox_variants.errors import ImageError, ImageUnavailable
from nox_variants.images import locking
from nox_variants.images.provider import Images
from nox_variants.model import Digest, Image, ImageSource, SourceKind
from nox_variants.oci.digest import sha256_bytes
from nox_variants.results import PreparedImage
from nox_variants.store import Store

if TYPE_CHECKING:
    from pathlib import Path

    from nox_variants.images.locking import Locked

A, B = sha256_bytes(b"a"), sha256_bytes(b"b")
SCRATCH = ImageSource(kind=SourceKind.SCRATCH)
REGISTRY = ImageSource(kind=SourceKind.REGISTRY, reference="localhost:1/alpine:3.20")
APT = ImageSource(kind=SourceKind.APT, packages=("busybox-static", "musl"))
ARCHIVE = ImageSource(kind=SourceKind.ARCHIVE, reference="root.tar")
PULLED = Pin(digest=A, reference=f"localhost:1/alpine:3.20@{A}")


@pytest.fixture
def store(home: Path) -> Store:
    """A store of the test's own."""
    return Store(home)


@pytest.fixture(autouse=True)
def no_apt(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine without apt."""
    monkeypatch.setenv("PATH", str(tmp_path))


def images(store: Store, locked: Locked | None = None, **changes: Any) -> Images:
    options: dict[str, Any] = {
        "policy": "auto",
        "refresh": False,
        "progress": lambda _: None,
        "cancelled": threading.Event(),
        "root": store.home,
        "host": "linux/amd64",
        "environ": {},
    }
    return Images(store, locked=locked, **options | changes)


def alpine(*sources: ImageSource) -> Image:
    return Image(name="alpine", sources=sources)


def write_archive(store: Store, text: bytes) -> None:
    """Make the archive hold one file."""
    draft = store.home / "draft"
    with tarfile.open(draft, "w") as tar:
        member = tarfile.TarInfo("file")
        member.size = len(text)
        tar.addfile(member, io.BytesIO(text))
    draft.replace(store.home / ARCHIVE.reference)


def archived(store: Store, text: bytes) -> PreparedImage:
    """Return the image of an archive that holds one file, as a run without a lock has it."""
    write_archive(store, text)
    return images(store).prepare(alpine(ARCHIVE))


def lock(image: PreparedImage) -> Locked:
    """Return what a lock keeps of an image."""
    pin = Pin(digest=image.digest, reference=image.pinned or image.reference)
    return {(image.name, image.kind): pin}


# --- which source --------------------------------------------------------------------------------


def test_scratch_needs_no_lock(store: Store) -> None:
    """The empty image is the same everywhere: it is used though no lock has it."""
    assert images(store, {}).prepare(alpine(SCRATCH)) == images(store).prepare(alpine(SCRATCH))


@pytest.mark.parametrize(("policy", "kinds"), [("auto", "registry, apt"), ("apt", "apt")])
def test_image_that_is_not_in_the_lock(store: Store, policy: str, kinds: str) -> None:
    """It is an error that says what to do, and names the sources that might have given it."""
    locked = {("ubuntu", SourceKind.APT): Pin(digest=A, reference="x")}

    with pytest.raises(ImageError) as raised:
        images(store, locked, policy=policy).prepare(alpine(REGISTRY, APT))

    assert str(raised.value) == (
        f"image alpine ({kinds}): not in variants.lock."
        " Run nox -s matrix -- --update-baseline without --locked first."
    )


def test_no_source_is_admitted(store: Store) -> None:
    """What could not be had without a lock is unavailable with one, for the same reasons."""
    with pytest.raises(ImageUnavailable, match="apt: not asked for"):
        images(store, {}, policy="registry").prepare(alpine(APT))


def test_source_that_is_not_locked_is_passed_over(store: Store) -> None:
    """Of several sources the one that the lock has gives the image."""
    made = archived(store, b"1")

    assert images(store, lock(made)).prepare(alpine(REGISTRY, APT, ARCHIVE)) == made


def test_locked_source_that_cannot_be_reached(store: Store) -> None:
    """Another locked source takes its place; one that is not locked does not."""
    made = archived(store, b"1")
    locked = {("alpine", SourceKind.REGISTRY): PULLED}

    assert images(store, {**locked, **lock(made)}).prepare(alpine(REGISTRY, ARCHIVE)) == made
    with pytest.raises(ImageUnavailable) as raised:
        images(store, locked).prepare(alpine(REGISTRY, ARCHIVE))
    assert raised.value.message == (
        "image alpine cannot be had here: registry: registry localhost:1 cannot be reached from"
        " here; archive: not in variants.lock"
    )


# --- what was made before, and what is made now --------------------------------------------------


def test_locked_image_that_is_in_the_store(store: Store) -> None:
    """An image of an earlier run is used when it is the locked one, whatever the source has now."""
    first = archived(store, b"1")
    second = archived(store, b"2")
    (store.home / ARCHIVE.reference).unlink()

    assert first.digest != second.digest
    for made in (first, second):
        assert images(store, lock(made)).prepare(alpine(ARCHIVE)) == made


def test_source_gives_something_else(store: Store, tmp_path: Path) -> None:
    """Where the locked image is gone and cannot be made any more, both digests are named."""
    locked = lock(archived(store, b"1"))
    other = Store(tmp_path / "other")
    write_archive(other, b"2")
    now = images(other).prepare(alpine(ARCHIVE)).digest
    with pytest.raises(ImageError) as raised:
        images(other, locked).prepare(alpine(ARCHIVE))

    assert str(raised.value) == (
        f"image alpine: variants.lock has {locked['alpine', SourceKind.ARCHIVE].digest[:19]}...,"
        f" its archive gives {now[:19]}... now."
        " nox -s matrix -- --update-baseline takes the new one."
    )


def test_source_is_asked_once(store: Store) -> None:
    """An earlier run's image that is another one than the locked is no answer: one is made anew.

    Once: the next request of the run gets the same answer, of the same image.
    """
    other = archived(store, b"1")
    write_archive(store, b"2")
    locked = lock(replace(other, digest=A))
    said: list[str] = []
    used = images(store, locked, progress=said.append)
    for _ in range(2):
        with pytest.raises(ImageError, match=r"variants\.lock has"):
            used.prepare(alpine(ARCHIVE))

    assert len([each for each in said if "unpacking" in each]) == 1


def test_source_gives_the_locked_one_again(store: Store) -> None:
    """The store has another image, the source the locked one: that is made."""
    first = archived(store, b"1")
    archived(store, b"2")
    for kind in ("refs", "images"):
        shutil.rmtree(store.home / kind)
    archived(store, b"2")
    write_archive(store, b"1")

    assert images(store, lock(first)).prepare(alpine(ARCHIVE)) == first


def test_refreshing_what_is_locked(store: Store) -> None:
    """Without what earlier runs left, the source has to give the locked image now."""
    first = archived(store, b"1")
    again = images(store, lock(first), refresh=True).prepare(alpine(ARCHIVE))
    write_archive(store, b"2")

    assert again == first
    with pytest.raises(ImageError, match="its archive gives"):
        images(store, lock(first), refresh=True).prepare(alpine(ARCHIVE))


def test_what_an_earlier_version_kept(store: Store) -> None:
    """An image that is only known by its source is the locked one when its digest says so."""
    made = archived(store, b"1")
    pin = Pin(digest=made.digest, reference=made.reference)
    key = images(store)._key(alpine(ARCHIVE), ARCHIVE, pin)
    store.discard("refs", key)
    said: list[str] = []

    found = images(store, lock(made), progress=said.append).prepare(alpine(ARCHIVE))

    assert (found, said) == (made, [])


def test_file_says_something_else_now(store: Store) -> None:
    """An image follows the rest of the file; a lock for another reference is refused."""
    made = archived(store, b"1")
    changed = replace(alpine(ARCHIVE), env=(("LANG", "C"),))

    assert images(store, lock(made)).prepare(changed).env == changed.env
    with pytest.raises(ImageError, match=r"made for 'root\.tar', not for 'other\.tar'"):
        images(store, lock(made)).prepare(alpine(replace(ARCHIVE, reference="other.tar")))


# --- what the lock says --------------------------------------------------------------------------


def test_pins_of_each_kind() -> None:
    """A pin is taken when it was made for what the file says."""
    stand_in = Pin(digest=A, reference="busybox-static musl")
    file = Pin(digest=B, reference="root.tar")
    pins = dict(zip((REGISTRY, APT, ARCHIVE), (PULLED, stand_in, file), strict=True))
    locked = {("alpine", source.kind): pin for source, pin in pins.items()}

    for source, pin in pins.items():
        assert locking.pin_of(alpine(), source, locked) == pin
        assert locking.pin_of(alpine(), source, None) is None
    assert locking.pin_of(alpine(), SCRATCH, locked) is None


@pytest.mark.parametrize(
    ("source", "pin", "message"),
    [
        (REGISTRY, replace(PULLED, reference=REGISTRY.reference), "has no digest that a registry"),
        (REGISTRY, replace(PULLED, reference=f"{REGISTRY.reference}@sha256:../x"), "not a sha256"),
        (REGISTRY, replace(PULLED, reference=f"localhost:1/alpine:3.21@{A}"), "made for 'localh"),
        (replace(REGISTRY, reference=f"localhost:1/alpine:3.20@{B}"), PULLED, "made for 'localh"),
        (APT, Pin(digest=A, reference="busybox-static"), "made for 'busybox-static', not for"),
        (APT, Pin(digest=Digest("../x"), reference="busybox-static musl"), "not a sha256 digest"),
    ],
)
def test_pin_that_is_not_taken(source: ImageSource, pin: Pin, message: str) -> None:
    """A pin for another reference, and one without a digest that can be asked for, is refused."""
    with pytest.raises(ImageError, match=message):
        locking.pin_of(alpine(), source, {("alpine", source.kind): pin})


@pytest.mark.parametrize(
    ("kind", "setup", "words"),
    [
        (SourceKind.APT, (), "its apt packages give"),
        (SourceKind.APT, ("true",), "its apt packages and setup give"),
        (SourceKind.ARCHIVE, (), "its archive gives"),
        (SourceKind.ARCHIVE, ("true",), "its archive and setup give"),
    ],
)
def test_words_for_what_differs(kind: SourceKind, setup: tuple[str, ...], words: str) -> None:
    """An error names what gave the other image."""
    made = PreparedImage(name="gcc", kind=kind, reference="x", digest=B)
    source = ImageSource(kind=kind, setup=setup)

    with pytest.raises(ImageError, match=words):
        locking.check_same(made, source, Pin(digest=A, reference="x"))
    locking.check_same(made, source, Pin(digest=B, reference="x"))


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ("alpine", f"alpine@{A}"),
        ("alpine:3.20", f"alpine:3.20@{A}"),
        (f"alpine@{B}", f"alpine@{B}"),
    ],
)
def test_pinned_reference(reference: str, expected: str) -> None:
    """A digest goes behind a tag; where the file has one, it is that."""
    assert locking.pinned(reference, A) == expected


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        (f"alpine:3.20@{A}", f"alpine@{A}"),
        (f"localhost:5000/alpine:3.20@{A}", f"localhost:5000/alpine@{A}"),
        (f"localhost:5000/alpine@{A}", f"localhost:5000/alpine@{A}"),
        (f"alpine@{A}", f"alpine@{A}"),
    ],
)
def test_reference_without_its_tag(reference: str, expected: str) -> None:
    """A tag goes, a port stays."""
    assert locking.by_digest(reference) == expected


def test_digests_of_its_own_registry() -> None:
    """Of all names that a daemon knows an image by, those of its own repository count."""
    names = ["<none>@<none>", f"other/alpine@{B}", f"docker.io/library/alpine@{A}", f"alpine@{B}"]

    assert locking.known_digests("alpine:3.20", names) == (A, B)
    assert locking.known_digests("localhost/alpine:3.20", names) == ()
    assert locking.known_digests("no reference", names) == ()
