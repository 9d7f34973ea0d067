"""Probes: what is brought for a run, and what follows from what is seen of it."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509

from nox_variants.errors import SandboxError
from nox_variants.model import Need, Service, Smoke
from nox_variants.results import ServiceSeen
from nox_variants.sandbox import probes
from nox_variants.sandbox.probes import Fixtures, Probe, fixtures, not_started, trusting

if TYPE_CHECKING:
    from pathlib import Path

SERVED = Smoke(service=Service(port=8080, path="/x", stop=2.0), timeout=10.0, output=100)
ANSWER: dict[str, Any] = {"status": 200, "body": "hello", "error": ""}


def line(event: str, **more: Any) -> bytes:
    """Return what fixtures print."""
    return json.dumps({"event": event, **more}).encode() + b"\n"


@pytest.mark.parametrize(
    "smoke",
    [Smoke(), Smoke(needs=(Need.TIME_ZONES, Need.USERS))],
    ids=["plain", "needs without fixtures"],
)
def test_nothing_is_brought(smoke: Smoke) -> None:
    """Most runs need nothing."""
    assert fixtures(smoke) is None


def test_orders() -> None:
    """All that a run needs is said in one line."""
    made = fixtures(SERVED)

    assert made is not None
    assert made.orders((3, 4)).endswith(b"\n")
    assert json.loads(made.orders((3, 4))) == {
        "namespaces": [3, 4],
        "certificate": "",
        "names": False,
        "service": {"port": 8080, "path": "/x", "most": 100, "seconds": 40.0},
    }


def test_names() -> None:
    """Names need a DNS server alone."""
    made = fixtures(Smoke(needs=(Need.NAMES,)))

    assert made == Fixtures(names=True)
    assert json.loads(made.orders())["service"] is None


def test_certificates() -> None:
    """Each run has a CA of its own, and a certificate for the one name that is signed by it."""
    first, second = (fixtures(Smoke(needs=(Need.CERTIFICATES,))) for _ in range(2))
    assert first is not None
    assert second is not None
    leaf, authority = (
        x509.load_pem_x509_certificates(text.encode())[0]
        for text in (first.certificate, first.authority)
    )

    leaf.verify_directly_issued_by(authority)
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["fixture.test"]
    assert "PRIVATE KEY" in first.certificate
    assert "PRIVATE KEY" not in first.authority
    assert first.authority != second.authority


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        pytest.param([], [(10.0, None), (10.1, 9)], id="does not listen"),
        pytest.param(
            [line("listens")], [(9.9, None), (10.1, 15), (12.0, None), (12.2, 9)], id="says nothing"
        ),
        pytest.param(
            [line("listens"), line("answer", **ANSWER)],
            [(3.0, 15), (3.1, None), (5.0, None), (5.1, 9)],
            id="answers",
        ),
    ],
)
def test_due(said: list[bytes], expected: list[tuple[float, int | None]]) -> None:
    """A server gets SIGTERM when it has answered, or not in time; then SIGKILL, in time."""
    probe = Probe(SERVED)
    for words in said:
        probe.hear(words, 1.0)

    assert [(now, probe.due(now)) for now, _ in expected] == expected


def test_due_to_a_program_that_is_no_server() -> None:
    """A program without a service gets no signal, and nothing is seen of one."""
    probe = Probe(Smoke(timeout=1.0))

    assert probe.due(100.0) is None
    assert probe.seen(100.0, killed=False) is None


def test_seen() -> None:
    """What is heard in pieces is put together: when it listened, what it said, when it ended."""
    probe = Probe(SERVED)
    words = line("ready") + line("listens") + line("answer", **ANSWER)
    for each in range(len(words)):
        probe.hear(words[each : each + 1], each / 100)
    assert probe.ready
    assert probe.due(3.0) is signal.SIGTERM

    seen = ServiceSeen(
        listened=True,
        seconds=(words.index(b"listens") + len(b'listens"}')) / 100,
        **ANSWER,
        stopped=True,
        stop_seconds=0.5,
    )
    assert probe.seen(3.5, killed=False) == seen
    assert probe.answered == (len(words) - 1) / 100


def test_seen_of_a_server_that_had_to_be_killed() -> None:
    """A server that SIGTERM does not end was not stopped."""
    probe = Probe(SERVED)
    probe.hear(line("listens") + line("answer", **ANSWER), 1.0)
    probe.due(3.0)
    probe.due(5.1)

    seen = probe.seen(5.5, killed=True)
    assert seen is not None
    assert (seen.status, seen.stopped, seen.stop_seconds) == (200, False, 2.5)


def test_a_late_answer_counts_for_nothing() -> None:
    """After the time is up, what a server says has no meaning any more."""
    probe = Probe(SERVED)
    probe.hear(line("listens"), 1.0)
    probe.due(10.1)
    probe.hear(line("answer", **ANSWER), 10.2)

    seen = probe.seen(10.5, killed=False)
    assert seen is not None
    assert (seen.status, seen.error) == (0, "no answer within 10 s")
    assert probe.answered is None


def test_not_listening() -> None:
    """A server that never listened, or never started, is seen as one that did not listen."""
    assert Probe(SERVED).seen(10.1, killed=True) == ServiceSeen(listened=False)
    assert not_started(SERVED) == ServiceSeen(listened=False)
    assert not_started(Smoke()) is None


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (line("failed", error="OSError: no"), "OSError: no"),
        (b"Traceback (most recent call last):\nOSError: no\n", "OSError: no"),
        (b"[1]\n", "[1]"),
        (b'"event"\n', '"event"'),
        (b"{}\n", "{}"),
        (b"\xff\n", "\ufffd"),
    ],
)
def test_failures(said: bytes, words: str) -> None:
    """Whatever fixtures say that is no event is why they failed, if they did."""
    probe = Probe(Smoke())
    probe.hear(said, 1.0)

    assert (probe.failed, probe.words) == (said.startswith(b'{"event'), words)


def test_distrusted() -> None:
    """A client that does not trust is remembered."""
    probe = Probe(Smoke())
    probe.hear(line("distrusted"), 1.0)

    assert (probe.distrusted, probe.failed, probe.words) == (True, False, "")


def root(folder: Path) -> tuple[Path, ...]:
    """Make a root of two folders whose bundle is a link from one into the other."""
    for name in ("base/etc/pki", "base/etc/ssl", "top/etc/pki"):
        (folder / name).mkdir(parents=True)
    (folder / "base/etc/ssl/bundle.pem").symlink_to("/etc/pki/bundle")
    (folder / "base/etc/pki/bundle").write_bytes(b"old")
    (folder / "top/etc/pki/bundle").write_bytes(b"one\n\n")
    return folder / "base", folder / "top"


def test_trusting(tmp_path: Path) -> None:
    """The run's CA is added to the bundle, which is found where its links lead in the root."""
    made = Fixtures(authority="ours\n")

    added = trusting(root(tmp_path), "/etc/ssl/bundle.pem", made)

    assert added == (("/etc/pki/bundle", b"one\nours\n"),)


@pytest.mark.parametrize(
    ("path", "authority"), [("", "ours"), ("/nothing", "ours"), ("/etc/ssl/bundle.pem", "")]
)
def test_nothing_to_trust(tmp_path: Path, path: str, authority: str) -> None:
    """Without a bundle, or without a CA, a root stays as it is."""
    assert trusting(root(tmp_path), path, Fixtures(authority=authority)) == ()


def test_a_bundle_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bundle that nobody would make is refused, not read."""
    monkeypatch.setattr(probes, "LARGEST_BUNDLE", 3)

    with pytest.raises(SandboxError, match=r"^/etc/ssl/bundle\.pem: the bundle"):
        trusting(root(tmp_path), "/etc/ssl/bundle.pem", Fixtures(authority="ours"))
