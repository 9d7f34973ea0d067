"""What is known of images: read once, kept, and the same when it comes back."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NoReturn

import pytest

from nox_variants.engines.inspection import Files, Inspector
from nox_variants.model import Digest
from nox_variants.results import FileFacts, Linkage, Sizes, Startup, Step, VariantImage
from nox_variants.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable
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


def files(*layers: Path, root: Callable[[], Path] = unread, **artifacts: FileFacts) -> Files:
    """Return an image's files; its base is read only where `root` says where it is."""
    known = {f"/{name}": facts for name, facts in artifacts.items()}
    return Files(base=Digest(f"sha256:{2:064}"), root=root, layers=layers, artifacts=known)


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
    base, layer = lower
    store = Store(tmp_path / "home")
    facts = Inspector(store).facts(IMAGE, files(layer, root=lambda: base))

    assert facts.root.users == {"root", "me"}
    assert facts.root.hosts == ("files", "dns")
    assert [step.path for step in facts.startup.steps] == ["/run.sh", "/bin/sh"]
    assert Inspector(store).facts(IMAGE, files(layer)) == facts


def test_damaged_answers_are_read_again(tmp_path: Path, lower: tuple[Path, ...]) -> None:
    """What was cut off in the store is read from the image."""
    base, layer = lower
    store = Store(tmp_path / "home")
    facts = Inspector(store).facts(IMAGE, files(layer, root=lambda: base))
    for file in (tmp_path / "home" / "facts").rglob("inspected.json"):
        file.write_bytes(file.read_bytes()[:-9])

    assert Inspector(store).facts(IMAGE, files(layer, root=lambda: base)) == facts


def test_a_layer_with_folders_changes_the_root(tmp_path: Path, lower: tuple[Path, ...]) -> None:
    """The facts of a base are not those of an image that brings more than programs."""
    base, layer = lower
    (layer / "etc").mkdir()
    (layer / "etc/nsswitch.conf").write_text("hosts: files\n")

    facts = Inspector(Store(tmp_path / "home")).facts(IMAGE, files(layer, root=lambda: base))

    assert facts.root.hosts == ("files",)


def test_a_static_program_says_all_itself(tmp_path: Path, lower: tuple[Path, ...]) -> None:
    """How it starts takes no look at its base; what the base offers is known from another image."""
    base, layer = lower
    store = Store(tmp_path / "home")
    image = replace(IMAGE, config_digest=Digest(f"sha256:{3:064}"), cmd=("/hello",))
    static = FileFacts(linkage=Linkage.STATIC, imports=("getpwuid",))
    (layer / "hello").touch(0o755)
    Inspector(store).facts(IMAGE, files(layer, root=lambda: base))

    facts = Inspector(store).facts(image, files(layer, hello=static))

    assert facts.startup == Startup(
        steps=(Step(path="/hello", facts=static, executable=True),), imports=("getpwuid",)
    )
    assert facts.root.users == {"root", "me"}
