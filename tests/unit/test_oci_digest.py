"""Digests and canonical JSON: names that depend on the value alone."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nox_variants.errors import LayoutError
from nox_variants.oci.digest import (
    canonical_json,
    hex_of,
    parse,
    sha256_bytes,
    sha256_file,
    short,
)

if TYPE_CHECKING:
    from pathlib import Path

ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
"""SHA-256 of ``abc`` (FIPS 180-2, appendix B.1)."""

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


def backwards(value: Any) -> Any:
    """Return an equal value whose objects were filled in the opposite order."""
    if isinstance(value, dict):
        return {key: backwards(value[key]) for key in reversed(value)}
    if isinstance(value, list):
        return [backwards(each) for each in value]
    return value


def test_bytes() -> None:
    """The digest of bytes is the standard's own example."""
    assert sha256_bytes(b"abc") == f"sha256:{ABC}"


def test_file(tmp_path: Path) -> None:
    """A file has the digest of its bytes, whatever its size."""
    file = tmp_path / "file"
    data = bytes(range(256)) * 5000
    file.write_bytes(data)

    assert sha256_file(file) == f"sha256:{hashlib.sha256(data).hexdigest()}"


def test_digest_from_outside() -> None:
    """A well-formed digest passes unchanged, and its hex digits are what follows the colon."""
    assert parse(f"sha256:{ABC}") == f"sha256:{ABC}"
    assert hex_of(f"sha256:{ABC}") == ABC


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param(ABC, id="no-algorithm"),
        pytest.param(f"sha512:{ABC}", id="other-algorithm"),
        pytest.param(f"sha256:{ABC.upper()}", id="upper-case"),
        pytest.param(f"sha256:{ABC[:-1]}", id="too-short"),
        pytest.param(f"sha256:{ABC}0", id="too-long"),
        pytest.param(f"sha256:{ABC}\n", id="line-end"),
        pytest.param(f" sha256:{ABC}", id="space"),
        pytest.param(f"sha256:{'٣' * 64}", id="other-digits"),
        pytest.param(f"sha256:{'../' * 21}x", id="path"),
        pytest.param(f"sha256:{ABC}".encode(), id="bytes"),
        pytest.param(None, id="nothing"),
        pytest.param({"digest": f"sha256:{ABC}"}, id="object"),
    ],
)
def test_what_is_no_digest(text: Any) -> None:
    """Anything else is refused, also as the source of a file name."""
    expected = (
        f"digest: not a sha256 digest: {text!r}. It must be 'sha256:' and 64 lower-case hex digits."
    )
    for check in (parse, hex_of):
        with pytest.raises(LayoutError) as caught:
            check(text)
        assert str(caught.value) == expected


def test_long_values_are_cut() -> None:
    """An error shows no more than the beginning of what came from outside."""
    assert short("a" * 98) == repr("a" * 98)
    assert short("a" * 99) == f"'{'a' * 99}..."
    with pytest.raises(LayoutError) as caught:
        parse("x" * 100_000)
    assert len(str(caught.value)) < 250


def test_canonical_form() -> None:
    """Keys are sorted at every level, nothing is padded, and text stays UTF-8."""
    value = {"b": [1, {"z": None, "a": True}], "a": "é\n", "ü": 1.5}

    assert canonical_json(value) == ('{"a":"é\\n","b":[1,{"a":true,"z":null}],"ü":1.5}'.encode())


@settings(deadline=None)
@given(value=JSON)
def test_canonical_form_depends_on_the_value_alone(value: Any) -> None:
    """The order of insertion leaves no trace, and the value can be read back."""
    data = canonical_json(value)

    assert canonical_json(backwards(value)) == data
    assert json.loads(data) == value


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_numbers_outside_json_are_refused(number: float) -> None:
    """What JSON cannot say is a bug of the caller, not something written all the same."""
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json({"number": number})
