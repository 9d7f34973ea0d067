"""Images out of files: every kind, told apart by content, and files that lie."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import random
import resource
import sys
import tarfile
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nox_variants.errors import ImageError, LayoutError
from nox_variants.images import archive, tarfiles
from nox_variants.images.archive import open_archive
from nox_variants.images.content import INDEXES, MANIFESTS, Descriptor, ImageContent
from nox_variants.oci import image, layout
from nox_variants.oci.digest import canonical_json, hex_of, sha256_bytes
from nox_variants.oci.layout import LayerBlob

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

PLATFORM = "linux/amd64"
TAG = "hello:1"
Content = bytes | str | None
"""A member of a tar: a file's bytes, `-> TARGET`, `= TARGET` for a hard link, None for a folder."""


def tar(
    members: Mapping[str, Content] | list[tuple[str, Content]],
    form: int = tarfile.GNU_FORMAT,
) -> bytes:
    """Return a tar."""
    out = io.BytesIO()
    pairs = members if isinstance(members, list) else list(members.items())
    with tarfile.open(fileobj=out, mode="w", format=form) as made:
        for name, value in pairs:
            entry = tarfile.TarInfo(name)
            data = value if isinstance(value, bytes) else b""
            entry.size = len(data)
            if value is None:
                entry.type = tarfile.DIRTYPE
            elif isinstance(value, str):
                kind, _, entry.linkname = value.partition(" ")
                entry.type = tarfile.SYMTYPE if kind == "->" else tarfile.LNKTYPE
            made.addfile(entry, io.BytesIO(data))
    return out.getvalue()


BASE = tar({"etc/": None, "etc/motd": b"base"})
OWN = tar({"hello": b"own" * 1000})
ROOT = tar({"./": None, "./bin": "-> usr/bin", "./usr/": None, "./usr/sh": b"#!"})


def config(*layers: bytes, platform: str = PLATFORM, env: str = "x") -> bytes:
    return image.config(
        [sha256_bytes(each) for each in layers],
        cmd=["/hello"],
        env=(("PATH", env),),
        workdir="/",
        created=0,
        platform=platform,
    )


def entry(data: bytes, media_type: str = MANIFESTS[0], **more: Any) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": sha256_bytes(data), "size": len(data), **more}


def on(platform: str) -> dict[str, Any]:
    words = zip(("os", "architecture", "variant"), platform.split("/"), strict=False)
    return {"platform": dict(words)}


def named(name: str) -> dict[str, Any]:
    return {"annotations": {layout.REF_NAME: name}}


def index(*entries: object, **more: Any) -> bytes:
    return canonical_json({"schemaVersion": 2, "manifests": list(entries), **more})


class Image:
    """An image's documents and blobs."""

    def __init__(self, *layers: bytes, platform: str = PLATFORM, env: str = "x") -> None:
        self.layers = layers
        self.config = config(*layers, platform=platform, env=env)
        self.manifest = image.manifest(
            self.config, [(sha256_bytes(each), len(each)) for each in layers]
        )

    def blobs(self) -> dict[str, Content]:
        return blobs(self.config, self.manifest, *self.layers)

    def oci(self, *entries: object) -> dict[str, Content]:
        """Return an OCI layout's files."""
        listed = index(*(entries or [entry(self.manifest)]))
        return {"oci-layout": layout.MARKER, "index.json": listed, **self.blobs()}

    def saved(self, **more: Any) -> dict[str, Content]:
        """Return what `docker save` wrote for years."""
        names = [f"{at:064x}/layer.tar" for at in range(len(self.layers))]
        stated = {"Config": self.config_name, "RepoTags": [TAG], "Layers": names, **more}
        files = dict(zip(names, self.layers, strict=True))
        return {self.config_name: self.config, **files, "manifest.json": canonical_json([stated])}

    @property
    def config_name(self) -> str:
        return f"{hex_of(sha256_bytes(self.config))}.json"


def blobs(*data: bytes) -> dict[str, Content]:
    return {f"blobs/sha256/{hex_of(sha256_bytes(each))}": each for each in data}


