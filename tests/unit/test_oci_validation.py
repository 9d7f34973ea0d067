"""Layouts that are not what they say: each is refused, and the error says what is wrong."""

from __future__ import annotations

import errno
import json
import os
import resource
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nox_variants.errors import LayoutError
from nox_variants.oci import image, layout
from nox_variants.oci.digest import hex_of, sha256_bytes
from nox_variants.oci.image import CONFIG, LAYER, MANIFEST
from nox_variants.oci.validation import validate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Change = Callable[[dict[str, Any]], object]
    Edit = Callable[[Path, Change], None]

BASE, OWN = b"the base's tar", b"our own layer's tar"
ABSENT = sha256_bytes(b"absent")

CONFIG_DATA = image.config(
    [sha256_bytes(BASE), sha256_bytes(OWN)],
    cmd=["/hello"],
    env=(),
    workdir="/",
    created=0,
    platform="linux/amd64",
)
MANIFEST_DATA = image.manifest(
    CONFIG_DATA, [(sha256_bytes(BASE), len(BASE)), (sha256_bytes(OWN), len(OWN))]
)
BLOBS = (CONFIG_DATA, MANIFEST_DATA, BASE, OWN)
NAMES = ("oci-layout", "index.json", *(f"blobs/sha256/{hex_of(sha256_bytes(b))}" for b in BLOBS))


def write(folder: Path) -> Path:
    """Write a complete, valid layout of one image with two layers."""
    store = folder.with_name("store")
    store.mkdir()
    files = [store / hex_of(sha256_bytes(data)) for data in (BASE, OWN)]
    for file, data in zip(files, (BASE, OWN), strict=True):
        file.write_bytes(data)
    layout.write_layout(
        folder, tag="hello-c:tag", config=CONFIG_DATA, manifest=MANIFEST_DATA, layers=files
    )
    return folder


@pytest.fixture
def valid(tmp_path: Path) -> Path:
    """A valid layout."""
    return write(tmp_path / "layout")


def path_of(folder: Path, data: bytes) -> Path:
    return folder / "blobs" / "sha256" / hex_of(sha256_bytes(data))


def edit_index(folder: Path, change: Change) -> None:
    """Change the index."""
    file = folder / "index.json"
    values = json.loads(file.read_bytes())
    change(values)
    file.write_text(json.dumps(values))


def edit_manifest(folder: Path, change: Change) -> None:
    """Change the manifest, and its descriptor in the index with it."""
    edit_index(folder, lambda index: _edit_blob(folder, index["manifests"][0], change))


def edit_config(folder: Path, change: Change) -> None:
    """Change the configuration, and all descriptors above it with it."""
    edit_manifest(folder, lambda manifest: _edit_blob(folder, manifest["config"], change))


def _edit_blob(folder: Path, descriptor: dict[str, Any], change: Change) -> None:
    values = json.loads((folder / "blobs/sha256" / hex_of(descriptor["digest"])).read_bytes())
    change(values)
    descriptor.update(put(folder, json.dumps(values).encode()))


def put(folder: Path, data: bytes) -> dict[str, Any]:
    """Add a blob and return what a descriptor says about it."""
    path_of(folder, data).write_bytes(data)
    return {"digest": sha256_bytes(data), "size": len(data)}


def problem(folder: Path) -> str:
    """Return what is wrong with a layout, without the folder's name."""
    with pytest.raises(LayoutError) as caught:
        validate(folder)
    return str(caught.value).replace(str(folder), "LAYOUT")


