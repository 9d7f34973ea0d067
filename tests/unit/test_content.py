"""What an image is said to consist of: every value comes from outside."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nox_variants.errors import LayoutError
from nox_variants.images import content
from nox_variants.images.content import Descriptor, choose, descriptor, document, image, is_index
from nox_variants.model import Digest
from nox_variants.oci.digest import sha256_bytes

ONE, TWO = sha256_bytes(b"one"), sha256_bytes(b"two")
MANIFEST, INDEX = content.MANIFESTS[0], content.INDEXES[0]
LAYER = "application/vnd.oci.image.layer.v1.tar"

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)


def entry(digest: str = ONE, **values: Any) -> dict[str, Any]:
    return {"mediaType": MANIFEST, "digest": digest, "size": 3, **values}


def on(platform: str, digest: str = ONE) -> dict[str, Any]:
    """Return an index's entry for a platform."""
    words = zip(("os", "architecture", "variant"), platform.split("/"), strict=False)
    return entry(digest, platform=dict(words))


def manifest(*layers: object, **values: Any) -> dict[str, Any]:
    return {"schemaVersion": 2, "config": entry(), "layers": list(layers), **values}


def config(*diff_ids: object, **values: Any) -> dict[str, Any]:
    return {"os": "linux", "architecture": "amd64", "rootfs": {"diff_ids": [*diff_ids]}, **values}


@pytest.mark.parametrize(
    ("values", "media_type", "expected"),
    [
        ({"mediaType": INDEX}, "", True),
        ({"mediaType": content.INDEXES[1]}, MANIFEST, True),
        ({"mediaType": MANIFEST, "manifests": []}, INDEX, False),
        ({}, INDEX, True),
        ({"manifests": []}, MANIFEST, False),
        ({"manifests": []}, "", True),
        ({"manifests": [], "layers": []}, "", False),
        ({"mediaType": ["x"], "manifests": []}, "", True),
        ({"mediaType": {}, "layers": []}, "", False),
        ({"mediaType": 1}, "", False),
    ],
)
def test_index_or_manifest(values: dict[str, Any], media_type: str, expected: bool) -> None:  # noqa: FBT001
    """A document's own word goes first, then the transport's, then its keys."""
    assert is_index(values, media_type) is expected


@pytest.mark.parametrize(
    ("platforms", "wanted", "expected"),
    [
        (["linux/amd64", "linux/arm64/v8"], "linux/amd64", 0),
        (["linux/amd64", "linux/arm64/v8"], "linux/arm64", 1),
        (["linux/amd64", "linux/arm64"], "linux/arm64/v8", 1),
        (["linux/arm/v6", "linux/arm/v7"], "linux/arm", 1),
        (["linux/arm/v6", "linux/arm"], "linux/arm/v7", 1),
        (["unknown/unknown", "linux/amd64"], "linux/amd64", 1),
        (["linux/amd64", "linux/amd64"], "linux/amd64", 0),
        ([""], "linux/amd64", 0),
    ],
)
def test_choice(platforms: list[str], wanted: str, expected: int) -> None:
    """The first manifest of a platform is chosen; a variant that is not named is the usual one."""
    digests = [sha256_bytes(bytes([at])) for at in range(len(platforms))]
    entries = [on(name, digest) for name, digest in zip(platforms, digests, strict=True)]
    assert choose({"manifests": entries}, wanted).digest == digests[expected]


