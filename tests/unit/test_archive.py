"""Images out of files: every kind, told apart by content, and files that lie."""

from __future__ import annotations

import gzip
import hashlib
import os
import random
import re
import resource
import sys
import tarfile
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hostile_archives import LAYOUTS
from imagefiles import (
    AMD_ENTRY,
    ARM,
    ARM_ENTRY,
    ATTESTATION,
    BASE,
    BOTH,
    COMPRESSIONS,
    CONFIG_BLOB,
    IMAGE,
    MANIFEST_BLOB,
    OTHER,
    OWN,
    OWN_BLOB,
    PLATFORM,
    ROOT,
    TAG,
    Content,
    Image,
    entry,
    header,
    named,
    nested,
    on,
    record,
    tar,
    without,
)
from nox_variants.errors import ImageError, LayoutError
from nox_variants.images import archive, tarfiles
from nox_variants.images.archive import open_archive
from nox_variants.images.content import Descriptor, ImageContent
from nox_variants.oci import image, layout
from nox_variants.oci.digest import canonical_json, hex_of, sha256_bytes
from nox_variants.oci.layout import LayerBlob

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


def opened(path: Path, platform: str = PLATFORM) -> tuple[ImageContent, list[bytes]]:
    """Return what an archive has: its image, and its layers' bytes."""
    with open_archive(path, platform, cancelled=threading.Event()) as found:
        layers = []
        for at, layer in enumerate(found.content.layers):
            file = path.with_name(f"{path.name}.layer{at}")
            file.unlink(missing_ok=True)
            found.fetch(layer, file)
            layers.append(file.read_bytes())
    return found.content, layers


def file(folder: Path, data: bytes | Mapping[str, Content]) -> Path:
    """Write an archive."""
    path = folder / "image"
    path.write_bytes(data if isinstance(data, bytes) else tar(data))
    return path


def unpacked(folder: Path, files: Mapping[str, Content]) -> Path:
    """Write an OCI folder."""
    for name, data in files.items():
        path = folder / "layout" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        assert isinstance(data, bytes)
        path.write_bytes(data)
    return folder / "layout"


def refused(path: Path, platform: str = PLATFORM) -> ImageError:
    """Return the error that opening, or fetching all layers, ends with."""
    with pytest.raises(ImageError) as raised:
        opened(path, platform)
    error = raised.value
    assert error.message.startswith(f"{path}: ")
    assert error.hint
    return error


def with_prefix(files: Mapping[str, Content]) -> dict[str, Content]:
    return {f"./{name}": value for name, value in files.items()}


KINDS: dict[str, bytes] = {
    "docker-archive": tar(IMAGE.saved()),
    "docker-archive with a layout": tar({**IMAGE.oci(), "manifest.json": b"[]"}),
    "oci-archive": tar(IMAGE.oci()),
    "oci-archive with ./": tar({"./": None, **with_prefix(IMAGE.oci())}),
    "docker-archive with ./": tar(with_prefix(IMAGE.saved())),
    "pax": tar(IMAGE.saved(), tarfile.PAX_FORMAT),
    "ustar": tar(IMAGE.oci(), tarfile.USTAR_FORMAT),
    "with folders": tar({"blobs/": None, "blobs/sha256/": None, **IMAGE.oci()}),
    "with a late index": tar(dict(reversed(IMAGE.oci().items()))),
    "without an end": tar(dict(reversed(IMAGE.oci().items()))).rstrip(b"\0"),
}


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_images(kind: str, compression: str, tmp_path: Path) -> None:
    """Every kind gives its image and its layers, compressed or not."""
    content, layers = opened(file(tmp_path, COMPRESSIONS[compression](KINDS[kind])))
    has_manifest = b"oci-layout" in KINDS[kind]
    assert content.digest == sha256_bytes(IMAGE.manifest if has_manifest else IMAGE.config)
    assert content.diff_ids == tuple(map(sha256_bytes, IMAGE.layers))
    assert content.layers == tuple(
        Descriptor(media_type=image.LAYER, digest=sha256_bytes(each), size=len(each))
        for each in IMAGE.layers
    )
    assert content.env == (("PATH", "x"),)
    assert layers == [BASE, OWN]


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize(
    "data",
    [
        ROOT,
        tar({"hello": b"a program and nothing else"}),
        tar({"/etc/passwd": b"absolute"}),
        tar({"etc/": None}),
        tar({"usr/manifest.json": b"[]", "manifest.json": b"[]", "oci-layout": b"{}"}),
        tar({"hello": "-> hallo"}),
        tar([("hello", b"1"), ("hello", b"2")]),
        tar({"app/oci": b""}),
    ],
    ids=range(8),
)
def test_root_filesystems(data: bytes, compression: str, tmp_path: Path) -> None:
    """Any other tar with files is an image of one layer, as `docker import` sees it."""
    digest = sha256_bytes(data)
    layer = Descriptor(media_type=image.LAYER, digest=digest, size=len(data))
    expected = ImageContent(digest=digest, layers=(layer,), diff_ids=(digest,), env=())
    assert opened(file(tmp_path, COMPRESSIONS[compression](data))) == (expected, [data])


