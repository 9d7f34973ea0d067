"""What a daemon says of a pull: what is tried again, and what to do about the rest."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from nox_variants.engines.docker.connection import Daemon, DaemonError
from nox_variants.engines.docker.downloads import Downloads
from nox_variants.errors import ImageError, ImageUnavailable
from nox_variants.images import transport
from nox_variants.images.transient import TransientError
from nox_variants.results import EngineInfo, EngineName

if TYPE_CHECKING:
    from collections.abc import Iterator

BASE = "127.0.0.1:1/team/base:1"
LIMIT = "reading manifest 1 in 127.0.0.1:1/team/base: toomanyrequests: limit"
BUSY = "received unexpected HTTP status: 503 Service Unavailable"


@dataclass
class Pulling:
    """A daemon that says given words, one after another, and then has the image.

    Attributes:
        words: Its errors.
        name: Which daemon it is.
        version: Which version.
        asked: What was to be pulled.
        said: What was said.
    """

    words: list[str | Exception]
    name: EngineName = EngineName.DOCKER
    version: str = "1"
    asked: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        client = SimpleNamespace(api=self)
        self.downloads = Downloads(
            daemon=Daemon(
                client=cast("Any", client),
                info=EngineInfo(name=self.name, version=self.version),
                id="1",
                why="",
                environ=(),
            ),
            mirrors=(),
            progress=self.said.append,
            cancelled=threading.Event(),
            environ={},
        )

    def pull(self, name: str, tag: str, **_: object) -> Iterator[dict[str, Any]]:
        """Answer as the SDK's client does."""
        self.asked.append(f"{name}:{tag}")
        yield {"status": "Pulling from team/base"}
        if self.words:
            word = self.words.pop(0)
            if isinstance(word, Exception):
                raise word
            yield {"error": word}

    def failed(self, kind: type[Exception]) -> Any:
        """Return how a pull fails."""
        with pytest.raises(kind) as caught:
            self.downloads.pull("base", BASE)
        return caught.value


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for what is broken on purpose."""
    monkeypatch.setattr(transport, "_FIRST_PAUSE", 0.01)


@pytest.mark.parametrize("words", [BUSY, LIMIT, "unexpected EOF"])
def test_tried_again(words: str) -> None:
    """What may pass is tried four times; a registry out of this machine's reach changes nothing."""
    pulling = Pulling([words] * 3)
    pulling.downloads.pull("base", BASE)

    assert pulling.asked == [BASE] * 4
    assert [each.rpartition(", ")[2] for each in pulling.said[1:]] == [
        f"waiting {seconds} s" for seconds in ("0.01", "0.02", "0.04")
    ]

    pulling = Pulling([words] * 4)
    error = pulling.failed(TransientError)
    assert error.message == f"base: {BASE} cannot be pulled: {words} (tried 4 times)"


def test_limit_of_podman() -> None:
    """Podman has waited itself where a registry has been asked too much: nobody waits once more."""
    pulling = Pulling([LIMIT], EngineName.PODMAN)
    error = pulling.failed(TransientError)

    assert error.message.endswith(" toomanyrequests: limit (podman tried again itself)")
    assert error.hint == "Log in (docker login 127.0.0.1:1), or wait: that is a limit."
    assert pulling.said == [f"base: pulling {BASE}"]


@pytest.mark.parametrize(("version", "times"), [("4.3.1", 2), ("5.5.0-dev", 1), ("6", 1)])
def test_gateways_of_podman(version: str, times: int) -> None:
    """Since 5.5 Podman waits for what a gateway may find later, too; for a 500 we do."""
    busy = Pulling([BUSY], EngineName.PODMAN, version)
    if times == 1:
        error = busy.failed(TransientError)
        assert error.message.endswith(f"{BUSY} (podman tried again itself)")
    else:
        busy.downloads.pull("base", BASE)
    assert busy.asked == [BASE] * times

    bad = Pulling([BUSY.replace("503", "500")], EngineName.PODMAN, version)
    bad.downloads.pull("base", BASE)
    assert bad.asked == [BASE] * 2


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        ("unauthorized: authentication required", "docker login 127.0.0.1:1, and again."),
        ("pull access denied for x", "docker login 127.0.0.1:1, and again."),
        ("manifest unknown: manifest unknown", "Is the reference right?"),
        ("no space left on device", ""),
    ],
)
def test_what_to_do(words: str, hint: str) -> None:
    """What does not pass is tried once, and says what to do about it."""
    pulling = Pulling([words])
    error = pulling.failed(ImageError)

    assert not isinstance(error, TransientError)
    assert (error.message, error.hint) == (f"base: {BASE} cannot be pulled: {words}", hint)
    assert pulling.asked == [BASE]


def test_out_of_reach() -> None:
    """A registry that the daemon does not reach is told of once, and not asked again."""
    pulling = Pulling(["dial tcp: lookup 127.0.0.1:1: no such host"])
    for _ in range(2):
        error = pulling.failed(ImageUnavailable)
        assert error.message == "base: registry 127.0.0.1:1 cannot be reached from here"

    assert pulling.asked == [BASE]
    assert pulling.said[1:] == ["registry 127.0.0.1:1 cannot be reached from here"]


def test_daemon_that_is_gone() -> None:
    """A daemon that goes away during a pull is no registry that fails."""
    error = Pulling([ConnectionResetError("reset")]).failed(DaemonError)

    assert error.message == f"base: {BASE} cannot be pulled: the daemon is gone: reset"