IMAGE = Image(BASE, OWN)
OTHER = Image(BASE, env="other")
ARM = Image(OWN, platform="linux/arm64/v8")


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
COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    "tar": bytes,
    "gzip": gzip.compress,
    "gzip in parts": lambda data: gzip.compress(data[:700]) + gzip.compress(data[700:]),
    "zstd": zstandard.ZstdCompressor().compress,
    "zstd in parts": lambda data: b"".join(
        zstandard.ZstdCompressor().compress(each) for each in (data[:700], data[700:])
    ),
    "zstd without a size": lambda data: zstandard.ZstdCompressor(write_content_size=False).compress(
        data
    ),
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


ARM_ENTRY = entry(ARM.manifest, **on("linux/arm64/v8"))
AMD_ENTRY = entry(IMAGE.manifest, **on(PLATFORM))
ATTESTATION = entry(b"no such blob", **on("unknown/unknown"))
BOTH = {**IMAGE.blobs(), **ARM.blobs()}


def nested(*entries: dict[str, Any], depth: int = 1) -> dict[str, Content]:
    """Return a layout whose index has an index, and so on."""
    files: dict[str, Content] = {**BOTH, "oci-layout": layout.MARKER}
    listed = index(*entries, mediaType=INDEXES[0])
    for _ in range(depth):
        files |= blobs(listed)
        listed = index(entry(listed, INDEXES[0]))
    return {**files, "index.json": listed}


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


def without(files: Mapping[str, Content], *parts: str) -> dict[str, Content]:
    return {name: data for name, data in files.items() if not any(part in name for part in parts)}


def stated(**values: Any) -> dict[str, Content]:
    return IMAGE.saved(**values)


def manifested(**values: Any) -> dict[str, Content]:
    """Return a layout whose manifest has other values."""
    data = canonical_json({**json.loads(IMAGE.manifest), **values})
    return {**IMAGE.oci(entry(data)), **blobs(data)}


def configured(**values: Any) -> dict[str, Content]:
    """Return a layout whose configuration has other values."""
    data = canonical_json({**json.loads(IMAGE.config), **values})
    return {**manifested(config=entry(data)), **blobs(data)}


HEX = {"base": hex_of(sha256_bytes(BASE)), "own": hex_of(sha256_bytes(OWN))}
BASE_BLOB, OWN_BLOB = (f"blobs/sha256/{HEX[name]}" for name in ("base", "own"))
MANIFEST_BLOB = f"blobs/sha256/{hex_of(sha256_bytes(IMAGE.manifest))}"
CONFIG_BLOB = f"blobs/sha256/{hex_of(sha256_bytes(IMAGE.config))}"
FLIPPED = bytes([OWN[0] ^ 1]) + OWN[1:]