@pytest.mark.parametrize("docker", [True, False])
def test_own_archives(docker: bool, tmp_path: Path) -> None:  # noqa: FBT001
    """What is exported can be read again."""
    layers = [
        LayerBlob(
            diff_id=sha256_bytes(each),
            size=len(each),
            write=lambda out, each=each: out.write(each),  # type: ignore[misc]
        )
        for each in IMAGE.layers
    ]
    path = tmp_path / "image"
    layout.write_archive(
        path,
        tag=TAG,
        config=IMAGE.config,
        manifest=IMAGE.manifest,
        layers=layers,
        docker=docker,
    )
    content, found = opened(path)
    assert (content.digest, found) == (sha256_bytes(IMAGE.manifest), [BASE, OWN])


def test_own_layout(tmp_path: Path) -> None:
    """A folder that was exported can be read again; its blobs may be hard links."""
    files = [tmp_path / hex_of(sha256_bytes(each)) for each in IMAGE.layers]
    for path, data in zip(files, IMAGE.layers, strict=True):
        path.write_bytes(data)
    layout.write_layout(
        tmp_path / "made", tag=TAG, config=IMAGE.config, manifest=IMAGE.manifest, layers=files
    )
    content, found = opened(tmp_path / "made")
    assert (content.digest, found) == (sha256_bytes(IMAGE.manifest), [BASE, OWN])


def test_links_between_layers(tmp_path: Path) -> None:
    """Docker 20.10 writes a layer that is there twice once, and a symbolic link to it."""
    twice = Image(OWN, OWN, OWN, BASE)
    names = ["a/layer.tar", "b/layer.tar", "c.tar", "d.tar"]
    files = {
        **twice.saved(Layers=names),
        "a/layer.tar": OWN,
        "b/layer.tar": "-> ../a/layer.tar",
        "c.tar": "-> ./b/layer.tar",
        "e.tar": BASE,
        "d.tar": "= e.tar",
    }
    assert opened(file(tmp_path, files))[1] == [OWN, OWN, OWN, BASE]


@pytest.mark.parametrize("form", ["gzip", "zstd"])
def test_compressed_layers(form: str, tmp_path: Path) -> None:
    """A docker-archive's layer may be compressed: its digest is of the bytes that are there."""
    data = COMPRESSIONS[form](OWN)
    one = Image(OWN)
    content, layers = opened(file(tmp_path, {**one.saved(Layers=["l"]), "l": data}))
    assert content.layers == (
        Descriptor(media_type=f"{image.LAYER}+{form}", digest=sha256_bytes(data), size=len(data)),
    )
    assert (content.diff_ids, layers) == ((sha256_bytes(OWN),), [data])


@pytest.mark.parametrize("name", ["", "/oci", ".json"])
def test_names_of_configurations(name: str, tmp_path: Path) -> None:
    """A configuration may have any name; one that says a digest has to be right."""
    name = f"sha256:{hex_of(sha256_bytes(IMAGE.config))}" if not name else f"x{name}"
    files = {**IMAGE.saved(Config=name), name: IMAGE.config}
    assert opened(file(tmp_path, files))[0].digest == sha256_bytes(IMAGE.config)


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
def test_long_names(form: int, tmp_path: Path) -> None:
    """Names and links may be as long as each kind of tar can have them."""
    long = "/".join(["a" * 60, "b" * 60, "é" * 30])
    target = long if form != tarfile.USTAR_FORMAT else "c"
    one = Image(OWN, OWN)
    files = {**one.saved(Layers=[long, "link"]), long: OWN, "c": OWN, "link": f"-> {target}"}
    assert opened(file(tmp_path, tar(files, form)))[1] == [OWN, OWN]


