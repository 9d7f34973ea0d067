"""The command that reaches a daemon through ssh."""

from __future__ import annotations

import pytest

from nox_variants.engines.docker.ssh import command
from nox_variants.errors import EngineUnavailable

BEFORE = ("ssh", "-T", "-o", "BatchMode=yes", "-o", "ConnectTimeout=8")
REMOTE = "docker system dial-stdio"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("ssh://server", ("--", "server", REMOTE)),
        ("ssh://user@server", ("-l", "user", "--", "server", REMOTE)),
        ("ssh://user@server:2222/", ("-l", "user", "-p", "2222", "--", "server", REMOTE)),
        ("ssh://a%40b@server", ("-l", "a@b", "--", "server", REMOTE)),
        ("ssh://[::1]:22", ("-p", "22", "--", "::1", REMOTE)),
        ("ssh://-oProxyCommand=id", ("--", "-oproxycommand=id", REMOTE)),
        (
            "ssh://server/run/user/1000/docker.sock",
            (
                "--",
                "server",
                "docker --host unix:///run/user/1000/docker.sock system dial-stdio",
            ),
        ),
        (
            "ssh://server/a;id",
            ("--", "server", "docker --host 'unix:///a;id' system dial-stdio"),
        ),
    ],
)
def test_command(url: str, expected: tuple[str, ...]) -> None:
    """User, host, port and socket of an address; none of them is ever an option, or a command."""
    assert command(url, 8) == (*BEFORE, *expected)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("ssh://", "the address is none: it is written ssh://user@host:port"),
        ("ssh://server:port", "the address is none: Port could not be cast"),
        ("ssh://server?a=b", "the address is none"),
        ("ssh://user:secret@server", "a password cannot stand in the address"),
    ],
)
def test_no_address(url: str, said: str) -> None:
    """What is no address is refused, and no password is repeated."""
    with pytest.raises(EngineUnavailable, match=said) as caught:
        command(url, 8)
    assert "secret" not in str(caught.value)
