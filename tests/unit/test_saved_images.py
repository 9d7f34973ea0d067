"""What a daemon saved of an image, read on its way out: the recorded one, or none."""

from __future__ import annotations

import io
import tarfile
import threading
from typing import TYPE_CHECKING, Any

import pytest

import registries
from nox_variants.engines.docker.outgoing import archived
from nox_variants.errors import ImageError
from nox_variants.model import Digest
from nox_variants.oci import image, layout
from nox_variants.oci.digest import canonical_json, hex_of, sha256_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from nox_variants.images.packing import Outgoing

PLATFORM = "linux/amd64"
LAYER = b"".ljust(10240, b"\0")  # an empty tar
CONFIG = canonical_json(registries.configuration([LAYER]))
MANIFEST = image.manifest(CONFIG, [(sha256_bytes(LAYER), len(LAYER))])
OTHER = canonical_json(registries.configuration([LAYER], created="2026-11-29T00:00:00Z"))
MISSING = sha256_bytes(b"an image of another platform")


def entry(digest: str, size: int = 1, architecture: str = "amd64") -> dict[str, Any]:
    """Return an entry of an index."""
    platform = {"os": "linux", "architecture": architecture}
    described = {"mediaType": registries.MANIFEST, "digest": digest, "size": size}
    return {**described, "platform": platform}


INDEX = canonical_json(
    {
        "schemaVersion": 2,
        "mediaType": registries.INDEX,
        "manifests": [
            entry(MISSING, architecture="arm64"),
            entry(sha256_bytes(MANIFEST), len(MANIFEST)),
        ],
    }
)


def blob(data: bytes) -> str:
    """Return where a blob is."""
    return f"{layout.BLOBS}/{hex_of(sha256_bytes(data))}"


def saved(file: Path, *documents: bytes, config: bytes = CONFIG, **files: bytes) -> Path:
    """Write what `docker save` writes: a layout, and a manifest.json beside it."""
    stated = [{"Config": blob(config), "RepoTags": None, "Layers": [blob(LAYER)]}]
    listed = {"schemaVersion": 2, "manifests": [entry(sha256_bytes(MANIFEST), len(MANIFEST))]}
    members: Mapping[str, bytes] = {
        "oci-layout": layout.MARKER,
        "index.json": canonical_json(listed),
        "manifest.json": canonical_json(stated),
        **{blob(each): each for each in (LAYER, CONFIG, MANIFEST, config, *documents)},
        **files,
    }
    with tarfile.open(file, "w") as made:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            made.addfile(member, io.BytesIO(data))
    return file


def read(file: Path, identity: str) -> Outgoing:
    """Return the image that a file has, with its layers read."""
    with archived(file, Digest(identity), PLATFORM, cancelled=threading.Event()) as found:
        for layer in found.layers:
            out = io.BytesIO()
            layer.write(out)
            assert out.getvalue() == LAYER
        return found


@pytest.mark.parametrize("identity", [CONFIG, MANIFEST, INDEX], ids=["config", "manifest", "index"])
def test_identity(tmp_path: Path, identity: bytes) -> None:
    """An image's id is the digest of its configuration, or what containerd has in its place."""
    found = read(saved(tmp_path / "saved.tar", INDEX), sha256_bytes(identity))

    assert found.config == CONFIG
    assert [each.diff_id for each in found.layers] == [sha256_bytes(LAYER)]


UNRELATED = image.manifest(OTHER, [(sha256_bytes(LAYER), len(LAYER))])


@pytest.mark.parametrize(
    "identity",
    [
        OTHER,
        UNRELATED,
        canonical_json({"schemaVersion": 2, "manifests": [entry(MISSING)]}),
        canonical_json({"schemaVersion": 2, "manifests": [entry(sha256_bytes(UNRELATED))]}),
        canonical_json({"schemaVersion": 2, "manifests": [1]}),
        canonical_json({"schemaVersion": 2, "manifests": [{"digest": "../../etc"}]}),
        canonical_json({"config": "none"}),
        b"no document",
    ],
    ids=["config", "manifest", "missing", "index", "number", "path", "text", "bytes"],
)
def test_another_image(tmp_path: Path, identity: bytes) -> None:
    """What is in the file is not enough: the id has to lead to the configuration."""
    file = saved(tmp_path / "saved.tar", identity, UNRELATED)

    with pytest.raises(ImageError, match="what the daemon saved is not it"):
        read(file, sha256_bytes(identity))


def test_an_identity_that_is_not_there(tmp_path: Path) -> None:
    """A file without the recorded image is another one."""
    with pytest.raises(ImageError, match="it is another image"):
        read(saved(tmp_path / "saved.tar"), MISSING)


def test_damaged_identity(tmp_path: Path) -> None:
    """A manifest that is not what its digest says leads nowhere."""
    file = saved(tmp_path / "saved.tar", **{blob(INDEX): MANIFEST})

    with pytest.raises(ImageError, match="its content has the digest"):
        read(file, sha256_bytes(INDEX))


def test_other_layers(tmp_path: Path) -> None:
    """A configuration of other layers than those that are there is refused."""
    wrong = canonical_json(registries.configuration([LAYER, b"more"]))
    file = saved(tmp_path / "saved.tar", config=wrong)

    with pytest.raises(ImageError, match="its configuration has other layers"):
        read(file, sha256_bytes(wrong))
