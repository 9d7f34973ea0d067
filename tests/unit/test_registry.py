"""References, and the headers that registries answer with."""

from __future__ import annotations

import json
import threading
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nox_variants.errors import ImageError
from nox_variants.images import credentials, proxies, registry, transient, transport
from nox_variants.images.credentials import challenges
from nox_variants.images.reference import Reference, parse_reference
from nox_variants.images.registry import Registries

if TYPE_CHECKING:
    from pathlib import Path

HEX = "0123456789abcdef" * 4
DIGEST = f"sha256:{HEX}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ubuntu", ("docker.io", "library/ubuntu", "latest", "")),
        ("ubuntu:24.04", ("docker.io", "library/ubuntu", "24.04", "")),
        ("docker.io/ubuntu", ("docker.io", "library/ubuntu", "latest", "")),
        ("index.docker.io/a/b:1", ("docker.io", "a/b", "1", "")),
        ("team/base:1_2.3-x", ("docker.io", "team/base", "1_2.3-x", "")),
        ("localhost/base", ("localhost", "base", "latest", "")),
        ("localhost:5000/base:1", ("localhost:5000", "base", "1", "")),
        ("registry.example.com/a/b/c", ("registry.example.com", "a/b/c", "latest", "")),
        ("Registry.example.com:443/a", ("Registry.example.com:443", "a", "latest", "")),
        ("[::1]:5000/a:1", ("[::1]:5000", "a", "1", "")),
        ("a.b/c__d/e-f--g/h.i:T", ("a.b", "c__d/e-f--g/h.i", "T", "")),
        (f"ubuntu@{DIGEST}", ("docker.io", "library/ubuntu", "", DIGEST)),
        (f"x.io/a/b:1@{DIGEST}", ("x.io", "a/b", "1", DIGEST)),
        (f"x.io/{'a' * 255}", ("x.io", "a" * 255, "latest", "")),
        (f"x.io/{HEX}", ("x.io", HEX, "latest", "")),
        (f"x.io/a:{'t' * 128}", ("x.io", "a", "t" * 128, "")),
    ],
)
def test_references(text: str, expected: tuple[str, str, str, str]) -> None:
    """A reference means what it means to docker."""
    names = ("registry", "repository", "tag", "digest")

    assert parse_reference(text) == Reference(**dict(zip(names, expected, strict=True)))


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        "@",
        "/",
        "Ubuntu",
        "team/Base:1",
        "ubuntu:",
        "ubuntu:-1",
        "ubuntu:a b",
        "ubuntu:é",
        "ubuntu:1:2",
        "ubuntu@",
        "ubuntu@sha256:1",
        f"ubuntu@{DIGEST.upper()}",
        f"ubuntu@{DIGEST}@{DIGEST}",
        "a..b/c/",
        "x.io/a//b",
        "x.io/../b",
        "x.io/a___b",
        "x.io/a\n",
        "-x.io/a",
        "[1]:5000/a",
        "[::1/a",
        "x.io:port/a",
        "x.io:0/a",
        "x.io:65536/a",
        "user@x.io/a",
        "http://x.io/a",
        "x.io?y/a",
        "x.io/a?b",
        HEX,
        f"x.io/{'a' * 256}",
        f"x.io/a:{'t' * 129}",
    ],
)
def test_no_references(text: str) -> None:
    """What is no reference is an error that shows it."""
    with pytest.raises(ImageError, match="is no image reference") as caught:
        parse_reference(text)
    assert str(caught.value).startswith(repr(text)[:100])


def test_reference_in_capitals() -> None:
    """The likeliest mistake is named."""
    with pytest.raises(ImageError, match="'library/Ubuntu', which has to be lower-case"):
        parse_reference("Ubuntu")


@given(st.text())
def test_any_reference(text: str) -> None:
    """Every text is a reference whose parts are safe in an address, or an error."""
    try:
        found = parse_reference(text)
    except ImageError:
        return
    address = f"https://{found.registry}/v2/{found.repository}/manifests/{found.tag}"
    assert address.isascii()
    assert not set(address) & set(" \t\r\n?#@\\%")
    assert "/../" not in address


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("", ()),
        ("Basic", (("basic", ()),)),
        ('Basic realm="x"', (("basic", (("realm", "x"),)),)),
        (
            'Bearer realm="https://x/t?a=b,c",service = "s",SCOPE="repository:a/b:pull,push"',
            (
                (
                    "bearer",
                    (
                        ("realm", "https://x/t?a=b,c"),
                        ("service", "s"),
                        ("scope", "repository:a/b:pull,push"),
                    ),
                ),
            ),
        ),
        (
            r'Negotiate, Basic realm="a \"b\"", Bearer realm=plain',
            (
                ("negotiate", ()),
                ("basic", (("realm", 'a "b"'),)),
                ("bearer", (("realm", "plain"),)),
            ),
        ),
        ('realm="x"', ()),
    ],
)
def test_challenges(
    header: str, expected: tuple[tuple[str, tuple[tuple[str, str], ...]], ...]
) -> None:
    """A header gives its schemes, each with its parameters."""
    assert challenges(header) == expected


