"""What is tried again: daemons' own words for what may pass, and for what does not."""

from __future__ import annotations

import pytest

from nox_variants.images import transient
from nox_variants.images.transient import STATUSES, STATUSES_OF_WHAT_IS_SENT

HOST = "127.0.0.1:5000"
PODMAN = f"initializing source docker://{HOST}/team/base:1"
READING = f"{PODMAN}: reading manifest 1 in {HOST}/team/base"
PINGING = f"{PODMAN}: pinging container registry {HOST}"


def test_list() -> None:
    """The list has a reason for each status, and less of it for what is sent than for questions."""
    assert set(STATUSES) == {408, 429, 500, 502, 503, 504}
    assert all(STATUSES.values())
    assert {429, 502, 503, 504} == STATUSES_OF_WHAT_IS_SENT


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        # Docker 20.10
        ("received unexpected HTTP status: 503 Service Unavailable", "its registry answered 503"),
        ("received unexpected HTTP status: 500 Internal Server Error", "its registry answered 500"),
        ("the daemon says: toomanyrequests:", "its registry answered 429"),
        ("toomanyrequests: You have reached your pull rate limit.", "its registry answered 429"),
        (
            'error parsing HTTP 429 response body: unexpected end of JSON input: ""',
            "its registry answered 429",
        ),
        (f'Head "http://{HOST}/v2/team/base/manifests/1": EOF', "the connection ended early"),
        ("unexpected EOF", "the connection ended early"),
        (
            f"read tcp 127.0.0.1:5230->{HOST}: read: connection reset by peer",
            "the connection was reset",
        ),
        (
            (
                "error pulling image configuration: download failed after attempts=6: received"
                " unexpected HTTP status: 504 Gateway Timeout"
            ),
            "its registry answered 504",
        ),
        (
            'Get "https://registry-1.docker.io/v2/": net/http: TLS handshake timeout',
            "the handshake took too long",
        ),
        ("read tcp 10.0.0.2:4711->10.0.0.7:443: i/o timeout", "nothing came for too long"),
        # containerd, in newer ones
        (
            f'unexpected status from HEAD request to http://{HOST}/v2/a/manifests/1: 502 "x"',
            "its registry answered 502",
        ),
        # Podman 4.3
        (
            f"{READING}: received unexpected HTTP status: 503 Service Unavailable",
            "its registry answered 503",
        ),
        (f"{READING}: toomanyrequests: limit", "its registry answered 429"),
        (f"{READING}: StatusCode: 408, oops", "its registry answered 408"),
        (f"{READING}: unexpected EOF", "the connection ended early"),
        (f'{PINGING}: Get "http://{HOST}/v2/": EOF', "the connection ended early"),
        (
            f"{PINGING}: invalid status code from registry 503 (Service Unavailable)",
            "its registry answered 503",
        ),
    ],
)
def test_what_may_pass(said: str, reason: str) -> None:
    """A daemon's words for what is on the list are tried again, and say what it was."""
    assert transient.sign(f"base: {HOST}/team/base:1 cannot be pulled: {said}") == reason
    assert not transient.is_out_of_reach(said)


@pytest.mark.parametrize(
    "said",
    [
        "manifest for ubuntu:nothing not found: manifest unknown: manifest unknown",
        "pull access denied for x, repository does not exist or may require 'docker login'",
        "unauthorized: authentication required",
        "no basic auth credentials",
        'error parsing HTTP 418 response body: invalid character: "oops"',
        "received unexpected HTTP status: 501 Not Implemented",
        f"{READING}: StatusCode: 418, oops",
        "tls: failed to verify certificate: x509: certificate signed by unknown authority",
        "no space left on device",
        "127.0.0.1:5000/eof:1 cannot be pulled: invalid reference format",
        "toomanyrequests/x:500 is not right",
        "layers from manifest don't match image configuration of status-503",
    ],
)
def test_what_does_not(said: str) -> None:
    """Nothing else is tried again; nor is it taken for a registry out of reach."""
    assert transient.sign(said) == ""
    assert not transient.is_out_of_reach(said)


@pytest.mark.parametrize(
    "said",
    [
        'Get "https://x.io/v2/": dial tcp: lookup x.io on 10.0.0.1:53: no such host',
        "dial tcp: lookup x.io on 10.0.0.1:53: read udp 10.0.0.2:1->10.0.0.1:53: i/o timeout",
        f"dial tcp {HOST}: connect: connection refused",
        "dial tcp 10.0.0.7:443: i/o timeout",
        "dial tcp 10.0.0.7:443: connect: connection reset by peer",
        "lookup x.io: server misbehaving",
        "proxyconnect tcp: dial tcp 10.0.0.7:3128: connect: no route to host",
        (
            "net/http: request canceled while waiting for connection (Client.Timeout exceeded while"
            " awaiting headers)"
        ),
        "context deadline exceeded",
        f'{PINGING}: Get "https://{HOST}/v2/": dial tcp {HOST}: connect: connection refused',
    ],
)
def test_out_of_reach(said: str) -> None:
    """Where no connection comes about at all, the registry is out of reach: nothing is repeated."""
    assert transient.sign(said) == ""
    assert transient.is_out_of_reach(said)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.01, "0.01 s"),
        (0.2, "0.2 s"),
        (5.0, "5 s"),
        (9.96, "10 s"),
        (12.3, "12 s"),
        (3600, "3600 s"),
    ],
)
def test_waits_in_words(seconds: float, words: str) -> None:
    """A wait is told in seconds, with as much of it as matters."""
    assert transient.duration(seconds) == words


def test_tries_in_words() -> None:
    """How often something was tried is told in words."""
    assert [transient.tried(each) for each in (1, 4)] == ["tried once", "tried 4 times"]
