"""Compressed sizes of layers: what came compressed, what is compressed here, and what is kept."""

from __future__ import annotations

import gzip
import io
import json
import random
import tarfile
import threading
import tracemalloc
import zlib
from dataclasses import replace
from typing import IO, TYPE_CHECKING

import pytest

from nox_variants.engines.docker.saved import layers_compressed
from nox_variants.errors import ImageError, ImageUnavailable, LayoutError
from nox_variants.images.provider import Images
from nox_variants.images.transfer import Transfers
from nox_variants.model import Digest, Image, ImageSource, SourceKind
from nox_variants.oci.digest import sha256_bytes
from nox_variants.oci.layout import LayerBlob
from nox_variants.results import PreparedImage
from nox_variants.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

NEVER = threading.Event()
CHANCE = random.Random(7)  # noqa: S311  # the same bytes every time
SAMPLES = {
    "empty": b"",
    "small": b"x" * 20,
    "random": CHANCE.randbytes(3 << 20),
    "text": b"".join(b"%d lines of text\n" % number for number in range(100_000)),
}


@pytest.fixture
def store(home: Path) -> Store:
    """A store of the test's own."""
    return Store(home)


@pytest.fixture
def notes() -> list[str]:
    """What is said about what takes long."""
    return []


@pytest.fixture
def sizes(store: Store, notes: list[str]) -> Transfers:
    """What compresses."""
    return Transfers(store, progress=notes.append, cancelled=NEVER)


def zipped(data: bytes) -> int:
    """Return the size of bytes under gzip, with no name and no time."""
    return len(gzip.compress(data, 6, mtime=0))


def blob(data: bytes, times: int = 1) -> LayerBlob:
    """Return a layer of bytes, which it writes in pieces, over and over."""

    def write(out: IO[bytes]) -> None:
        for _ in range(times):
            for at in range(0, len(data), 100_000):
                out.write(data[at : at + 100_000])

    return LayerBlob(diff_id=sha256_bytes(data * times), size=len(data) * times, write=write)


def unread(_: IO[bytes]) -> None:
    """Fail: nobody should want to read this."""
    raise AssertionError


@pytest.mark.parametrize("name", SAMPLES)
def test_size(sizes: Transfers, notes: list[str], name: str) -> None:
    """A layer's size is that of its gzip."""
    assert sizes.compressed("ubuntu", blob(SAMPLES[name])) == zipped(SAMPLES[name])
    assert notes == []


def test_kept(sizes: Transfers, store: Store) -> None:
    """A layer is compressed once, also for another process; another one is another one."""
    layer = blob(SAMPLES["text"])
    first = sizes.compressed("a", layer)

    again = Transfers(store, progress=lambda _: None, cancelled=NEVER)
    assert again.compressed("b", replace(layer, write=unread)) == first
    assert again.compressed("b", blob(b"x")) != first


def test_kept_answer_that_is_damaged(sizes: Transfers, store: Store) -> None:
    """What is damaged in the store is worked out anew."""
    first = sizes.compressed("a", blob(SAMPLES["text"]))
    (file,) = store.home.glob("facts/*/transfer.json")
    for text in ("", "nonsense", "{}"):
        file.write_text(text, encoding="utf-8")
        assert sizes.compressed("a", blob(SAMPLES["text"])) == first
    store.write_json(file, {"sizes": ["many"]})
    assert sizes.compressed("a", blob(SAMPLES["text"])) == first


def test_layer_that_is_another(sizes: Transfers, store: Store) -> None:
    """A layer that is not what its digest says has no size, and none is kept."""
    layer = replace(blob(b"x"), write=lambda out: out.write(b"y"))

    with pytest.raises(LayoutError, match="came out as"):
        sizes.compressed("a", layer)
    assert not [*store.home.glob("facts/*")]


def test_long_ones_are_told(sizes: Transfers, notes: list[str]) -> None:
    """What takes a while is said, once; little of it is in memory at a time."""
    layer = blob(bytes(1 << 20), times=58)
    tracemalloc.start()
    try:
        sizes.compressed("ubuntu", layer)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    sizes.compressed("ubuntu", layer)

    assert notes == ["ubuntu: compressing 61 MB for its transfer size"]
    assert peak < 16 << 20


