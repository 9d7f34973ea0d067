"""What fuzzing starts from and what it has found, through its targets; atheris is not needed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

import fuzz.archive
import fuzz.config
import fuzz.credentials
import fuzz.elf
import fuzz.layer
import fuzz.lock
import fuzz.record
import fuzz.registry

if TYPE_CHECKING:
    from collections.abc import Callable

HERE = Path(__file__).parents[1] / "fuzz"
TARGETS: dict[str, Callable[[bytes], None]] = {
    "archive": fuzz.archive.target,
    "config": fuzz.config.target,
    "credentials": fuzz.credentials.target,
    "elf": fuzz.elf.target,
    "layer": fuzz.layer.target,
    "lock": fuzz.lock.target,
    "record": fuzz.record.target,
    "registry": fuzz.registry.target,
}
SEEDS = [
    pytest.param(TARGETS[path.parent.name], path, id=f"{path.parent.name}-{path.name}")
    for path in sorted((HERE / "seeds").glob("*/*"))
]


@pytest.mark.parametrize(("target", "path"), SEEDS)
def test_seeds(target: Callable[[bytes], None], path: Path) -> None:
    """Each is read, or refused with an error of ours."""
    target(path.read_bytes())


KEYS = {
    "credentials": (
        *("auths", "auth", "identitytoken", "username", "password", "credHelpers", "credsStore"),
        *("registry.example.com", "currentContext", "HttpHeaders", "Endpoints", "docker", "Host"),
        "SkipTLSVerify",
    ),
    "lock": (
        *("version", "platforms", "linux/amd64", "images", "variants", "digest", "reference"),
        *("verdict", "cause", "binary", "content", "above_base", "transfer", "ratchet", "apt"),
    ),
}
"""The words of forms: a fuzzer of bytes does not find its way into JSON."""

PLAIN = st.one_of(
    *(st.none(), st.booleans(), st.integers(), st.floats(), st.text()),
    st.sampled_from(["dXNlcjpwYXNz", "works", "fails", "sha256:" + "0" * 64, "\ud800"]),
)


def documents(name: str) -> st.SearchStrategy[object]:
    """Return JSON with the words of a form in any place."""
    keys = st.sampled_from(KEYS[name])
    return st.recursive(
        PLAIN, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=4)
    )


@pytest.mark.parametrize("name", KEYS)
@given(st.data())
def test_any_json(name: str, data: st.DataObject) -> None:
    """JSON of any form is read, or refused with an error of ours."""
    TARGETS[name](json.dumps(data.draw(documents(name))).encode())