LAYOUTS: dict[str, tuple[Mapping[str, Content], str]] = {
    "no index": (without(IMAGE.oci(), "index"), "index.json'?: is missing"),
    "other version": (
        {**IMAGE.oci(), "oci-layout": b'{"imageLayoutVersion":"2.0.0"}'},
        "oci-layout: version '2.0.0'",
    ),
    "marker no JSON": ({**IMAGE.oci(), "oci-layout": b"1.0.0"}, "oci-layout: document: is no JSON"),
    "marker a list": ({**IMAGE.oci(), "oci-layout": b"[]"}, "is no JSON object"),
    "index too large": ({**IMAGE.oci(), "index.json": bytes(5 << 20)}, "5242880 bytes, more"),
    "index too deep": (
        {**IMAGE.oci(), "index.json": b"[" * 100_000},
        "index.json: document: is no JSON",
    ),
    "index without manifests": ({**IMAGE.oci(), "index.json": b"{}"}, "manifests: not a list"),
    "no images": ({**IMAGE.oci(), "index.json": index()}, "index.json: has no image"),
    "only an attestation": (IMAGE.oci(ATTESTATION), "index.json: has no image"),
    "too many images": (
        IMAGE.oci(*[entry(b"%d" % at, **on(PLATFORM)) for at in range(1001)]),
        "1001 entries, more than 1000",
    ),
    "entry no object": (IMAGE.oci("x"), "descriptor: not an object: 'x'"),
    "odd platform": (
        IMAGE.oci(entry(b"", platform={"os": [], "architecture": {}}), ATTESTATION),
        "is missing",
    ),
    "digest a path": (
        IMAGE.oci({"digest": "sha256:../../index.json", "size": 1}),
        "not a sha256 digest: 'sha256:../../index.json'",
    ),
    "manifest missing": (without(IMAGE.oci(), MANIFEST_BLOB), "is missing"),
    "manifest wrong": (
        {**IMAGE.oci(), MANIFEST_BLOB: IMAGE.manifest[:-1] + b" "},
        f"{sha256_bytes(IMAGE.manifest)}: its content has the digest sha256:",
    ),
    "manifest longer": (
        IMAGE.oci({**entry(IMAGE.manifest), "size": 1}),
        f"{sha256_bytes(IMAGE.manifest)}: has {len(IMAGE.manifest)} bytes, not 1",
    ),
    "config missing": (without(IMAGE.oci(), CONFIG_BLOB), "is missing"),
    "config wrong": ({**IMAGE.oci(), CONFIG_BLOB: b"{}"}, f"{sha256_bytes(IMAGE.config)}: its"),
    "layer missing": (without(IMAGE.oci(), OWN_BLOB), "is missing"),
    "layer shorter": (
        {**IMAGE.oci(), OWN_BLOB: OWN[:-1]},
        f"{sha256_bytes(OWN)}: has {len(OWN) - 1} bytes, not {len(OWN)}",
    ),
    "layer wrong": (
        {**IMAGE.oci(), OWN_BLOB: FLIPPED},
        f"{sha256_bytes(OWN)}: its content has the digest {sha256_bytes(FLIPPED)}",
    ),
    "schema 1": (manifested(schemaVersion=1), "schemaVersion: 1, not 2"),
    "layers no list": (manifested(layers={}), "layers: not a list"),
    "a chart": (manifested(layers=[entry(OWN, "application/x-helm")]), "media type"),
    "a list as type": (manifested(mediaType=[1], layers=None), "layers: not a list"),
    "more layers": (manifested(layers=[]), "2 diff_ids for 0 layers"),
    "no rootfs": (configured(rootfs=None), "diff_ids: not a list"),
    "odd environment": (configured(config={"Env": {}}), "Env: not a list of texts"),
    "index without a platform": (nested(ARM_ENTRY), "only for linux/arm64/v8"),
    "index in an index in an index": (nested(AMD_ENTRY, depth=2), "under more than 2 indexes"),
    "index in itself": (nested(AMD_ENTRY, depth=9), "under more than 2 indexes"),
    "deep index": (
        {**IMAGE.oci(), "index.json": b'{"manifests":' + b"[" * 940 + b"]" * 940 + b"}"},
        "descriptor: not an object|is nested too deeply|is no JSON",
    ),
}


@pytest.mark.parametrize("where", ["file", "folder"])
@pytest.mark.parametrize("case", LAYOUTS)
def test_hostile_layouts(case: str, where: str, tmp_path: Path) -> None:
    """A layout that is not what it says is refused with what is wrong, in a tar and in a folder."""
    files, message = LAYOUTS[case]
    path = file(tmp_path, files) if where == "file" else unpacked(tmp_path, files)
    assert refused(path).args[0]
    with pytest.raises(ImageError, match=message):
        opened(path)


