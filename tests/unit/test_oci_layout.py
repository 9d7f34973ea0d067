"""Layouts and archives: complete and exact, or not there at all."""

from __future__ import annotations

import json
import os
import resource
import shutil
import tarfile
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nox_variants.errors import LayoutError
from nox_variants.model import Digest
from nox_variants.oci import image, layout
from nox_variants.oci.digest import hex_of, sha256_bytes, sha256_file
from nox_variants.oci.layer import digest_tree, write_tree
from nox_variants.oci.layout import LayerBlob
from nox_variants.oci.validation import validate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

TAG = "hello-c:gcc-static.scratch"
HINT = "Does the folder above it exist, is it writable for you, is there room?"

BASE, OWN = b"the base's tar", b"our own layer's tar"


def config(*layers: bytes) -> bytes:
    return image.config(
        [sha256_bytes(each) for each in layers],
        cmd=["/hello"],
        env=(),
        workdir="/",
        created=0,
        platform="linux/amd64",
    )


def manifest(*layers: bytes) -> bytes:
    return image.manifest(config(*layers), [(sha256_bytes(each), len(each)) for each in layers])


def place(data: bytes) -> str:
    """Return where a layout has a blob."""
    return f"blobs/sha256/{hex_of(sha256_bytes(data))}"


def tars(folder: Path, *layers: bytes) -> list[Path]:
    """Return files that hold layers, as the store keeps them."""
    files = [folder / hex_of(sha256_bytes(each)) for each in layers]
    for file, each in zip(files, layers, strict=True):
        file.write_bytes(each)
    return files


def write(folder: Path, *layers: bytes, own: Sequence[Path] = ()) -> None:
    """Write a layout of an image over layers, of which some are its own."""
    layout.write_layout(
        folder, tag=TAG, config=config(*layers), manifest=manifest(*layers), layers=own
    )


def blob(data: bytes) -> LayerBlob:
    return LayerBlob(diff_id=sha256_bytes(data), size=len(data), write=lambda out: out.write(data))


def write_archive(file: Path, *layers: LayerBlob, docker: bool = True) -> None:
    data = image.config(
        [each.diff_id for each in layers],
        cmd=["/hello"],
        env=(),
        workdir="/",
        created=0,
        platform="linux/amd64",
    )
    layout.write_archive(
        file,
        tag=TAG,
        config=data,
        manifest=image.manifest(data, [(each.diff_id, each.size) for each in layers]),
        layers=layers,
        docker=docker,
    )


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@contextmanager
def full_after(size: int) -> Iterator[None]:
    """Let no file become larger, as on a disk without room; needs no rights."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Path]:
    """A folder on another file system, from which nothing can be linked."""
    shared = Path("/dev/shm")
    if not os.access(shared, os.W_OK) or shared.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no other file system to write to")
    with tempfile.TemporaryDirectory(dir=shared) as name:
        yield Path(name)


def test_index() -> None:
    """An index names its one image for OCI tools by tag and for containerd in full."""
    assert json.loads(layout.index(b"{}", TAG)) == {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [
            {
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "digest": sha256_bytes(b"{}"),
                "size": 2,
                "annotations": {
                    "org.opencontainers.image.ref.name": "gcc-static.scratch",
                    "io.containerd.image.name": "docker.io/library/hello-c:gcc-static.scratch",
                },
            }
        ],
    }


def test_layout_holds_what_it_should(tmp_path: Path) -> None:
    """A layout has the marker, the index and every blob under its digest, and nothing else."""
    write(tmp_path / "new" / "layout", BASE, OWN, own=tars(tmp_path, OWN))

    assert files_of(tmp_path / "new" / "layout") == {
        "oci-layout": b'{"imageLayoutVersion":"1.0.0"}',
        "index.json": layout.index(manifest(BASE, OWN), TAG),
        **{place(data): data for data in (config(BASE, OWN), manifest(BASE, OWN), OWN)},
    }


@settings(deadline=None, max_examples=50)
@given(
    base=st.lists(st.binary(max_size=40), max_size=3),
    own=st.lists(st.binary(max_size=40), max_size=3),
)
def test_layout_is_valid(base: list[bytes], own: list[bytes]) -> None:
    """Whatever the layers, equal ones too, a layout passes its check without its base."""
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "store").mkdir()
        write(Path(name) / "layout", *base, *own, own=tars(Path(name) / "store", *own))

        validate(Path(name) / "layout", external=frozenset(map(sha256_bytes, base)))
        if set(base) - set(own):
            with pytest.raises(LayoutError, match="is missing, or no regular file"):
                validate(Path(name) / "layout")


def test_layers_are_shared(tmp_path: Path) -> None:
    """A layer's bytes are on the disk once, in the store and in every layout."""
    (own,) = tars(tmp_path, OWN)

    write(tmp_path / "layout", OWN, own=[own])

    assert (tmp_path / "layout" / "blobs" / "sha256" / own.name).samefile(own)


