"""Files of images made by hand: docker-archives, OCI layouts, root filesystems."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from typing import TYPE_CHECKING, Any

import zstandard

from nox_variants.images.content import INDEXES, MANIFESTS
from nox_variants.oci import image, layout
from nox_variants.oci.digest import canonical_json, hex_of, sha256_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

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