def test_unneeded_records(tmp_path: Path) -> None:
    """Times, owners and what is said about all members are passed over."""
    comment = b"20 comment=a comment".ljust(20)
    data = header(kind=b"g", size=b"24") + comment.ljust(512, b"\0")
    data += record(b"mtime", b"1.5") + tar(IMAGE.oci())
    assert opened(file(tmp_path, data))[1] == [BASE, OWN]


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_large_archives(compression: str, tmp_path: Path) -> None:
    """An archive larger than what is read at once is read to its end."""
    large = Image(random.Random(0).randbytes(3 << 20), OWN)  # noqa: S311  # no secret
    data = COMPRESSIONS[compression](tar(large.saved()))
    assert opened(file(tmp_path, data))[1] == [*large.layers]


def test_last_member_wins(tmp_path: Path) -> None:
    """A name that is there twice means what it means for `tar -x`."""
    files = [("index.json", b"{}"), *IMAGE.oci().items()]
    assert opened(file(tmp_path, tar(files)))[0].digest == sha256_bytes(IMAGE.manifest)
    files = [*IMAGE.oci().items(), ("./index.json", b"{}")]
    assert "manifests: not a list" in refused(file(tmp_path, tar(files))).message


@pytest.mark.parametrize(
    "files",
    [
        {**BOTH, **IMAGE.oci(AMD_ENTRY, ARM_ENTRY)},
        {**BOTH, **IMAGE.oci(ATTESTATION, ARM_ENTRY, AMD_ENTRY)},
        nested(AMD_ENTRY, ARM_ENTRY),
        nested(ATTESTATION, ARM_ENTRY, ATTESTATION, AMD_ENTRY, AMD_ENTRY),
    ],
    ids=["index", "attestation", "nested", "nested attestation"],
)
@pytest.mark.parametrize("where", ["file", "folder"])
def test_platforms(files: dict[str, Content], where: str, tmp_path: Path) -> None:
    """Of images for several platforms, the one that is asked for is read."""
    path = file(tmp_path, files) if where == "file" else unpacked(tmp_path, files)
    assert opened(path)[0].digest == sha256_bytes(IMAGE.manifest)
    assert opened(path, "linux/arm64")[0].digest == sha256_bytes(ARM.manifest)
    message = refused(path, "linux/s390x").message
    assert message.endswith("is not made for linux/s390x: only for linux/amd64, linux/arm64/v8")


@pytest.mark.parametrize(
    "entries",
    [
        [entry(IMAGE.manifest, **named("1")), entry(IMAGE.manifest, **named("2"))],
        [AMD_ENTRY, {**AMD_ENTRY, **named("2")}],
        [entry(IMAGE.manifest), ATTESTATION],
    ],
)
def test_two_tags(entries: list[object], tmp_path: Path) -> None:
    """Two tags of one image are one image."""
    path = file(tmp_path, IMAGE.oci(*entries))
    assert opened(path)[0].digest == sha256_bytes(IMAGE.manifest)


def test_other_platform(tmp_path: Path) -> None:
    """The only image is not taken when it is for another machine, whoever says so."""
    for files in (ARM.oci(), ARM.saved(), ARM.oci(ARM_ENTRY)):
        error = refused(file(tmp_path, files))
        assert error.message.endswith("is not made for linux/amd64: only for linux/arm64/v8")
        assert "made for linux/amd64" in error.hint


THIRD = Image(BASE, env="third")
SEVERAL: dict[str, tuple[dict[str, Content], str]] = {
    "tags": (
        {
            **IMAGE.saved(),
            "manifest.json": canonical_json(
                [{"RepoTags": ["a:1", "b:2"]}, {"RepoTags": None, "Config": "c.json"}]
            ),
        },
        "has 2 images: ['a:1', 'b:2'], 'c.json'",
    ),
    "names": (
        IMAGE.oci(entry(IMAGE.manifest, **named("a:1")), entry(OTHER.manifest, **named("b:2"))),
        "has 2 images: 'a:1', 'b:2'",
    ),
    "names and platforms": (
        IMAGE.oci(
            {**AMD_ENTRY, **named("a:1")}, entry(OTHER.manifest, **on(PLATFORM), **named("b:2"))
        ),
        "has 2 images: 'a:1', 'b:2'",
    ),
    "one platform": (
        IMAGE.oci(AMD_ENTRY, entry(OTHER.manifest, annotations=[])),
        f"has 2 images: '{sha256_bytes(IMAGE.manifest)}', '{sha256_bytes(OTHER.manifest)}'",
    ),
    "many": (
        IMAGE.oci(*[entry(b"%d" % at, **named(f"{at}")) for at in range(23)]),
        "'18', '19', and 3 more",
    ),
}