def test_layers_from_elsewhere_are_copied(tmp_path: Path, elsewhere: Path) -> None:
    """A layer on another file system is copied, and no draft is left."""
    (own,) = tars(elsewhere, OWN)

    write(tmp_path, OWN, own=[own])

    validate(tmp_path)
    assert set(files_of(tmp_path)) == {
        "oci-layout",
        "index.json",
        *(place(data) for data in (OWN, config(OWN), manifest(OWN))),
    }


def test_nothing_is_written_where_nothing_changed(tmp_path: Path) -> None:
    """The same image again leaves every file as it is."""

    def state() -> dict[Path, tuple[int, int]]:
        found = {path: path.stat() for path in (tmp_path / "layout").rglob("*")}
        return {path: (each.st_ino, each.st_mtime_ns) for path, each in found.items()}

    own = tars(tmp_path, OWN)
    write(tmp_path / "layout", BASE, OWN, own=own)
    before = state()

    write(tmp_path / "layout", BASE, OWN, own=own)

    assert state() == before


def cut(file: Path) -> None:
    file.write_bytes(b"")


@pytest.mark.parametrize("damage", [Path.unlink, cut])
@pytest.mark.parametrize(
    "name", ["oci-layout", "index.json", place(config(OWN)), place(manifest(OWN))]
)
def test_damaged_file_is_written_again(
    tmp_path: Path, name: str, damage: Callable[[Path], None]
) -> None:
    """A file of the layout that is missing or cut off comes back with the next write."""
    own = tars(tmp_path, OWN)
    write(tmp_path / "layout", OWN, own=own)
    before = files_of(tmp_path / "layout")
    damage(tmp_path / "layout" / name)

    write(tmp_path / "layout", OWN, own=own)

    assert files_of(tmp_path / "layout") == before


def test_lost_layer_is_shared_again(tmp_path: Path) -> None:
    """A layer that is missing comes back with the next write."""
    (own,) = tars(tmp_path, OWN)
    write(tmp_path / "layout", OWN, own=[own])
    (tmp_path / "layout" / place(OWN)).unlink()

    write(tmp_path / "layout", OWN, own=[own])

    validate(tmp_path / "layout")


_NOBODY = 1 << 23
"""No process of Linux has that number (proc_sys_kernel(5), pid_max)."""


def test_new_image_replaces_the_old_one(tmp_path: Path) -> None:
    """Blobs that the new image does not have go away, and drafts of killed processes, no others."""
    write(tmp_path / "layout", OWN, own=tars(tmp_path, OWN))
    draft = f"blobs/sha256/.0123.{os.getpid()}"
    for name in (draft, f"blobs/sha256/.0123.{_NOBODY}", f".oci-layout.{_NOBODY}"):
        (tmp_path / "layout" / name).touch()

    write(tmp_path / "layout", BASE, own=tars(tmp_path, BASE))

    validate(tmp_path / "layout")
    assert set(files_of(tmp_path / "layout")) == {
        "oci-layout",
        "index.json",
        draft,
        *(place(data) for data in (BASE, config(BASE), manifest(BASE))),
    }


@pytest.mark.parametrize("name", ["file", "file/layout"])
def test_layout_in_the_place_of_a_file(tmp_path: Path, name: str) -> None:
    """A file in the way is an error that names the layout, and it is left alone."""
    (tmp_path / "file").write_bytes(b"precious")

    with pytest.raises(LayoutError) as caught:
        write(tmp_path / name, BASE)

    assert str(caught.value) == f"{tmp_path / name}: cannot be written: Not a directory. {HINT}"
    assert files_of(tmp_path) == {"file": b"precious"}


def test_layer_that_is_gone(tmp_path: Path) -> None:
    """A layer that vanished from the store is an error, and there is no image then."""
    (own,) = tars(tmp_path, OWN)
    own.unlink()

    with pytest.raises(LayoutError, match="cannot be written: No such file or directory"):
        write(tmp_path / "layout", OWN, own=[own])

    assert not (tmp_path / "layout" / "index.json").exists()


