"""What is known of images: read once, kept, and the same when it comes back."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

import pytest

from nox_variants.engines.inspection import Inspector
from nox_variants.model import Digest
from nox_variants.results import Sizes, VariantImage
from nox_variants.store import Store

if TYPE_CHECKING:
    from pathlib import Path

IMAGE = VariantImage(
    config_digest=Digest(f"sha256:{1:064}"),
    tag="hello:x",
    path="",
    layers=(),
    sizes=Sizes(binary=1, content=1, above_base=1),
    cmd=("/run.sh",),
)


def unread() -> NoReturn:
    """Fail: what is known is not read again."""
    raise AssertionError


@pytest.fixture
def lower(tmp_path: Path) -> tuple[Path, ...]:
    """A root with users and name services, and a layer with a script on top."""
    base, layer = tmp_path / "base", tmp_path / "layer"
    (base / "etc").mkdir(parents=True)
    (base / "etc/passwd").write_text("root:x:0:0::/:\nme:x:1:1::/:\n")
    (base / "etc/nsswitch.conf").write_text("hosts: files dns\n")
    layer.mkdir()
    (layer / "run.sh").write_text("#!/bin/sh -e\n")
    (layer / "run.sh").chmod(0o755)
    return base, layer


def test_kept_in_the_store(tmp_path: Path, lower: tuple[Path, ...]) -> None:
    """Another process reads nothing, and knows the same."""
    store = Store(tmp_path / "home")
    facts = Inspector(store).facts(IMAGE, lambda: lower)

    assert facts.root.users == {"root", "me"}
    assert facts.root.hosts == ("files", "dns")
    assert [step.path for step in facts.startup.steps] == ["/run.sh", "/bin/sh"]
    assert Inspector(store).facts(IMAGE, unread) == facts


def test_damaged_answers_are_read_again(tmp_path: Path, lower: tuple[Path, ...]) -> None:
    """What was cut off in the store is read from the image."""
    store = Store(tmp_path / "home")
    facts = Inspector(store).facts(IMAGE, lambda: lower)
    (file,) = (tmp_path / "home" / "facts").rglob("inspected.json")
    file.write_bytes(file.read_bytes()[:-9])

    assert Inspector(store).facts(IMAGE, lambda: lower) == facts


def test_a_layer_with_folders_changes_the_root(tmp_path: Path, lower: tuple[Path, ...]) -> None:
    """The facts of a base are not those of an image that brings more than programs."""
    base, layer = lower
    (layer / "etc").mkdir()
    (layer / "etc/nsswitch.conf").write_text("hosts: files\n")

    assert Inspector(Store(tmp_path / "home")).facts(IMAGE, lambda: (base, layer)).root.hosts == (
        "files",
    )
