"""Which source gives an image, why not another, and what of earlier runs is used again."""

from __future__ import annotations

import dataclasses
import platform
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from nox_variants.errors import ImageError, ImageUnavailable
from nox_variants.images.provider import Images
from nox_variants.images.setup import set_up
from nox_variants.model import Image, ImageSource, SourceKind
from nox_variants.oci.digest import sha256_bytes
from nox_variants.results import PreparedImage
from nox_variants.sandbox.command import Root
from nox_variants.store import Store

if TYPE_CHECKING:
    from pathlib import Path

SCRATCH = Image(name="scratch", sources=(ImageSource(kind=SourceKind.SCRATCH),))
REGISTRY = ImageSource(kind=SourceKind.REGISTRY, reference="localhost:1/alpine:3.20")
APT = ImageSource(kind=SourceKind.APT, packages=("busybox-static",), setup=("true",))
ARCHIVE = ImageSource(kind=SourceKind.ARCHIVE, reference="root.tar")
NO_REGISTRY = "registry localhost:1 cannot be reached from here"
NO_APT = "apt stand-ins need apt-get, which this machine does not have"


@pytest.fixture
def store(home: Path) -> Store:
    """A store of the test's own."""
    return Store(home)


@pytest.fixture
def notes() -> list[str]:
    """What is said about what takes long."""
    return []


@pytest.fixture(autouse=True)
def no_apt(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine without apt."""
    monkeypatch.setenv("PATH", str(tmp_path))


def images(
    store: Store, *, policy: str = "auto", refresh: bool = False, notes: list[str] | None = None
) -> Images:
    return Images(
        store,
        policy=policy,
        refresh=refresh,
        progress=(notes if notes is not None else []).append,
        cancelled=threading.Event(),
        root=store.home,
        host="linux/amd64",
        environ={},
    )


def unavailable(store: Store, *sources: ImageSource, policy: str = "auto") -> str:
    """Return why an image with these sources cannot be had."""
    with pytest.raises(ImageUnavailable) as raised:
        images(store, policy=policy).prepare(Image(name="alpine", sources=sources))
    return str(raised.value)


def reference(store: Store) -> Path:
    """Return the only file of the store that says what an image is."""
    (file,) = store.home.glob("refs/*/image.json")
    return file


def test_scratch_is_empty(store: Store, notes: list[str]) -> None:
    """The empty image has no layers, no bytes and an empty root, and nothing need be said."""
    image = images(store, notes=notes)
    made = image.prepare(SCRATCH)

    assert made == PreparedImage(
        name="scratch", kind=SourceKind.SCRATCH, reference="", digest=sha256_bytes(b"")
    )
    assert [*image.root(made).iterdir()] == []
    assert notes == []


@pytest.mark.parametrize("policy", ["auto", "registry", "apt", "archive"])
def test_scratch_needs_no_source(store: Store, policy: str) -> None:
    """No policy takes the empty image away."""
    assert images(store, policy=policy).prepare(SCRATCH).kind is SourceKind.SCRATCH


def test_environment_and_name_are_the_images_own(store: Store) -> None:
    """Two images of the same content share it, under their own names."""
    env = (("LANG", "C"),)
    first = images(store).prepare(replace(SCRATCH, env=env))
    second = images(store).prepare(replace(SCRATCH, name="nothing", env=env))

    assert second == replace(first, name="nothing")
    assert second.env == env
    assert len([*store.home.glob("refs/*")]) == 1
    assert images(store).prepare(SCRATCH).env == ()


def test_first_source_that_can_be_had_is_used(store: Store) -> None:
    """What cannot be used here is passed over, also when that shows only on trying."""
    image = Image(name="alpine", sources=(REGISTRY, APT, *SCRATCH.sources))

    assert images(store).prepare(image).kind is SourceKind.SCRATCH


def test_archive_that_is_not_there(store: Store) -> None:
    """A file that was named and is missing is a mistake: nothing else takes its place."""
    image = Image(name="alpine", sources=(ARCHIVE, *SCRATCH.sources))

    with pytest.raises(ImageError, match=r"root\.tar: is not there"):
        images(store).prepare(image)


def test_reason_of_every_source(store: Store) -> None:
    """An image that cannot be had says so for each source, in order, with what to do."""
    assert unavailable(store, REGISTRY, APT) == (
        "image alpine cannot be had here:"
        f" registry: {NO_REGISTRY}; apt: {NO_APT}."
        " Use Debian or Ubuntu, or an image with another source."
    )


@pytest.mark.parametrize(
    ("policy", "registry", "apt"),
    [
        (
            "registry",
            NO_REGISTRY,
            "not asked for (--images",
        ),
        ("apt", "not asked for (--images apt)", NO_APT),
        ("archive", "not asked for (--images archive)", "not asked for (--images archive)"),
    ],
)
def test_policy_passes_sources_over(store: Store, policy: str, registry: str, apt: str) -> None:
    """Only the source that was asked for is tried; the others are named as not asked for."""
    assert f": registry: {registry}; apt: {apt}" in unavailable(store, REGISTRY, APT, policy=policy)


def test_source_that_can_never_give_it(store: Store) -> None:
    """The file's own reason comes first, whatever the policy."""
    never = ImageSource(kind=SourceKind.APT, unavailable="Debian has no Rust for musl")

    assert unavailable(store, never, policy="registry") == (
        "image alpine cannot be had here: apt: Debian has no Rust for musl"
    )


def test_image_of_an_earlier_run_is_used(store: Store) -> None:
    """A second run takes what the first one wrote down."""
    images(store).prepare(SCRATCH)
    values = store.read_json(reference(store))
    store.write_json(reference(store), {**values, "reference": "by the first run"})

    assert images(store).prepare(SCRATCH).reference == "by the first run"


def test_refreshing_makes_it_anew_once(store: Store) -> None:
    """An image of an earlier run is made anew when that is asked for, but not that of this run."""
    images(store).prepare(SCRATCH)
    values = store.read_json(reference(store))
    store.write_json(reference(store), {**values, "reference": "by the first run"})
    refreshing = images(store, refresh=True)
    first = refreshing.prepare(SCRATCH)
    store.write_json(reference(store), {**values, "reference": "by this run"})

    assert first.reference == ""
    assert refreshing.prepare(SCRATCH).reference == "by this run"


def test_refreshing_mends_a_root(store: Store) -> None:
    """A root that is not what its digest says is replaced; one that is stays where it is."""
    image = images(store)
    root = image.root(image.prepare(SCRATCH))
    before = root.stat().st_ino
    images(store, refresh=True).prepare(SCRATCH)
    untouched = root.stat().st_ino
    (root / "stray").touch()
    images(store, refresh=True).prepare(SCRATCH)

    assert untouched == before
    assert [*root.iterdir()] == []


def test_lost_root_is_made_again(store: Store) -> None:
    """A reference to a root that somebody deleted is not believed."""
    image = images(store)
    root = image.root(image.prepare(SCRATCH))
    root.rmdir()
    image.prepare(SCRATCH)

    assert root.is_dir()


def test_root_lost_among_other_files_is_made_again(store: Store) -> None:
    """An entry that is left without its root does not stand in the way of a new one."""
    image = images(store)
    root = image.root(image.prepare(SCRATCH))
    root.rename(root.with_name("elsewhere"))
    image.prepare(SCRATCH)

    assert root.is_dir()


@pytest.mark.parametrize("data", [b"", b"\xff", b"{}\n", b"0" * 64 + b"\n{}\n"])
def test_corrupt_reference_is_made_again(store: Store, data: bytes) -> None:
    """A reference that was cut off or changed is made anew, not believed."""
    made = images(store).prepare(SCRATCH)
    reference(store).write_bytes(data)

    assert images(store).prepare(SCRATCH) == made
    assert store.read_json(reference(store))["name"] == "scratch"


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "floppy"},
        {"digest": "sha256:../../etc"},
        {"digest": None},
        {"layers": 1},
        {"env": [["A", "b", "c"]]},
        {"colour": "blue"},
        {"name": None, "kind": []},
    ],
    ids=str,
)
def test_strange_reference_is_made_again(store: Store, change: dict[str, Any]) -> None:
    """A reference of another shape, as another version may write it, is made anew."""
    made = images(store).prepare(SCRATCH)
    store.write_json(reference(store), {**dataclasses.asdict(made), **change})

    assert images(store).prepare(SCRATCH) == made


