"""Which builder is chosen, and for how long that is remembered."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from nox_variants.engines.docker import builders
from nox_variants.store import Store

if TYPE_CHECKING:
    from pathlib import Path

    from nox_variants.engines.docker.connection import Daemon


@pytest.fixture
def tries(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """What was tried; BuildKit works with the second client only, buildx with none."""
    tried: list[tuple[str, ...]] = []

    def trial(self: builders.Client) -> str:
        tried.append(self.command)
        return "sha256:made" if "second" in self.command[0] and len(self.command) == 2 else ""

    monkeypatch.setattr(builders.Client, "trial", trial)
    return tried


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """Two docker clients on PATH."""
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "docker").write_text("", encoding="utf-8")
        (tmp_path / name / "docker").chmod(0o755)
    return {"PATH": f"{tmp_path / 'first'}:{tmp_path / 'second'}", "HOME": str(tmp_path)}


def daemon(**changes: Any) -> Daemon:
    removed = SimpleNamespace(images=SimpleNamespace(remove=lambda _: None))
    values = {"id": "D", "info": SimpleNamespace(version="1"), "environ": (), "client": removed}
    return cast("Daemon", SimpleNamespace(**values | changes))


def command(builder: builders.Builder) -> tuple[str, ...]:
    return builder.command if isinstance(builder, builders.Client) else ()


def test_first_that_works(environ: dict[str, str], tries: list[tuple[str, ...]]) -> None:
    """Clients are tried in the order of PATH, buildx first; without a store every time."""
    for _ in range(2):
        made = builders.choose(daemon(), environ)
        assert command(made)[0].endswith("second/docker")
    assert len(tries) == 8


def test_remembered(home: Path, environ: dict[str, str], tries: list[tuple[str, ...]]) -> None:
    """What was found out is not tried again."""
    first = builders.choose(daemon(), environ, Store(home))
    assert len(tries) == 4

    assert command(builders.choose(daemon(), environ, Store(home))) == command(first)
    assert len(tries) == 4


def test_no_client(home: Path, environ: dict[str, str], tries: list[tuple[str, ...]]) -> None:
    """That nothing but the daemon's own builder works is remembered, too."""
    environ["PATH"] = environ["PATH"].partition(":")[0]

    for _ in range(2):
        assert isinstance(builders.choose(daemon(), environ, Store(home)), builders.Classic)
    assert len(tries) == 2


@pytest.mark.parametrize("what", ["client", "plugin", "builder", "daemon", "version", "damage"])
def test_tried_anew(
    home: Path, tmp_path: Path, environ: dict[str, str], tries: list[tuple[str, ...]], what: str
) -> None:
    """Whatever could change the answer asks the question again."""
    builders.choose(daemon(), environ, Store(home))
    changed = daemon()
    match what:
        case "client":
            (tmp_path / "first" / "docker").write_text("newer", encoding="utf-8")
        case "plugin":
            (tmp_path / ".docker" / "cli-plugins").mkdir(parents=True)
            (tmp_path / ".docker" / "cli-plugins" / "docker-buildx").touch()
        case "builder":
            environ["BUILDX_BUILDER"] = "remote"
        case "daemon":
            changed = daemon(id="E")
        case "version":
            changed = daemon(info=SimpleNamespace(version="2"))
        case _:
            (file,) = home.glob("facts/*/builder.json")
            file.write_text("{", encoding="utf-8")

    builders.choose(changed, environ, Store(home))

    assert len(tries) == 8