def test_full_disk_leaves_no_image(tmp_path: Path) -> None:
    """Where the new image cannot be written, neither it nor the old one nor a draft is there."""
    write(tmp_path, BASE)

    with full_after(100), pytest.raises(LayoutError, match="cannot be written: File too large"):
        write(tmp_path, OWN)

    assert files_of(tmp_path) == {"oci-layout": layout.MARKER}
    write(tmp_path, OWN)
    validate(tmp_path, external=frozenset({sha256_bytes(OWN)}))


def test_full_disk_leaves_no_copy(tmp_path: Path, elsewhere: Path) -> None:
    """A layer from another file system that does not fit leaves nothing of itself."""
    large = bytes(100_000)
    own = tars(elsewhere, large)

    with full_after(50_000), pytest.raises(LayoutError, match="cannot be written: File too large"):
        write(tmp_path, large, own=own)

    assert files_of(tmp_path) == {}


@settings(deadline=None, max_examples=50)
@given(layers=st.lists(st.binary(max_size=1_100), max_size=4), docker=st.booleans())
def test_archive_is_a_valid_layout(layers: list[bytes], docker: bool) -> None:  # noqa: FBT001
    """tarfile unpacks an archive to a complete layout: every blob is what its name says."""
    with tempfile.TemporaryDirectory() as name:
        file, folder = Path(name) / "image.tar", Path(name) / "layout"
        write_archive(file, *map(blob, layers), docker=docker)
        with tarfile.open(file, "r:") as archive:
            archive.extraction_filter = lambda member, _: member  # as it is
            archive.extractall(folder)  # noqa: S202  # our own archive

        validate(folder)
        files = files_of(folder)
        blobs = {name: data for name, data in files.items() if name.startswith("blobs/sha256/")}
        assert [place(data) for data in blobs.values()] == [*blobs]
        assert set(layers) <= set(blobs.values())
        assert len(blobs) == len(set(layers)) + 2
        assert set(files) - set(blobs) == {"index.json", "oci-layout"} | (
            {"manifest.json"} if docker else set()
        )
        assert file.stat().st_size % 512 == 0
        assert file.read_bytes().endswith(bytes(1_024))


def test_archive_in_docker_words(tmp_path: Path) -> None:
    """manifest.json names the tag, the configuration and all layers, repeated ones repeatedly."""
    write_archive(tmp_path / "image.tar", blob(BASE), blob(OWN), blob(BASE))

    with tarfile.open(tmp_path / "image.tar", "r:") as archive:
        names = archive.getnames()
        file = archive.extractfile("manifest.json")
        assert file is not None
        base, own = (place(each) for each in (BASE, OWN))
        data = config(BASE, OWN, BASE)
        assert json.load(file) == [
            {
                "Config": place(data),
                "RepoTags": [TAG],
                "Layers": [base, own, base],
            }
        ]
    assert names == [
        "blobs",
        "blobs/sha256",
        place(data),
        place(manifest(BASE, OWN, BASE)),
        base,
        own,
        "index.json",
        "manifest.json",
        "oci-layout",
    ]


def test_archive_bytes_are_stable(tmp_path: Path) -> None:
    """The bytes of a known archive change with no release unnoticed."""
    write_archive(tmp_path / "image.tar", blob(BASE), blob(OWN))

    assert (tmp_path / "image.tar").stat().st_size == 9_728
    assert sha256_file(tmp_path / "image.tar") == (
        "sha256:2e9c425537b7f25c86f609822d77fd8bee538b90a2ca2a40cfa23859942ce772"
    )


def test_archive_replaces_an_older_one(tmp_path: Path) -> None:
    """The same image gives the same bytes, in a file that everybody may read."""
    for name in ("one.tar", "two.tar"):
        (tmp_path / name).write_bytes(b"older")
        write_archive(tmp_path / name, blob(OWN))

    first, second = tmp_path / "one.tar", tmp_path / "two.tar"
    assert first.read_bytes() == second.read_bytes()
    assert first.stat().st_mode & 0o777 == 0o644
    assert sorted(tmp_path.iterdir()) == [first, second]