def test_reference_without_a_name_is_made_again(store: Store) -> None:
    """A reference that lacks what every image has is made anew."""
    made = images(store).prepare(SCRATCH)
    values = dataclasses.asdict(made)
    del values["digest"]
    store.write_json(reference(store), values)

    assert images(store).prepare(SCRATCH) == made


@pytest.mark.parametrize(
    "other",
    [
        Image(name="alpine", sources=(replace(APT, packages=("musl",)),)),
        Image(name="alpine", sources=(replace(APT, setup=()),)),
        Image(name="alpine", sources=(replace(APT, kind=SourceKind.ARCHIVE),)),
        Image(name="alpine", sources=(APT,), env=(("LANG", "C"),)),
    ],
    ids=["packages", "setup", "kind", "env"],
)
def test_identity_tells_images_apart(store: Store, other: Image) -> None:
    """Whatever decides what a source gives is part of its identity; the name is not."""
    image = Image(name="alpine", sources=(APT,))
    identity = images(store)._identity(image, image.sources[0])

    assert images(store)._identity(other, other.sources[0]) != identity
    assert images(store)._identity(replace(image, name="other"), APT) == identity


def test_identity_without_a_release(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that does not say what it is has an identity all the same."""

    def missing() -> dict[str, str]:
        raise OSError

    monkeypatch.setattr(platform, "freedesktop_os_release", missing)

    assert images(store)._identity(SCRATCH, APT)["host"] == ("", "", platform.machine())


def test_setup_needs_a_shell(tmp_path: Path) -> None:
    """A root without a shell is refused with the package that brings one."""
    with pytest.raises(ImageError, match=r"alpine: has no /bin/sh to run its setup\. Add dash"):
        set_up("alpine", ("true",), Root(upper=tmp_path), env=(), cancelled=threading.Event())