@given(st.text(alphabet='Bearer =",\\xé\x00'))
def test_any_challenge(header: str) -> None:
    """Every header has challenges, if none."""
    for scheme, values in challenges(header):
        assert scheme == scheme.lower()
        assert all(name and isinstance(value, str) for name, value in values)


@pytest.mark.parametrize("header", ['a="' * 3000, 'a="\\' * 3000, "a" * 100_000, "a=" * 50_000])
def test_endless_challenge(header: str) -> None:
    """A header that is made to take long is cut."""
    assert len(challenges(header)) <= 8192


@pytest.mark.parametrize(
    ("header", "continues"),
    [
        ("bytes 10-99/100", True),
        ("bytes 10-49/100", True),
        ("bytes 10-99/*", True),
        (" bytes 10-99/100 ", True),
        ("", False),
        ("bytes 0-99/100", False),
        ("bytes 11-99/100", False),
        ("bytes 10-100/100", False),
        ("bytes 10-9/100", False),
        ("bytes 10-99/101", False),
        ("bytes */100", False),
        ("lines 10-99/100", False),
        (f"bytes 10-{'9' * 5000}/100", False),
    ],
)
def test_content_range(header: str, *, continues: bool) -> None:
    """Only the rest that was asked for continues a layer of 100 bytes after 10."""
    assert registry._continues(header, 10, 100) is continues


@given(st.text())
def test_any_header(text: str) -> None:
    """Headers that come from outside never crash."""
    assert registry._continues(text, 0, 1) in {True, False}
    assert (transient.retry_after(text) or 0.0) >= 0
    assert isinstance(transport.shown(text), str)
    assert transport._joined("https://x/a", text) is None or text


def test_retry_after() -> None:
    """A wait is given in seconds or by its end; the past is no wait."""
    then = datetime.now(UTC) + timedelta(seconds=100)

    assert transient.retry_after("7") == 7
    assert transient.retry_after(" 0 ") == 0
    assert 90 < (transient.retry_after(format_datetime(then, usegmt=True)) or 0) <= 100
    assert transient.retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0
    assert transient.retry_after("Wed, 21 Oct 2015 07:28:00 -0000") == 0
    for text in ("", "-1", "1.5", "nan", "soon", "9" * 5000, "Wed, 99 Oct 2015 07:28:00 GMT"):
        assert transient.retry_after(text) is None


@pytest.mark.parametrize(
    ("host", "exceptions", "direct"),
    [
        ("localhost", "", True),
        ("127.0.0.9", "", True),
        ("::1", "", True),
        ("x.io", "", False),
        ("x.io", "*", True),
        ("x.io", "y.io, X.IO", True),
        ("a.x.io", "x.io", True),
        ("a.x.io", ".x.io", True),
        ("a.x.io", "*.x.io", True),
        ("ax.io", "x.io", False),
        ("10.1.2.3", "10.0.0.0/8", True),
        ("11.1.2.3", "10.0.0.0/8", False),
        ("10.1.2.3", "fe80::/16,nonsense/8", False),
        ("x.io", "10.0.0.0/8", False),
    ],
)
def test_hosts_without_a_proxy(host: str, exceptions: str, *, direct: bool) -> None:
    """A proxy is passed by as docker does it."""
    assert proxies.is_direct(host, exceptions) is direct


def test_addresses_in_messages() -> None:
    """A message shows an address without what may be secret in it."""
    assert transport.shown("https://me:secret@x.io/a?token=secret#b") == "https://x.io:443"
    assert transport.shown("http://x.io:8080/secret") == "http://x.io:8080"
    assert transport.shown("https://x.io:port/") == "no address"


def test_docker_hub(tmp_path: Path) -> None:
    """The short name of Docker Hub stands for its host and its entry in the configuration."""
    config = {"auths": {"https://index.docker.io/v1/": {"auth": "bWU6c2VjcmV0"}}}
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    opened = Registries(environ={}, progress=lambda _: None, cancelled=threading.Event())
    site = opened._site("docker.io", insecure=False)

    assert site._base == "https://registry-1.docker.io/v2"
    found = credentials._credentials("ubuntu", "docker.io", {"DOCKER_CONFIG": str(tmp_path)})
    assert (found.user, found.password) == ("me", "secret")
    assert "secret" not in repr(found)
    assert transport.login_hint("docker.io") == "docker login"
    opened.close()


@pytest.mark.parametrize("text", [None, "{}", '{"currentContext": "x"}', '{"auths": {"y": {}}}'])
def test_no_credentials(tmp_path: Path, text: str | None) -> None:
    """A configuration without a login for a registry is as good as none."""
    if text is not None:
        (tmp_path / ".docker").mkdir()
        (tmp_path / ".docker/config.json").write_text(text, encoding="utf-8")
    for environ in ({"HOME": str(tmp_path)}, {"DOCKER_CONFIG": str(tmp_path / ".docker")}, {}):
        assert credentials._credentials("a", "x.io", environ).basic() == ""


def test_pauses() -> None:
    """Pauses double, up to a bound."""
    assert [transport.backoff(each) for each in (1, 2, 3, 9)] == [1.0, 2.0, 4.0, 5.0]