@pytest.mark.parametrize("case", SEVERAL)
def test_several_images(case: str, tmp_path: Path) -> None:
    """Which of several images is meant cannot be known: they are named."""
    files, message = SEVERAL[case]
    error = refused(file(tmp_path, files))
    assert error.message.endswith(message)
    assert error.hint == "Save one image, or one tag, to a file."


@pytest.mark.parametrize("case", LAYOUTS)
def test_hostile_folders(case: str, tmp_path: Path) -> None:
    """A layout that is not what it says is refused in a folder, too."""
    files, message = LAYOUTS[case]
    assert re.search(message, refused(unpacked(tmp_path, files)).message)


def test_manifest_that_is_a_folder(tmp_path: Path) -> None:
    """A folder of that name makes no docker-archive of a root filesystem."""
    files = {**IMAGE.saved(), "manifest.json": None, "x": b""}
    assert opened(file(tmp_path, files))[0].env == ()


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_bombs(compression: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What becomes too large is given up on, and no temporary file stays."""
    monkeypatch.setattr(tarfiles, "LARGEST", 1 << 20)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    path = file(tmp_path, COMPRESSIONS[compression](bytes(64 << 20)))
    assert "is too large: more than 1048576 bytes" in refused(path).message
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("name", "message"), [("MOST_ENTRIES", "more than 3 entries"), ("MOST_NAMES", "more than 3")]
)
def test_many_entries(
    name: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tar of countless empty files is given up on."""
    monkeypatch.setattr(tarfiles, name, 3)
    assert message in refused(file(tmp_path, {f"{at}": b"" for at in range(4)})).message


def test_no_zstandard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the package for zstd is missing, it is named."""
    monkeypatch.setitem(sys.modules, "zstandard", None)
    error = refused(file(tmp_path, COMPRESSIONS["zstd"](ROOT)))
    assert "the archive is compressed with zstd" in error.message
    assert error.hint == "pip install zstandard"


def test_deep_values(tmp_path: Path) -> None:
    """A value that is too deep to be shown is refused as well."""
    with pytest.raises(ImageError, match="is nested too deeply"), archive._explained(tmp_path):
        raise RecursionError


def test_other_things(tmp_path: Path) -> None:
    """What is no file and no layout is refused, and says what to do; a named pipe is not read."""
    assert refused(tmp_path / "missing").message.endswith("missing: is not there")
    os.mkfifo(tmp_path / "pipe")
    assert refused(tmp_path / "pipe").message.endswith("is neither a file nor a folder")
    assert refused(Path("/dev/null")).message.endswith("is neither a file nor a folder")
    folder = unpacked(tmp_path, {"etc/passwd": b"", "manifest.json": b"[]"})
    assert refused(folder).hint.endswith("tar -C FOLDER -cf FILE.tar .")
    (tmp_path / "loop").symlink_to("loop")
    assert "cannot be read: Too many levels" in refused(tmp_path / "loop").message


@pytest.mark.parametrize(
    "name",
    ["oci-layout", "index.json", "blobs", "blobs/sha256", MANIFEST_BLOB, CONFIG_BLOB, OWN_BLOB],
)
@pytest.mark.parametrize("how", ["link", "pipe", "socket"])
def test_links_in_folders(name: str, how: str, tmp_path: Path) -> None:
    """No link is followed in a folder, even to what it should be, and nothing odd is opened."""
    path = unpacked(tmp_path, IMAGE.oci()) / name
    path.rename(tmp_path / "elsewhere")
    if how == "link":
        path.symlink_to(tmp_path / "elsewhere")
    elif how == "pipe":
        os.mkfifo(path)
    else:
        os.mknod(path, 0o140644)
    message = refused(tmp_path / "layout").message
    assert "is a link, or of another wrong type" in message or "is no regular file" in message


def test_folder_through_a_link(tmp_path: Path) -> None:
    """The user's own path may be a link."""
    (tmp_path / "link").symlink_to(unpacked(tmp_path, IMAGE.oci()))
    assert opened(tmp_path / "link")[1] == [BASE, OWN]


@pytest.mark.parametrize("where", ["file", "folder"])
def test_changes_after_opening(where: str, tmp_path: Path) -> None:
    """A layer that changes after opening is refused, and its file is not there."""
    files = IMAGE.oci()
    path = file(tmp_path, files) if where == "file" else unpacked(tmp_path, files)
    with open_archive(path, PLATFORM, cancelled=threading.Event()) as found:
        changed = path if where == "file" else path / OWN_BLOB
        changed.write_bytes(changed.read_bytes().replace(b"own", b"OWN"))
        with pytest.raises(ImageError, match=f"{sha256_bytes(OWN)}: its content has the digest"):
            found.fetch(found.content.layers[1], tmp_path / "layer")
        assert not (tmp_path / "layer").exists()
        changed.write_bytes(b"")
        with pytest.raises(ImageError, match=r"ends at byte|has 0 bytes"):
            found.fetch(found.content.layers[1], tmp_path / "layer")
    assert not (tmp_path / "layer").exists()


@contextmanager
def full_disk() -> Iterator[None]:
    """Let files have no more than a few bytes."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_full_temporary_folder(tmp_path: Path) -> None:
    """Where a compressed archive finds no room, that is said."""
    path = file(tmp_path, gzip.compress(ROOT))
    with full_disk():
        error = refused(path)
    assert error.message.endswith("cannot be read: File too large")
    assert "temporary files" in error.hint


def test_fetching(tmp_path: Path) -> None:
    """Layers come in any order and again; a file that is there stays what it is."""
    path = file(tmp_path, IMAGE.saved())
    with open_archive(path, PLATFORM, cancelled=threading.Event()) as found:
        path.unlink()
        base, own = found.content.layers
        for at, layer in enumerate([own, base, own]):
            found.fetch(layer, tmp_path / f"{at}")
            assert sha256_bytes((tmp_path / f"{at}").read_bytes()) == layer.digest
        with pytest.raises(FileExistsError):
            found.fetch(base, tmp_path / "0")
        assert (tmp_path / "0").read_bytes() == OWN
        with pytest.raises(FileNotFoundError):
            found.fetch(base, tmp_path / "no" / "0")
        with full_disk(), pytest.raises(OSError, match="File too large"):
            found.fetch(base, tmp_path / "x")
        other = Descriptor(media_type="", digest=sha256_bytes(b""), size=0)
        with pytest.raises(ImageError, match="is no layer of this image"):
            found.fetch(other, tmp_path / "x")
        with pytest.raises(ImageError, match=f"has {len(BASE)} bytes, not 1"):
            found.fetch(
                Descriptor(media_type="", digest=base.digest, size=1),
                tmp_path / "x",
            )
        assert not (tmp_path / "x").exists()
    found.close()


@pytest.mark.parametrize(
    "data",
    [
        tar(IMAGE.oci()),
        tar(IMAGE.saved()),
        ROOT,
        COMPRESSIONS["gzip"](ROOT),
        COMPRESSIONS["zstd"](ROOT),
    ],
    ids=range(5),
)
def test_cancelled(data: bytes, tmp_path: Path) -> None:
    """Neither opening nor fetching goes on in a run that was cancelled."""
    path = file(tmp_path, data)
    cancelled = threading.Event()
    with open_archive(path, PLATFORM, cancelled=cancelled) as found:
        cancelled.set()
        with pytest.raises(ImageError, match=r"^cancelled$"):
            found.fetch(found.content.layers[0], tmp_path / "layer")
        assert not (tmp_path / "layer").exists()
    with pytest.raises(ImageError, match=r"^cancelled$"):
        open_archive(path, PLATFORM, cancelled=cancelled)


def handles() -> int:
    """Return how many files are open."""
    return len([*Path("/proc/self/fd").iterdir()])


class Later(threading.Event):
    """An event that is set when it has been asked some times."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.times = times

    def is_set(self) -> bool:
        self.times -= 1
        return self.times < 0


@pytest.mark.parametrize("data", [tar(IMAGE.saved()), COMPRESSIONS["zstd"](ROOT * 50)])
def test_cancelled_at_any_time(data: bytes, tmp_path: Path) -> None:
    """Wherever opening is cancelled, it ends there and leaves no handle open."""
    path = file(tmp_path, data)
    before = handles()
    times = 0
    while True:
        try:
            open_archive(path, PLATFORM, cancelled=Later(times)).close()
        except ImageError as error:
            assert error.message == "cancelled"  # noqa: PT017  # which one says how far it came
            times += 1
        else:
            break
    assert times > 5
    assert handles() == before


@pytest.mark.parametrize("case", ["file", "folder", "no layout", "gzip", "no gzip"])
def test_handles(case: str, tmp_path: Path) -> None:
    """Every handle is given back, of archives that are read and of those that are refused."""
    paths = {
        "file": lambda: file(tmp_path, IMAGE.oci()),
        "folder": lambda: unpacked(tmp_path, IMAGE.oci()),
        "no layout": lambda: unpacked(tmp_path, without(IMAGE.oci(), OWN_BLOB)),
        "gzip": lambda: file(tmp_path, gzip.compress(ROOT)),
        "no gzip": lambda: file(tmp_path, gzip.compress(ROOT)[:50]),
    }
    path = paths[case]()
    before = handles()
    if case.startswith("no"):
        refused(path)
    else:
        opened(path)
        found = open_archive(path, PLATFORM, cancelled=threading.Event())
        found.close()
        found.close()
    assert handles() == before


def test_large_archives_are_read_where_they_are(tmp_path: Path) -> None:
    """A sparse file of 20 GiB with an image at its end is opened without reading it."""
    path = tmp_path / "image"
    with path.open("wb") as out:
        out.write(header(b"large", size=b"\x80" + (20 << 30).to_bytes(11)))
        out.seek(20 << 30, os.SEEK_CUR)
        out.write(tar(IMAGE.oci()))
    assert opened(path)[1] == [BASE, OWN]


NAMES = st.text(
    st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=300
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(
    members=st.lists(st.tuples(NAMES, st.binary(max_size=1500) | NAMES.map(lambda n: f"-> {n}"))),
    form=st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
)
def test_entries_are_those_of_tarfile(
    members: list[tuple[str, Content]], form: int, tmp_path: Path
) -> None:
    """Names, places and sizes are those that the standard library finds."""
    path = file(tmp_path, tar(members, form))
    with tarfile.open(path) as made, path.open("rb") as opened_file:
        size = path.stat().st_size
        try:
            found = list(tarfiles._entries(opened_file.fileno(), size, threading.Event()))
        except LayoutError:
            assert not members
            return
        assert [(each.name.rstrip("/"), each.start, each.size) for each in found] == [
            (each.name.rstrip("/"), each.offset_data, each.size) for each in made
        ]
        assert [each.link for each in found] == [each.linkname for each in made]


def test_sparse_members(tmp_path: Path) -> None:
    """GNU tar's sparse members are passed over with all their maps."""
    first = bytearray(header(b"sparse", b"S", b"1000"))
    first[482] = 1
    first[148:156] = b" " * 8
    first[148:156] = b"%06o\0 " % sum(first)
    maps = bytes(504) + b"\1" + bytes(7) + bytes(512)
    data = bytes(first) + maps + bytes(512) + tar(IMAGE.oci())
    assert opened(file(tmp_path, data))[1] == [BASE, OWN]


def test_old_tars(tmp_path: Path) -> None:
    """A folder of a tar from before 1988 is a file whose name ends with a slash."""
    data = header(b"etc/", b"\0", b"1000") + tar({"x": b""})
    content, layers = opened(file(tmp_path, data))
    assert (content.env, layers) == ((), [data])


WHOLE = [tar(IMAGE.oci()), tar(IMAGE.saved(), tarfile.PAX_FORMAT), gzip.compress(ROOT), ROOT]
WHOLE.append(COMPRESSIONS["zstd"](tar(IMAGE.saved())))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
@given(data=st.sampled_from(WHOLE), draw=st.data())
def test_damage(data: bytes, draw: st.DataObject, tmp_path: Path) -> None:
    """A changed or cut archive is read or refused; what is read is what its digests say."""
    changed = bytearray(data)
    for at in draw.draw(st.lists(st.integers(0, len(data) - 1), max_size=4)):
        changed[at] = draw.draw(st.integers(0, 255))
    end = draw.draw(st.none() | st.integers(0, len(data)))
    path = file(tmp_path, bytes(changed[:end]))
    try:
        content, layers = opened(path)
    except ImageError as error:
        assert error.message.startswith(str(tmp_path))  # noqa: PT017  # its words
        return
    found = [f"sha256:{hashlib.sha256(each).hexdigest()}" for each in layers]
    assert found == [layer.digest for layer in content.layers]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=3000))
def test_anything(data: bytes, tmp_path: Path) -> None:
    """Bytes of no kind are refused."""
    refused(file(tmp_path, data))