def stops(error: BaseException) -> LayerBlob:
    """Return a layer whose tar ends in an error."""

    def fail(out: IO[bytes]) -> None:
        out.write(OWN[:5])
        raise error

    return LayerBlob(diff_id=sha256_bytes(OWN), size=len(OWN), write=fail)


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(LayoutError("root/file: became shorter"), id="our-own"),
        pytest.param(KeyboardInterrupt(), id="ctrl-c"),
        pytest.param(ZeroDivisionError(), id="bug"),
    ],
)
def test_interrupted_archive_leaves_nothing(tmp_path: Path, error: BaseException) -> None:
    """What a layer's writer raises comes out as it is, and no part of an archive stays."""
    with pytest.raises(type(error)) as caught:
        write_archive(tmp_path / "image.tar", blob(BASE), stops(error))

    assert caught.value is error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        pytest.param(FileNotFoundError(2, "No such file or directory"), "No such file", id="no"),
        pytest.param(shutil.SpecialFileError("is a named pipe"), "is a named pipe", id="words"),
    ],
)
def test_layer_that_cannot_be_read(tmp_path: Path, error: OSError, reason: str) -> None:
    """An error of the system becomes ours, with its words, also when it has no number."""
    with pytest.raises(LayoutError, match=f"image.tar: cannot be written: {reason}") as caught:
        write_archive(tmp_path / "image.tar", stops(error))

    assert caught.value.__cause__ is error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        pytest.param(OWN + b"!", sha256_bytes(OWN + b"!"), id="longer"),
        pytest.param(OWN[:-1], sha256_bytes(OWN[:-1]), id="shorter"),
        pytest.param(b"", sha256_bytes(b""), id="nothing"),
        pytest.param(OWN.upper(), sha256_bytes(OWN.upper()), id="other-bytes"),
    ],
)
def test_layer_that_is_not_what_it_was(tmp_path: Path, data: bytes, expected: Digest) -> None:
    """A layer whose tar differs from its identity ends the archive and spares the older one."""
    (tmp_path / "image.tar").write_bytes(b"older")
    false = LayerBlob(
        diff_id=sha256_bytes(OWN), size=len(OWN), write=lambda out: out.write(memoryview(data))
    )

    with pytest.raises(LayoutError) as caught:
        write_archive(tmp_path / "image.tar", blob(BASE), false)

    assert str(caught.value) == (
        f"layer {sha256_bytes(OWN)} came out as {expected} with {len(data)} bytes. "
        "What it is made of was changed since: remove it, and it will be made anew."
    )
    assert files_of(tmp_path) == {"image.tar": b"older"}


def test_layer_of_no_digest(tmp_path: Path) -> None:
    """An identity that is no digest becomes no name in an archive."""
    false = LayerBlob(diff_id=Digest("../../etc/passwd"), size=0, write=lambda _: None)

    with pytest.raises(LayoutError, match=r"not a sha256 digest: '\.\./\.\./etc/passwd'"):
        write_archive(tmp_path / "image.tar", false)

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        pytest.param("missing/image.tar", "No such file or directory", id="no-folder"),
        pytest.param("file/image.tar", "Not a directory", id="below-a-file"),
        pytest.param("folder", "Is a directory", id="a-folder"),
    ],
)
def test_archive_that_has_no_place(tmp_path: Path, name: str, reason: str) -> None:
    """A place where no file can be is an error that names it, and nothing is left behind."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()

    with pytest.raises(LayoutError) as caught:
        write_archive(tmp_path / name, blob(OWN))

    assert str(caught.value) == f"{tmp_path / name}: cannot be written: {reason}. {HINT}"
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "folder"]


@pytest.mark.parametrize("room", [0, 1_000, 100_000])
def test_full_disk_leaves_no_archive(tmp_path: Path, room: int) -> None:
    """Wherever the disk is full, the folder that was packed is not blamed, and nothing stays."""
    root, out = tmp_path / "root", tmp_path / "out"
    for folder in (root, out):
        folder.mkdir()
    (root / "file").write_bytes(bytes(1_000_000))
    facts = digest_tree(root, mtime=0)
    packed = LayerBlob(
        diff_id=facts.diff_id, size=facts.size, write=lambda it: write_tree(root, it, mtime=0)
    )

    with full_after(room), pytest.raises(LayoutError) as caught:
        write_archive(out / "image.tar", packed)

    assert str(caught.value) == (f"{out / 'image.tar'}: cannot be written: File too large. {HINT}")
    assert list(out.iterdir()) == []
    write_archive(out / "image.tar", packed)
    assert (out / "image.tar").stat().st_size > facts.size


def test_full_disk_at_the_last_byte(tmp_path: Path) -> None:
    """An archive that fits but for one byte does not replace the older one."""
    file = tmp_path / "image.tar"
    write_archive(file, blob(OWN))
    before = file.read_bytes()

    with full_after(len(before) - 1), pytest.raises(LayoutError, match="File too large"):
        write_archive(file, blob(OWN.upper()))

    assert files_of(tmp_path) == {"image.tar": before}