@pytest.mark.parametrize(
    ("manifests", "message"),
    [
        (None, "manifests: not a list: None"),
        ({}, "manifests: not a list: {}"),
        ([1], "manifests: not a list of objects"),
        ([entry()] * 1001, "manifests: 1001 entries, more than 1000"),
        ([], "is not made for linux/amd64: only for nothing"),
        ([entry(), entry()], "is not made for linux/amd64: only for nothing"),
        ([on("linux/s390x")], "is not made for linux/amd64: only for linux/s390x"),
        ([on("linux/amd64/v3")], "is not made for linux/amd64: only for linux/amd64/v3"),
        ([on("unknown/unknown")], "is not made for linux/amd64: only for nothing"),
        ([{**on("linux/amd64"), "size": -1}], "descriptor: size: not a size: -1"),
        ([{"platform": {"os": "linux", "architecture": ["amd64"]}}], "only for linux"),
    ],
)
def test_no_choice(manifests: object, message: str) -> None:
    """Where nothing fits, the platforms that are there are named."""
    with pytest.raises(LayoutError) as raised:
        choose({"manifests": manifests}, "linux/amd64")
    assert raised.value.message.endswith(message)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "not an object"),
        ([], "not an object"),
        (entry(size=True), "size: not a size: True"),
        (entry(size=1.0), "size: not a size: 1.0"),
        (entry(size="3"), "size: not a size: '3'"),
        (entry(size=None), "size: not a size: None"),
        (entry(size=content.LARGEST_BLOB + 1), "size: not a size"),
        (entry(size=10**4000), "size: not a size"),
        (entry("sha256:../../etc/passwd"), "not a sha256 digest"),
        (entry("sha512:" + "0" * 128), "not a sha256 digest"),
        (entry(ONE.upper()), "not a sha256 digest"),
        (entry(f"{ONE}\n"), "not a sha256 digest"),
        ({"size": 1}, "not a sha256 digest: None"),
    ],
    ids=range(13),
)
def test_bad_descriptors(value: object, message: str) -> None:
    """A descriptor has a size and a digest of the one kind that is also a safe file name."""
    with pytest.raises(LayoutError, match=message):
        descriptor(value)


def test_descriptor() -> None:
    """What is not needed is left out, and a type that is none is empty."""
    expected = Descriptor(media_type="", digest=ONE, size=0)
    assert descriptor({"digest": ONE, "size": 0, "mediaType": [], "urls": ["x"]}) == expected


@pytest.mark.parametrize(
    ("media_type", "good"),
    [
        (LAYER, True),
        (f"{LAYER}+gzip", True),
        (f"{LAYER}+zstd", True),
        ("application/vnd.docker.image.rootfs.diff.tar.gzip", True),
        ("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", True),
        (f"{LAYER}+gzip+encrypted", False),
        (f"{LAYER}\n", False),
        ("application/vnd.cncf.helm.chart.content.v1.tar+gzip", False),
        ("application/vnd.in-toto+json", False),
        (None, False),
    ],
)
def test_layers(media_type: object, good: bool) -> None:  # noqa: FBT001
    """Only what layers can be is read as a layer."""
    values = manifest(entry(TWO, mediaType=media_type))
    if good:
        assert content.parts(values)[1][0].media_type == media_type
    else:
        with pytest.raises(LayoutError, match="media type"):
            content.parts(values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "schemaVersion: None, not 2"),
        (manifest(schemaVersion=1), "schemaVersion: 1, not 2"),
        (manifest(schemaVersion="2"), "schemaVersion: '2', not 2"),
        (manifest(layers={}), "layers: not a list"),
        (manifest(*[entry(mediaType=LAYER)] * 501), "layers: 501 entries, more than 500"),
        (manifest("x"), "descriptor: not an object: 'x'"),
        (manifest(config=None), "descriptor: not an object: None"),
    ],
)
def test_bad_manifests(values: dict[str, Any], message: str) -> None:
    """A manifest that is none is refused with what is wrong in it."""
    with pytest.raises(LayoutError, match=message):
        content.parts(values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "diff_ids: not a list: None"),
        (config() | {"rootfs": []}, "diff_ids: not a list: None"),
        (config(), "0 diff_ids for 1 layers"),
        (config(ONE, TWO), "2 diff_ids for 1 layers"),
        (config(*[ONE] * 501), "diff_ids: 501 entries, more than 500"),
        (config("x"), "not a sha256 digest: 'x'"),
        (config(ONE, architecture="arm64"), "only for linux/arm64/v8"),
        (config(ONE, os="windows"), "only for windows/amd64"),
        (config(ONE, config={"Env": "A=b"}), "Env: not a list of texts"),
        (config(ONE, config={"Env": ["A=b", None]}), "Env: not a list of texts"),
    ],
)
def test_bad_configurations(values: dict[str, Any], message: str) -> None:
    """A configuration has to fit the layers and the platform."""
    with pytest.raises(LayoutError, match=message):
        image(ONE, [descriptor(entry())], values, "linux/amd64")


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (None, ()),
        ([], ()),
        ({"Env": None}, ()),
        ({"Env": ["A=b=c", "B=", "C"]}, (("A", "b=c"), ("B", ""), ("C", ""))),
    ],
)
def test_environment(settings: object, expected: tuple[tuple[str, str], ...]) -> None:
    """A value may have an equals sign; a name without one has an empty value."""
    found = image(TWO, [descriptor(entry())], config(ONE, config=settings), "linux/amd64")
    assert (found.digest, found.diff_ids, found.env) == (TWO, (ONE,), expected)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is no JSON"),
        (b"{", "is no JSON"),
        (b"\xff", "is no JSON"),
        (b"[]", "is no JSON object"),
        (b"null", "is no JSON object"),
        (b"[" * 100_000, "is no JSON"),
        (b'{"a":' * 100_000, "is no JSON"),
        (b'{"a": ' + b"9" * 5000 + b"}", "is no JSON"),
    ],
    ids=range(8),
)
def test_no_documents(data: bytes, message: str) -> None:
    """Whatever is no JSON object is refused, however deep or long it is."""
    with pytest.raises(LayoutError, match=message):
        document(data)
    with pytest.raises(LayoutError, match=message):
        document(data, sha256_bytes(data), len(data))


