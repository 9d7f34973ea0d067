"""Images as OCI layouts in the store, for builders that do not see the daemon's."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from nox_variants import usage
from nox_variants.engines.docker import layouts
from nox_variants.engines.docker.connection import DaemonError
from nox_variants.engines.docker.layouts import Layouts
from nox_variants.errors import ImageError, LayoutError
from nox_variants.model import SourceKind
from nox_variants.oci import image as oci
from nox_variants.oci import layout
from nox_variants.oci.digest import hex_of, sha256_bytes
from nox_variants.oci.layer import BLOCK, header
from nox_variants.oci.layout import LayerBlob
from nox_variants.oci.validation import validate
from nox_variants.results import PreparedImage
from nox_variants.store import Store
from nox_variants.verification import verify

if TYPE_CHECKING:
    from collections.abc import Iterator

    from docker.models.images import Image as DockerImage

HOST = "linux/amd64"
TAR = header("file", 3) + b"hi\n" + bytes(BLOCK - 3) + bytes(2 * BLOCK)
LAYER = sha256_bytes(TAR)
IMAGE = PreparedImage(
    name="gcc",
    kind=SourceKind.APT,
    reference="gcc",
    digest=LAYER,
    stand_in=True,
    layers=(LAYER,),
    layer_sizes=(len(TAR),),
    env=(("A", "b"),),
    user="nobody",
)


@pytest.fixture
def store(home: Path) -> Iterator[Store]:
    """A store of the test's own."""
    made = Store(home)
    yield made
    made.close()


@pytest.fixture
def made(store: Store) -> Layouts:
    """The layouts of that store."""
    return Layouts(store=store, cancelled=threading.Event())


def layers(data: bytes = TAR) -> list[LayerBlob]:
    return [LayerBlob(diff_id=LAYER, size=len(TAR), write=lambda out: out.write(data))]


def opened(where: str) -> tuple[Path, dict[str, Any], dict[str, Any]]:
    """Return a layout's folder, manifest and configuration, as ``--build-context`` names them."""
    place, _, digest = where.removeprefix("oci-layout://").partition("@")
    folder = Path(place)
    validate(folder)
    manifest = json.loads((folder / layout.BLOBS / hex_of(digest)).read_bytes())
    config = (folder / layout.BLOBS / hex_of(manifest["config"]["digest"])).read_bytes()
    return folder, manifest, json.loads(config)


def test_of_the_store(made: Layouts) -> None:
    """A stand-in's layout has its layer, its environment, and says what it is."""
    folder, manifest, config = opened(made.of_store(IMAGE, HOST, layers))

    assert [each["digest"] for each in manifest["layers"]] == [LAYER]
    assert (folder / layout.BLOBS / hex_of(LAYER)).read_bytes() == TAR
    assert config["config"]["Env"] == ["A=b"]
    assert config["config"]["User"] == "nobody"
    assert config["config"]["Labels"] == {
        "nox-variants.stand-in": "gcc",
        "nox-variants.digest": LAYER,
    }
    assert config == json.loads(layouts.configuration(IMAGE, HOST))


def test_written_once(made: Layouts) -> None:
    """What is there is not written again; another configuration is another layout."""
    asked = []

    def counted() -> list[LayerBlob]:
        asked.append(1)
        return layers()

    first = made.of_store(IMAGE, HOST, counted)
    assert made.of_store(IMAGE, HOST, counted) == first
    assert len(asked) == 1
    assert made.of_store(IMAGE, "linux/arm64", counted) != first
    assert len(asked) == 2


def test_layer_that_is_not_what_it_was(made: Layouts, store: Store) -> None:
    """A layer that came out as another one leaves no layout."""
    with pytest.raises(LayoutError, match="came out as"):
        made.of_store(IMAGE, HOST, lambda: layers(b"other"))
    assert [*store.home.glob("layouts/*")] == []


def saved(folder: Path, **attrs: Any) -> DockerImage:
    """Return an image as the SDK has it, which the daemon saves."""
    config = oci.config((LAYER,), cmd=(), env=(), workdir="/", created=0, platform=HOST)
    manifest = oci.manifest(config, [(LAYER, len(TAR))])
    file = folder / "image.tar"
    layout.write_archive(
        file, tag="a:b", config=config, manifest=manifest, layers=layers(), docker=True
    )
    values = {
        "Os": "linux",
        "Architecture": "amd64",
        "Variant": "",
        "Created": "2026-01-01T00:00:00Z",
        "Config": {"Env": ["A=b"], "StopSignal": "SIGINT", "Labels": {"mine": "1"}},
        **attrs,
    }
    image = SimpleNamespace(id="sha256:1", attrs=values, save=lambda **_: iter([file.read_bytes()]))
    return cast("DockerImage", image)


def test_of_the_daemon(made: Layouts, tmp_path: Path) -> None:
    """What only a daemon has keeps all of its configuration, and its layers."""
    folder, manifest, config = opened(made.of_daemon(saved(tmp_path)))

    assert [(each["digest"], each["size"]) for each in manifest["layers"]] == [(LAYER, len(TAR))]
    assert (folder / layout.BLOBS / hex_of(LAYER)).read_bytes() == TAR
    assert config == {
        "os": "linux",
        "architecture": "amd64",
        "created": "2026-01-01T00:00:00Z",
        "config": {"Env": ["A=b"], "StopSignal": "SIGINT", "Labels": {"mine": "1"}},
        "rootfs": {"type": "layers", "diff_ids": [LAYER]},
    }


def test_of_another_platform(made: Layouts, store: Store, tmp_path: Path) -> None:
    """What the daemon saves has to be the image that it told of."""
    with pytest.raises(ImageError, match="is not made for linux/arm64"):
        made.of_daemon(saved(tmp_path, Architecture="arm64"))
    assert [*store.home.glob("layouts/*")] == []


@pytest.mark.parametrize("name", ["a:b", "a@b"])
def test_place_that_buildx_misreads(name: str, tmp_path: Path) -> None:
    """A colon or an at sign would end the path: nothing is written then."""
    store = Store(tmp_path / name)
    made = Layouts(store=store, cancelled=threading.Event())

    with pytest.raises(DaemonError, match="cannot be given to buildx"):
        made.of_store(IMAGE, HOST, layers)
    assert not (tmp_path / name / "layouts").exists()
    store.close()


def test_kept_in_order(made: Layouts, store: Store) -> None:
    """The store can tell whether a layout is whole, and remove it."""
    folder, _, _ = opened(made.of_store(IMAGE, HOST, layers))
    assert [part.path for part in usage.parts(store.home) if part.kind == "layouts"] == [folder]
    assert [each.damage for each in verify(store) if each.kind == "layouts"] == [""]

    (folder / layout.BLOBS / hex_of(LAYER)).write_bytes(b"other")

    (found,) = (each for each in verify(store) if each.kind == "layouts")
    assert found.damage.startswith(f"blob {hex_of(LAYER)} has the digest")
    assert not folder.exists()