SAVED: dict[str, tuple[Mapping[str, Content], str]] = {
    "no JSON": ({**stated(), "manifest.json": b"["}, "manifest.json: is no JSON"),
    "too deep": ({**stated(), "manifest.json": b"[" * 100_000}, "manifest.json: is no JSON"),
    "no list": ({**stated(), "manifest.json": b"{}"}, "manifest.json: not a list of objects"),
    "no objects": ({**stated(), "manifest.json": b"[1]"}, "manifest.json: not a list of objects"),
    "no image": ({**stated(), "manifest.json": b"[]"}, "manifest.json: has no image"),
    "a folder": ({**stated(), "manifest.json": None, "x": b""}, ""),
    "config no name": (stated(Config=None), "Config, Layers: not names"),
    "layers no list": (stated(Layers="x"), "Config, Layers: not names"),
    "layers no names": (stated(Layers=[["x"]]), "Config, Layers: not names"),
    "too many layers": (stated(Layers=["x"] * 501), "501 layers, more than 500"),
    "absolute": (stated(Config="/etc/passwd"), "'/etc/passwd': leads out of the archive"),
    "absolute member": (
        {**stated(Config="/config"), "/config": IMAGE.config},
        "'/config': leads out of the archive",
    ),
    "parent": (stated(Layers=["../x", "../x"]), "'../x': leads out of the archive"),
    "parent member": (
        {**stated(Config="a/../config"), "a/../config": IMAGE.config},
        "leads out of the archive",
    ),
    "the archive itself": (stated(Config=""), "'': is missing"),
    "the whole tar": (
        {**stated(Layers=[".", "."])},
        "its content has the digest",
    ),
    "a NUL": (stated(Config="a\0b"), "is missing"),
    "half a character": (
        {**stated(), "manifest.json": b'[{"Config":"\\ud800","Layers":[]}]'},
        "is missing",
    ),
    "terminal": (stated(Config="\x1b[2J"), r"'\\x1b\[2J': is missing"),
    "link out": ({**stated(Config="c"), "c": "-> ../../etc/passwd"}, "'c': is missing"),
    "absolute link": ({**stated(Config="c"), "c": "-> /manifest.json"}, "'c': is missing"),
    "hard link out": ({**stated(Config="c"), "c": "= ../x"}, "'c': is missing"),
    "link to a folder": ({**stated(Config="c"), "c": "-> .", "d/": None}, "'c': is missing"),
    "link to itself": ({**stated(Config="c"), "c": "-> c"}, "'c': is a link that leads nowhere"),
    "two links": (
        {**stated(Config="c"), "c": "-> d", "d": "= c"},
        "'c': is a link that leads nowhere",
    ),
    "config wrong": (
        {**stated(), IMAGE.config_name: config(BASE, OWN, env="y")},
        f"{IMAGE.config_name}: its content has the digest",
    ),
    "config no JSON": ({**stated(Config="c"), "c": b"x"}, "'c': document: is no JSON"),
    "config too large": ({**stated(Config="c"), "c": bytes(5 << 20)}, "'c': 5242880 bytes, more"),
    "layer missing": (stated(Layers=["x", "y"]), "'x': is missing"),
    "one layer less": (stated(Layers=[f"{0:064x}/layer.tar"]), "2 diff_ids for 1 layers"),
    "layer wrong": (
        {**stated(), f"{1:064x}/layer.tar": FLIPPED},
        f"layer.tar': its content has the digest {sha256_bytes(FLIPPED)}, not {sha256_bytes(OWN)}",
    ),
    "layers changed about": (
        stated(Layers=[f"{at:064x}/layer.tar" for at in (1, 0)]),
        "its content has the digest",
    ),
    "blob wrong": (
        {**stated(Layers=[BASE_BLOB, OWN_BLOB]), BASE_BLOB: BASE, OWN_BLOB: gzip.compress(OWN)},
        f"'{OWN_BLOB}': its content has the digest",
    ),
    "xz": ({**stated(Layers=["x", "x"]), "x": b"\xfd7zXZ\0"}, "'x': is compressed with xz"),
    "before 1.10": (
        {"repositories": b"{}", "0/layer.tar": OWN},
        "is an archive of Docker before 1.10",
    ),
    "in a folder": (
        {f"x/{name}": data for name, data in IMAGE.oci().items()},
        "has an OCI layout in a folder: 'x/oci-layout'",
    ),
}


@pytest.mark.parametrize("case", SAVED)
def test_hostile_docker_archives(case: str, tmp_path: Path) -> None:
    """A docker-archive's names lead to its members and nowhere else, and nothing is believed."""
    files, message = SAVED[case]
    if case == "a folder":
        assert opened(file(tmp_path, files))[0].env == ()
        return
    path = file(tmp_path, files)
    assert refused(path).message.isprintable()
    with pytest.raises(ImageError, match=message):
        opened(path)


def header(name: bytes = b"x", kind: bytes = b"0", size: bytes = b"0", link: bytes = b"") -> bytes:
    """Return a header as a liar would write it."""
    block = bytearray(512)
    block[:100] = name.ljust(100, b"\0")
    block[124:136] = size.ljust(12, b"\0")
    block[148:156] = b" " * 8
    block[156:157] = kind
    block[157:257] = link.ljust(100, b"\0")
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def record(key: bytes, value: bytes) -> bytes:
    """Return pax records of one key."""
    rest = b" " + key + b"=" + value + b"\n"
    length = next(n for n in range(4, 10_000) if n == len(rest) + len(b"%d" % n))
    data = b"%d" % length + rest
    return header(kind=b"x", size=b"%o" % len(data)) + data + bytes(-len(data) % 512)


