"""Files of images that are damaged or lie, with the words that refuse them."""

from __future__ import annotations

import gzip
import re
from typing import TYPE_CHECKING, Any

from imagefiles import (
    AMD_ENTRY,
    ARM_ENTRY,
    ATTESTATION,
    BASE,
    BASE_BLOB,
    COMPRESSIONS,
    CONFIG_BLOB,
    END,
    FLIPPED,
    HEX,
    IMAGE,
    MANIFEST_BLOB,
    OWN,
    OWN_BLOB,
    PLATFORM,
    ROOT,
    Content,
    Image,
    blobs,
    config,
    configured,
    entry,
    header,
    index,
    manifested,
    nested,
    on,
    raw_pax,
    record,
    stated,
    tar,
    without,
)
from nox_variants.images.content import INDEXES, MANIFESTS
from nox_variants.oci import image
from nox_variants.oci.digest import sha256_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping

MISNAMED = index(AMD_ENTRY, mediaType=MANIFESTS[0])


def foreign(data: bytes) -> dict[str, Any]:
    """Return a layer that somebody else is to be asked for."""
    media_type = "application/vnd.oci.image.layer.nondistributable.v1.tar"
    return entry(data, media_type, urls=["https://example.com/layer", "file:///etc/passwd"])


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
    "manifest that calls itself an index": (
        manifested(mediaType=INDEXES[0]),
        "manifests: not a list: None",
    ),
    "manifest that is an index as well": (
        manifested(manifests=[AMD_ENTRY]),
        "manifest: has manifests beside its layers",
    ),
    "index that calls itself a manifest": (
        {**IMAGE.oci(entry(MISNAMED, INDEXES[0])), **blobs(MISNAMED)},
        "manifest: has manifests beside its layers",
    ),
    "manifest that is a layer": (IMAGE.oci(entry(OWN)), f"{sha256_bytes(OWN)}: is no JSON"),
    "config that is a layer": (manifested(config=entry(OWN)), f"{sha256_bytes(OWN)}: is no JSON"),
    "config of something else": (configured(rootfs={}), "diff_ids: not a list: None"),
    "config no descriptor": (manifested(config="x"), "descriptor: not an object: 'x'"),
    "encrypted layers": (
        manifested(layers=[entry(OWN, f"{image.LAYER}+encrypted")]),
        f"layer {sha256_bytes(OWN)}: media type '.*encrypted'",
    ),
    "layer type in capitals": (manifested(layers=[entry(OWN, image.LAYER.upper())]), "media type"),
    "layer without a type": (manifested(layers=[entry(OWN, "")]), "media type ''"),
    "layer from elsewhere": (
        without(manifested(layers=[foreign(BASE), foreign(OWN)]), OWN_BLOB),
        f"{HEX['own']}'?: is missing",
    ),
    "too many layers": (manifested(layers=[entry(OWN)] * 501), "layers: 501 entries, more than"),
    "odd diff ids": (configured(rootfs={"diff_ids": [1, None]}), "not a sha256 digest: 1"),
    "diff ids of another kind": (
        configured(rootfs={"diff_ids": ["sha512:" + "0" * 128] * 2}),
        "not a sha256 digest: 'sha512:",
    ),
    "environment without a name": (configured(config={"Env": ["=x"]}), "no NAME=VALUE: '=x'"),
    "environment with a null byte": (
        configured(config={"Env": ["A=b\0c"]}),
        r"no NAME=VALUE: 'A=b\\x00c'",
    ),
    "for Windows": (configured(os="windows"), "only for windows/amd64"),
    **{
        f"size {size!r}": (
            manifested(layers=[{**entry(OWN, image.LAYER), "size": size}]),
            f"descriptor: size: not a size: {re.escape(repr(size))}",
        )
        for size in (-1, True, 1.5, "7", None, 1 << 60, [1])
    },
    **{
        f"digest {digest[:10]!r} of {len(digest)}": (
            IMAGE.oci({"digest": digest, "size": 1}),
            "digest: not a sha256 digest: ",
        )
        for digest in (
            "",
            "sha256:",
            f"sha256:{'A' * 64}",
            f"sha256:{'0' * 63}",
            f"sha256:{'0' * 64}\n",
            f"sha256:{'0' * 62}/.",
            f"md5:{'0' * 32}",
        )
    },
    "deep index": (
        {**IMAGE.oci(), "index.json": b'{"manifests":' + b"[" * 940 + b"]" * 940 + b"}"},
        "descriptor: not an object|is nested too deeply|is no JSON",
    ),
}
"""OCI layouts, as a tar or as a folder; the words are patterns."""

SWAPPED = {"type": "layers", "diff_ids": [sha256_bytes(OWN), sha256_bytes(BASE)]}

UNPACKED: dict[str, tuple[Mapping[str, Content], str]] = {
    "other diff ids": (
        configured(rootfs=SWAPPED),
        f"layer {sha256_bytes(BASE)} holds {sha256_bytes(BASE)}, its configuration says",
    ),
    "layer that is a manifest": (
        manifested(layers=[entry(IMAGE.manifest, image.LAYER)] * 2),
        f"layer {sha256_bytes(IMAGE.manifest)}: the layer is no tar",
    ),
    "layer that is the archive's own index": (
        Image(index(AMD_ENTRY), OWN).oci(),
        "the layer is no tar",
    ),
}
"""Layouts that only their layers' content shows to be wrong."""

SAVED: dict[str, tuple[Mapping[str, Content], str]] = {
    "no JSON": ({**stated(), "manifest.json": b"["}, "manifest.json: is no JSON"),
    "too deep": ({**stated(), "manifest.json": b"[" * 100_000}, "manifest.json: is no JSON"),
    "no list": ({**stated(), "manifest.json": b"{}"}, "manifest.json: not a list of objects"),
    "no objects": ({**stated(), "manifest.json": b"[1]"}, "manifest.json: not a list of objects"),
    "no image": ({**stated(), "manifest.json": b"[]"}, "manifest.json: has no image"),
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
"""What `docker save` would not write."""

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
"""Files that are no tar of an image."""