def test_cancelled(store: Store) -> None:
    """A cancel ends it within a piece."""
    cancelled = threading.Event()
    data, written = SAMPLES["random"], []

    def write(out: IO[bytes]) -> None:
        for at in range(0, len(data), 100_000):
            written.append(out.write(data[at : at + 100_000]))
            cancelled.set()

    sizes = Transfers(store, progress=lambda _: None, cancelled=cancelled)
    with pytest.raises(ImageError, match="cancelled"):
        sizes.compressed("a", replace(blob(data), write=write))
    assert written == [100_000]


def test_told_by_a_registry(sizes: Transfers, store: Store) -> None:
    """What a registry says is asked for once, for each platform."""
    asked: list[str] = []

    def ask() -> list[int]:
        asked.append("")
        return [3, 4]

    assert sizes.told("alpine", "alpine@sha256:1", "linux/amd64", ask) == (3, 4)
    again = Transfers(store, progress=lambda _: None, cancelled=NEVER)
    assert again.told("alpine", "alpine@sha256:1", "linux/amd64", ask) == (3, 4)
    assert len(asked) == 1
    assert again.told("alpine", "alpine@sha256:1", "linux/arm64", ask) == (3, 4)
    assert len(asked) == 2


def test_untold(sizes: Transfers, notes: list[str]) -> None:
    """A registry that does not answer is asked once, and said so; another run asks again."""
    asked: list[str] = []

    def ask() -> list[int]:
        asked.append("")
        raise ImageUnavailable("registry example.com cannot be reached from here")

    for _ in range(3):
        assert sizes.told("alpine", "alpine@sha256:1", "linux/amd64", ask) is None

    assert len(asked) == 1
    assert notes == [
        "alpine: its transfer size is not known: registry example.com cannot be reached from here"
    ]


def test_cancelled_question(store: Store, notes: list[str]) -> None:
    """A cancel is no answer."""
    cancelled = threading.Event()
    sizes = Transfers(store, progress=notes.append, cancelled=cancelled)

    def ask() -> list[int]:
        cancelled.set()
        raise ImageError("cancelled")

    with pytest.raises(ImageError, match="cancelled"):
        sizes.told("alpine", "alpine@sha256:1", "linux/amd64", ask)
    assert notes == []


# Images