def raw_pax(data: bytes) -> bytes:
    return header(kind=b"x", size=b"%o" % len(data)) + data.ljust(512, b"\0") + header()


END = bytes(1024)
TARS: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "is empty"),
    "zeros": (bytes(10240), "is empty"),
    "a few zeros": (bytes(5), "is empty"),
    "only folders": (tar({"x/": None}), "is empty: it has no files"),
    "text": (b"hello\n" * 1000, "is no tar"),
    "short": (b"hello\n", "is no tar"),
    "half a header": (header()[:300], "is no tar"),
    "bad checksum": (header()[:-1] + b"x" + END, "is no tar"),
    "bad second header": (header() + b"x" * 512 + END, "is a damaged tar at byte 512"),
    "half a second header": (header() + header()[:100], "is a damaged tar at byte 512"),
    "size no number": (header(size=b"1e3") + END, "is no tar"),
    "size with a prefix": (header(size=b"0o7") + END, "is no tar"),
    "negative size": (header(size=b"\xff" * 12) + END, "is no tar"),
    "huge size": (header(size=b"\x80" + b"\xff" * 11) + END, "is a truncated tar"),
    "size too large": (header(size=b"7777") + END, "is a truncated tar"),
    "negative record": (record(b"size", b"-512") + header() + END, "size b'-512'"),
    "long record": (record(b"size", b"9" * 4500) + header() + END, "size b'999"),
    "record too large": (record(b"size", b"9" * 18) + header() + END, "is a truncated tar"),
    "record of nothing": (raw_pax(b"0 a=b\n"), "pax record b'0 a=b"),
    "record without end": (raw_pax(b"6 a=bc"), "pax record"),
    "record beyond the end": (raw_pax(b"99 a=b\n"), "pax record"),
    "record without a key": (raw_pax(b"6 abc\n"), "pax record"),
    "record without a length": (raw_pax(b"a=b\n"), "pax record"),
    "record with a long length": (raw_pax(b"9" * 100), "pax record"),
    "large records": (
        header(kind=b"x", size=b"%o" % (2 << 20)) + bytes(2 << 20),
        "is a hostile tar at byte 512",
    ),
    "large name": (
        header(kind=b"L", size=b"%o" % (2 << 20)) + bytes(2 << 20),
        "is a hostile tar at byte 512",
    ),
    "records beyond the end": (header(kind=b"x", size=b"777"), "ends at byte|truncated|record"),
    "gzip cut": (gzip.compress(ROOT)[:-20], "the archive is cut off: its gzip stream"),
    "gzip changed": (gzip.compress(ROOT)[:-8] + bytes(8), "the archive is damaged: gzip"),
    "gzip and more": (gzip.compress(ROOT) + b"more", "the archive is damaged: gzip"),
    "gzip of nothing": (gzip.compress(b""), "is empty"),
    "gzip only": (b"\x1f\x8b", "the archive is cut off: its gzip stream"),
    "zstd cut": (COMPRESSIONS["zstd"](ROOT)[:-3], "the archive is cut off: its zstd stream"),
    "zstd changed": (b"\x28\xb5\x2f\xfd" + b"x" * 99, "the archive is damaged: zstd"),
    "zstd and more": (COMPRESSIONS["zstd"](ROOT) + b"more", "the archive is damaged: zstd"),
    "zstd only": (b"\x28\xb5\x2f\xfd", "the archive is cut off: its zstd stream"),
    "compressed twice": (gzip.compress(gzip.compress(ROOT)), "is no tar"),
    "xz": (b"\xfd7zXZ\0", "is compressed with xz"),
    "bzip2": (b"BZh91AY", "is compressed with bzip2"),
}


@pytest.mark.parametrize("case", TARS)
def test_hostile_tars(case: str, tmp_path: Path) -> None:
    """What is no whole tar is refused, whatever its headers ask for."""
    data, message = TARS[case]
    error = refused(file(tmp_path, data))
    assert error.message.isprintable()
    with pytest.raises(ImageError, match=message):
        opened(tmp_path / "image")


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