def test_documents_are_what_their_descriptors_say() -> None:
    """Digest and size are compared before anything is read."""
    assert document(b'{"a":1}', sha256_bytes(b'{"a":1}'), 7) == {"a": 1}
    with pytest.raises(LayoutError, match="its content has the digest"):
        document(b"{", ONE, 1)
    with pytest.raises(LayoutError, match="has 2 bytes, not 3"):
        document(b"{}", sha256_bytes(b"{}"), 3)


@given(JSON, JSON, JSON)
def test_anything(one: Any, two: Any, three: Any) -> None:
    """No value makes anything but a LayoutError."""
    values = {"manifests": [one, {"platform": two}], "layers": [one], "config": two}
    shapes: list[Any] = [
        {"manifests": one},
        values,
        {"schemaVersion": 2, "layers": one, "config": two},
        {"schemaVersion": 2, "layers": [{"mediaType": one, "digest": two, "size": three}]},
        {"rootfs": {"diff_ids": one}, "config": {"Env": two}, "os": three},
        {"rootfs": {"diff_ids": []}, "config": {"Env": one}, "os": two, "architecture": three},
    ]
    for shape in shapes:
        is_index(shape)
        for call in (
            lambda shape=shape: choose(shape, "linux/amd64"),
            lambda shape=shape: content.parts(shape),
            lambda shape=shape: image(Digest(ONE), [], shape, "linux/amd64"),
        ):
            try:
                call()
            except LayoutError as error:
                assert len(str(error)) < 500  # noqa: PT017  # its length, not that it is raised


def test_messages_have_no_control_characters() -> None:
    """A terminal that shows an error does not obey it."""
    with pytest.raises(LayoutError) as raised:
        choose({"manifests": [on("linux/\x1b[2Jamd\n64")]}, "linux/amd64")
    assert raised.value.message.isprintable()


def test_messages_are_short() -> None:
    """An index with large platforms makes no large error."""
    with pytest.raises(LayoutError) as raised:
        image(ONE, [], config(architecture="x" * 1_000_000), "linux/amd64")
    assert len(raised.value.message) < 1000


@pytest.mark.parametrize("text", ["A=\0", "A\0=b", "=b", "", "A=\ud800"])
def test_no_environments(text: str) -> None:
    """What no process can have in its environment is refused."""
    with pytest.raises(LayoutError):
        image(ONE, [], config(config={"Env": [text]}), "linux/amd64")


def _nested(depth: int) -> dict[str, Any]:
    try:
        return document(b'{"manifests":' + b"[" * depth + b"1" + b"]" * depth + b"}")
    except LayoutError:
        return {}


def _choose_below(calls: int, values: dict[str, Any]) -> None:
    if calls:
        return _choose_below(calls - 1, values)
    choose({"manifests": [values]}, "linux/amd64")
    return None


def test_nesting() -> None:
    """What could be read can also be shown, further down the stack."""
    read = [values for depth in range(500, 1000) if (values := _nested(depth))]
    assert read
    for values in read:
        with pytest.raises(LayoutError):
            _choose_below(30, {"size": values})