def test_valid_layout(valid: Path) -> None:
    """A complete layout passes, also with fields that the specification leaves open."""
    validate(valid)
    edit_config(valid, lambda config: config.update(author="somebody"))
    edit_manifest(valid, lambda manifest: manifest.update(annotations={"a": "b"}))
    edit_index(valid, lambda index: index.update(annotations={"a": "b"}))
    (valid / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0", "more": 1}')
    validate(valid)


def test_layout_without_images(valid: Path) -> None:
    """An index of no image is no error: nothing in it is wrong."""
    edit_index(valid, lambda index: index.update(manifests=[]))

    validate(valid)


def test_every_image_is_checked(valid: Path) -> None:
    """The last image of an index is checked like the first."""
    edit_index(
        valid,
        lambda index: index["manifests"].append(
            {"mediaType": MANIFEST, "digest": ABSENT, "size": 1}
        ),
    )

    assert problem(valid) == f"LAYOUT: blob {ABSENT} is missing, or no regular file"


def test_external_layers(valid: Path) -> None:
    """A layer may be missing where that was said, and no other one."""
    path_of(valid, BASE).unlink()

    validate(valid, external=frozenset({sha256_bytes(BASE)}))
    with pytest.raises(LayoutError, match=f"blob {sha256_bytes(BASE)} is missing"):
        validate(valid, external=frozenset({sha256_bytes(OWN)}))


def test_external_layer_that_is_there(valid: Path) -> None:
    """A layer that may be missing is checked when it is there."""
    path_of(valid, BASE).write_bytes(BASE.upper())

    with pytest.raises(LayoutError, match=f"content of blob {sha256_bytes(BASE)} is not what"):
        validate(valid, external=frozenset({sha256_bytes(BASE)}))


@pytest.mark.parametrize("data", [CONFIG_DATA, MANIFEST_DATA])
def test_only_layers_are_external(valid: Path, data: bytes) -> None:
    """A configuration or a manifest is never elsewhere."""
    path_of(valid, data).unlink()

    with pytest.raises(LayoutError, match=f"blob {sha256_bytes(data)} is missing"):
        validate(valid, external=frozenset({sha256_bytes(data)}))


def test_no_layout(tmp_path: Path) -> None:
    """A folder that does not exist, or holds nothing, is no layout."""
    for folder in (tmp_path / "missing", tmp_path):
        assert problem(folder) == "LAYOUT/oci-layout: is missing, or no regular file"


def link(path: Path) -> None:
    """Move a file away and leave a link to it: the content is right, the file is not."""
    path.symlink_to(path.rename(path.parent.parent / "moved"))


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize("damage", [Path.unlink, link, folder, pipe])
@pytest.mark.parametrize("name", NAMES)
def test_files_are_regular(valid: Path, name: str, damage: Callable[[Path], None]) -> None:
    """A missing file, a link, a folder or a pipe in a file's place is refused, without waiting."""
    damage(valid / name)

    where = f"LAYOUT/{name}:"
    if name.startswith("blobs"):
        where = f"LAYOUT: blob sha256:{Path(name).name}"
    assert problem(valid) == f"{where} is missing, or no regular file"


@pytest.mark.parametrize("name", ["oci-layout", "index.json"])
@pytest.mark.parametrize(
    ("content", "expected"),
    [
        pytest.param(b"", "is not JSON: Expecting value", id="empty"),
        pytest.param(b"{", "is not JSON: Expecting property name", id="cut-off"),
        pytest.param(b"{} {}", "is not JSON: Extra data", id="twice"),
        pytest.param(b'{"\xff": 1}', "is not JSON: 'utf-8' codec can't decode", id="latin-1"),
        pytest.param(b"9" * 5_000, "is not JSON: Exceeds the limit", id="huge-number"),
        pytest.param(b"[" * 200_000, "is not JSON: ", id="deep"),
        pytest.param(b"[]", "is no JSON object, or larger than 4194304 bytes", id="list"),
        pytest.param(b"null", "is no JSON object, or larger than 4194304 bytes", id="null"),
    ],
)
def test_files_that_are_no_json_object(
    valid: Path, name: str, content: bytes, expected: str
) -> None:
    """What is not a JSON object of a reasonable size is refused, never a traceback."""
    (valid / name).write_bytes(content)

    assert problem(valid).startswith(f"LAYOUT/{name}: {expected}")


@pytest.mark.parametrize("content", [b"", b"[]", b"[" * 200_000])
def test_blobs_that_are_no_json_object(valid: Path, content: bytes) -> None:
    """A manifest or configuration whose digest is right must still be a JSON object."""
    where = f"LAYOUT/blobs/sha256/{hex_of(sha256_bytes(content))}: is no"
    edit_manifest(valid, lambda manifest: manifest["config"].update(put(valid, content)))
    assert problem(valid).startswith(where)
    edit_index(valid, lambda index: index["manifests"][0].update(put(valid, content)))
    assert problem(valid).startswith(where)


M = "LAYOUT/blobs/sha256/MANIFEST"


@pytest.mark.parametrize(
    ("edit", "change", "expected"),
    [
        pytest.param(
            edit_index,
            lambda index: index.pop("schemaVersion"),
            "LAYOUT/index.json: schemaVersion is None, not 2",
            id="index-without-version",
        ),
        pytest.param(
            edit_index,
            lambda index: index.update(mediaType=MANIFEST),
            f"LAYOUT/index.json: mediaType is {MANIFEST!r}, "
            "not 'application/vnd.oci.image.index.v1+json'",
            id="index-of-another-type",
        ),
        pytest.param(
            edit_index,
            lambda index: index.update(manifests={}),
            "LAYOUT/index.json: manifests is no list, or a list of more than 1000",
            id="manifests-no-list",
        ),
        pytest.param(
            edit_index,
            lambda index: index.update(manifests=index["manifests"] * 1_001),
            "LAYOUT/index.json: manifests is no list, or a list of more than 1000",
            id="too-many-manifests",
        ),
        pytest.param(
            edit_index,
            lambda index: index.update(manifests=["x" * 200]),
            f"LAYOUT: not a descriptor: '{'x' * 99}...",
            id="no-descriptor",
        ),
        pytest.param(
            edit_index,
            lambda index: index["manifests"][0].update(digest="sha256:../../../x"),
            "digest: not a sha256 digest: 'sha256:../../../x'. "
            "It must be 'sha256:' and 64 lower-case hex digits.",
            id="digest-that-leads-out",
        ),
        pytest.param(
            edit_index,
            lambda index: index["manifests"][0].update(mediaType=CONFIG),
            f"LAYOUT: blob {sha256_bytes(MANIFEST_DATA)} should be of media type {MANIFEST!r}",
            id="manifest-called-config",
        ),
        pytest.param(
            edit_index,
            lambda index: index["manifests"][0].update(size=len(MANIFEST_DATA) + 1),
            f"LAYOUT: blob {sha256_bytes(MANIFEST_DATA)} has {len(MANIFEST_DATA)} bytes, "
            f"not {len(MANIFEST_DATA) + 1}",
            id="wrong-size",
        ),
        pytest.param(
            edit_index,
            lambda index: index["manifests"][0].update(size=float(len(MANIFEST_DATA))),
            f"LAYOUT: blob {sha256_bytes(MANIFEST_DATA)} has {len(MANIFEST_DATA)} bytes, "
            f"not {len(MANIFEST_DATA)}.0",
            id="size-no-integer",
        ),
        pytest.param(
            edit_index,
            lambda index: index["manifests"][0].update(size="9" * 10_000),
            f"LAYOUT: blob {sha256_bytes(MANIFEST_DATA)} has {len(MANIFEST_DATA)} bytes, "
            f"not '{'9' * 99}...",
            id="size-of-many-letters",
        ),
        pytest.param(
            edit_manifest,
            lambda manifest: manifest.update(schemaVersion=1),
            f"{M}: schemaVersion is 1, not 2",
            id="manifest-of-another-version",
        ),
        pytest.param(
            edit_manifest,
            lambda manifest: manifest.pop("mediaType"),
            f"{M}: mediaType is None, not {MANIFEST!r}",
            id="manifest-without-type",
        ),
        pytest.param(
            edit_manifest,
            lambda manifest: manifest.pop("config"),
            "LAYOUT: not a descriptor: None",
            id="no-config",
        ),
        pytest.param(
            edit_manifest,
            lambda manifest: manifest["config"].update(mediaType=LAYER),
            f"LAYOUT: blob {sha256_bytes(CONFIG_DATA)} should be of media type {CONFIG!r}",
            id="config-called-layer",
        ),
        pytest.param(
            edit_manifest,
            lambda manifest: manifest.pop("layers"),
            f"{M}: layers is no list, or a list of more than 1000",
            id="no-layers",
        ),
        pytest.param(
            edit_manifest,
            lambda manifest: manifest["layers"].append(None),
            "LAYOUT: not a descriptor: None",
            id="layer-no-descriptor",
        ),
        pytest.param(
            edit_manifest,
            lambda manifest: manifest["layers"][0].update(mediaType=f"{LAYER}+gzip"),
            f"LAYOUT: blob {sha256_bytes(BASE)} should be of media type {LAYER!r}",
            id="compressed-layer",
        ),
        pytest.param(
            edit_manifest,
            lambda manifest: manifest["layers"][1].update(digest=ABSENT),
            f"LAYOUT: blob {ABSENT} is missing, or no regular file",
            id="missing-layer",
        ),
        pytest.param(
            edit_manifest,
            lambda manifest: manifest["layers"].reverse(),
            f"{M}: the configuration's diff_ids are not the digests of the manifest's layers",
            id="layers-in-another-order",
        ),
        pytest.param(
            edit_config,
            lambda config: config["rootfs"]["diff_ids"].pop(),
            f"{M}: the configuration's diff_ids are not the digests of the manifest's layers",
            id="diff-id-missing",
        ),
        pytest.param(
            edit_config,
            lambda config: config.update(rootfs="layers"),
            f"{M}: the configuration's diff_ids are not the digests of the manifest's layers",
            id="rootfs-no-object",
        ),
    ],
)
def test_false_statements(valid: Path, edit: Edit, change: Change, expected: str) -> None:
    """Whatever one file says falsely of another is refused with its name and value."""
    edit(valid, change)

    index = json.loads((valid / "index.json").read_bytes())
    if "MANIFEST" in expected:
        expected = expected.replace("MANIFEST", hex_of(index["manifests"][0]["digest"]))
    assert problem(valid) == expected


def test_limits(valid: Path) -> None:
    """A thousand images and files of 4 MiB are taken; one byte more is not read."""
    edit_index(valid, lambda index: index.update(manifests=index["manifests"] * 1_000))
    (valid / "oci-layout").write_bytes(layout.MARKER.ljust(4 << 20))
    validate(valid)

    (valid / "oci-layout").write_bytes(layout.MARKER.ljust((4 << 20) + 1))
    assert problem(valid) == ("LAYOUT/oci-layout: is no JSON object, or larger than 4194304 bytes")


def test_another_version(valid: Path) -> None:
    """A layout of a version that nobody knows yet is refused with the version."""
    (valid / "oci-layout").write_text('{"imageLayoutVersion": "2.0.0"}')

    assert problem(valid) == "LAYOUT/oci-layout: imageLayoutVersion is '2.0.0', not '1.0.0'"


@contextmanager
def no_open_files() -> Iterator[None]:
    """Let no file be opened: the one failure to read that root meets as well."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_unreadable_file(valid: Path) -> None:
    """An error of the system while reading is ours, with the file's name."""
    with no_open_files(), pytest.raises(LayoutError) as caught:
        validate(valid)

    assert (
        str(caught.value) == f"{valid / 'oci-layout'}: cannot be read: {os.strerror(errno.EMFILE)}"
    )


@settings(deadline=None, max_examples=50)
@given(data=st.data(), number=st.integers(0, len(BLOBS) - 1), flip=st.integers(1, 255))
def test_one_other_byte(data: st.DataObject, number: int, flip: int) -> None:
    """One byte changed anywhere in any blob is found."""
    at = data.draw(st.integers(0, len(BLOBS[number]) - 1))
    with tempfile.TemporaryDirectory() as name:
        valid = write(Path(name) / "layout")
        changed = bytearray(BLOBS[number])
        changed[at] ^= flip
        path_of(valid, BLOBS[number]).write_bytes(changed)

        assert problem(valid) == (
            f"LAYOUT: the content of blob {sha256_bytes(BLOBS[number])} is not what its name says"
        )


@settings(deadline=None, max_examples=50)
@given(data=st.data(), file=st.sampled_from(NAMES))
def test_shorter_files(data: st.DataObject, file: str) -> None:
    """Any file of a layout that is cut short, anywhere, is found."""
    with tempfile.TemporaryDirectory() as name:
        valid = write(Path(name) / "layout")
        size = (valid / file).stat().st_size
        os.truncate(valid / file, data.draw(st.integers(0, size - 1)))

        assert Path(file).name in problem(valid)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
FIELDS: list[tuple[Edit, tuple[str | int, ...]]] = [
    (edit_index, ("schemaVersion",)),
    (edit_index, ("mediaType",)),
    (edit_index, ("manifests",)),
    *((edit_index, ("manifests", 0, name)) for name in ("mediaType", "digest", "size")),
    (edit_manifest, ("schemaVersion",)),
    (edit_manifest, ("mediaType",)),
    (edit_manifest, ("config",)),
    *((edit_manifest, ("config", name)) for name in ("mediaType", "digest", "size")),
    (edit_manifest, ("layers",)),
    *((edit_manifest, ("layers", 1, name)) for name in ("mediaType", "digest", "size")),
    (edit_config, ("rootfs",)),
    (edit_config, ("rootfs", "diff_ids")),
    (edit_config, ("rootfs", "diff_ids", 0)),
]


@settings(deadline=None)
@given(field=st.sampled_from(FIELDS), value=JSON.filter(lambda value: value not in (2, [])))
def test_any_other_value(field: tuple[Edit, tuple[str | int, ...]], value: object) -> None:
    """Any JSON value in the place of one that is checked is refused, in few words."""
    edit, (*above, last) = field

    def change(values: Any) -> None:
        for key in above:
            values = values[key]
        values[last] = value

    with tempfile.TemporaryDirectory() as name:
        valid = write(Path(name) / "layout")
        edit(valid, change)

        assert 0 < len(problem(valid)) < 400