def tar(**files: bytes) -> bytes:
    """Return a tar of files; a name's double underscore is a dot."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as made:
        for name, data in files.items():
            member = tarfile.TarInfo(name.replace("__", "."))
            member.size = len(data)
            made.addfile(member, io.BytesIO(data))
    return out.getvalue()


LAYERS = (tar(one=b"1" * 50_000), tar(two=b"2" * 50_000))


def saved(plain: Sequence[bytes], files: dict[str, bytes]) -> bytes:
    """Return what `docker save` writes of layers, given as they lie in the archive."""
    config = {
        "architecture": "amd64",
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [sha256_bytes(each) for each in plain]},
    }
    manifest = [{"Config": "c.json", "RepoTags": ["a:1"], "Layers": [*files]}]
    names = {**files, "c.json": json.dumps(config).encode()}
    return tar(**names, **{"manifest.json": json.dumps(manifest).encode()})


def images(store: Store) -> Images:
    """Return the images of a run."""
    return Images(
        store,
        policy="auto",
        refresh=False,
        progress=lambda _: None,
        cancelled=NEVER,
        root=store.home,
        host="linux/amd64",
        environ={},
    )


def test_archive(store: Store) -> None:
    """A layer that is compressed in its archive travels so; one that is not, as gzip has it."""
    first = gzip.compress(LAYERS[0], 1)
    archive = saved(LAYERS, {"1.tar.gz": first, "2.tar": LAYERS[1]})
    (store.home / "a.tar").write_bytes(archive)
    source = ImageSource(kind=SourceKind.ARCHIVE, reference="a.tar")
    image = Image(name="a", sources=(ImageSource(kind=SourceKind.APT), source))
    made = images(store).prepare(replace(image, sources=(source,)))

    assert len(first) != zipped(LAYERS[0])
    assert images(store).transfers(image, made) == (len(first), zipped(LAYERS[1]))


@pytest.mark.parametrize("setup", [(), ("rm /one",)])
def test_registry(store: Store, setup: tuple[str, ...]) -> None:
    """A registry's layers travel as it has them, plain ones too; the setup's own is compressed."""
    blobs = (gzip.compress(LAYERS[0], 1), LAYERS[1])
    for data in blobs:
        with store.publish("blobs", sha256_bytes(data)[7:]) as staging:
            (staging / "blob").write_bytes(data)
    source = ImageSource(kind=SourceKind.REGISTRY, reference="x.example/a", setup=setup)
    made = PreparedImage(
        name="a",
        kind=SourceKind.REGISTRY,
        reference="x.example/a",
        digest=sha256_bytes(b"manifest"),
        layers=tuple(map(sha256_bytes, LAYERS)),
        layer_sizes=tuple(map(len, LAYERS)),
        blobs=tuple(map(sha256_bytes, blobs)),
    )

    last = zipped(LAYERS[1]) if setup else len(LAYERS[1])
    found = images(store).transfers(Image(name="a", sources=(source,)), made)
    assert found == (len(blobs[0]), last)


def test_without_layers(store: Store) -> None:
    """The empty image has nothing that could travel, nor has one that no registry knows."""
    scratch = Image(name="scratch", sources=(ImageSource(kind=SourceKind.SCRATCH),))
    local = ImageSource(kind=SourceKind.REGISTRY, reference="mine")
    built = PreparedImage(
        name="mine",
        kind=SourceKind.REGISTRY,
        reference="mine",
        digest=sha256_bytes(b""),
        layers=(sha256_bytes(b""),),
    )

    given = images(store)
    assert given.transfers(scratch, given.prepare(scratch)) == ()
    assert given.transfers(Image(name="mine", sources=(local,)), built) == ()


def test_registry_that_is_out_of_reach(store: Store) -> None:
    """An image that a daemon pulled has no size where its registry does not say it."""
    source = ImageSource(kind=SourceKind.REGISTRY, reference="127.0.0.1:1/a:1", insecure=True)
    pulled = PreparedImage(
        name="a",
        kind=SourceKind.REGISTRY,
        reference="127.0.0.1:1/a:1",
        digest=sha256_bytes(b""),
        layers=(sha256_bytes(b""),),
        pinned=f"127.0.0.1:1/a:1@{sha256_bytes(b'')}",
    )

    assert images(store).transfers(Image(name="a", sources=(source,)), pulled) is None


# What a daemon saves

IDS = tuple(map(sha256_bytes, LAYERS))


def by_digest(files: Sequence[bytes]) -> dict[str, bytes]:
    """Name layers as Docker does since 25, and its containerd store."""
    return {f"blobs/sha256/{sha256_bytes(each)[7:]}": each for each in files}


SAVES: dict[str, Callable[[], bytes]] = {
    "today": lambda: saved(LAYERS, by_digest(LAYERS)),
    "containerd": lambda: saved(LAYERS, by_digest([gzip.compress(each, 1) for each in LAYERS])),
    "podman": lambda: saved(LAYERS, {f"{sha256_bytes(each)[7:]}.tar": each for each in LAYERS}),
    "before": lambda: saved(LAYERS, {"a/layer.tar": LAYERS[0], "b/layer.tar": LAYERS[1]}),
}


@pytest.mark.parametrize("form", SAVES)
def test_layers_of_a_daemon(form: str) -> None:
    """The layers above some are compressed, as gzip has them, however they are saved."""

    def read(below: Sequence[Digest]) -> tuple[int, ...]:
        return layers_compressed([SAVES[form]()], below, cancelled=NEVER)

    both = tuple(map(zipped, LAYERS))
    assert read(()) == both
    assert read(IDS[:1]) == both[1:]
    assert read(IDS) == ()


def test_cancelled_save() -> None:
    """A cancel ends the reading."""
    cancelled = threading.Event()
    cancelled.set()

    with pytest.raises(ImageError, match="cancelled"):
        layers_compressed([SAVES["today"]()], (), cancelled=cancelled)


def test_kept_for_this_zlib(sizes: Transfers, monkeypatch: pytest.MonkeyPatch) -> None:
    """What another version of zlib has made is not taken for this one's."""
    layer = blob(b"x")
    sizes.compressed("a", layer)
    monkeypatch.setattr(zlib, "ZLIB_RUNTIME_VERSION", "0")

    with pytest.raises(AssertionError):
        sizes.compressed("a", replace(layer, write=unread))
