"""Mirrors: where an image is asked for, in which order, and what is said of those that fail."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nox_variants.errors import ImageError, ImageUnavailable
from nox_variants.images.mirrors import Asking, Place, places
from nox_variants.images.reference import parse_reference
from nox_variants.images.transient import LOOK, TransientError
from nox_variants.model import Mirror

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nox_variants.model import Mirrors

DIGEST = f"sha256:{'0123456789abcdef' * 4}"
HUB = Mirror(host="mirror.example.com", prefix="hub")
PLAIN = Mirror(host="10.0.0.7:5000", insecure=True)
QUAY = Mirror(host="mirror.example.com", prefix="quay/all")
ALL: Mirrors = (("docker.io", (HUB, PLAIN)), ("quay.io", (QUAY,)), ("*", (PLAIN,)))


# Where an image is asked for


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ("ubuntu", ["mirror.example.com/hub/library/ubuntu:latest"]),
        ("docker.io/ubuntu:24.04", ["mirror.example.com/hub/library/ubuntu:24.04"]),
        ("index.docker.io/me/app:1", ["mirror.example.com/hub/me/app:1"]),
        (f"ubuntu@{DIGEST}", [f"mirror.example.com/hub/library/ubuntu@{DIGEST}"]),
        (f"ubuntu:24.04@{DIGEST}", [f"mirror.example.com/hub/library/ubuntu@{DIGEST}"]),
        ("quay.io/team/app:1", []),
    ],
)
def test_repositories_of_a_mirror(reference: str, expected: list[str]) -> None:
    """A mirror has an image below its prefix, under the whole name; a digest takes no tag."""
    asked = places(reference, (("docker.io", (HUB,)),), insecure=True)

    assert asked[-1] == Place(reference=reference, insecure=True)
    assert [each.reference for each in asked[:-1]] == expected
    assert all(each.mirror == "mirror.example.com/hub" for each in asked[:-1])


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ("ubuntu:1", ["mirror.example.com/hub/library/ubuntu:1", "10.0.0.7:5000/library/ubuntu:1"]),
        ("quay.io/a/b:1", ["mirror.example.com/quay/all/a/b:1"]),
        ("ghcr.io/a/b:1", ["10.0.0.7:5000/a/b:1"]),
        ("localhost/a:1", ["10.0.0.7:5000/a:1"]),
        ("10.0.0.7:5000/a/b:1", []),
        ("10.0.0.7/a/b:1", ["10.0.0.7:5000/a/b:1"]),
    ],
)
def test_which_mirrors(reference: str, expected: list[str]) -> None:
    """A registry's own mirrors are asked in their order, others by those for every other."""
    asked = places(reference, ALL)

    assert [each.reference for each in asked] == [*expected, reference]
    assert [each.insecure for each in asked] == ["10.0.0.7:5000" in each for each in expected] + [
        False
    ]


def test_mirror_of_itself() -> None:
    """A registry is not asked twice; but it may have another's images beside its own."""
    itself: Mirrors = (("ghcr.io", (Mirror(host="ghcr.io"), Mirror(host="ghcr.io", prefix="all"))),)

    assert [each.reference for each in places("ghcr.io/a/b:1", itself)] == [
        "ghcr.io/all/a/b:1",
        "ghcr.io/a/b:1",
    ]


@pytest.mark.parametrize("text", ["", "Ubuntu", "ubuntu:", "a" * 300, f"x.io/a@{DIGEST}0"])
def test_what_is_no_reference(text: str) -> None:
    """What no mirror could be asked for is left to who is asked for it as it is."""
    assert places(text, ALL) == (Place(reference=text),)


def test_no_mirrors() -> None:
    """Without mirrors an image is asked for at its registry, by its own words."""
    assert places("ubuntu", (), insecure=True) == (Place(reference="ubuntu", insecure=True),)


PART = st.from_regex(r"[a-z0-9]{1,8}([._-][a-z0-9]{1,8})?", fullmatch=True)
HOST = st.sampled_from(["docker.io", "quay.io", "localhost:5000", "10.0.0.7:5000", "[::1]:80"])
MIRROR = st.builds(
    Mirror,
    host=HOST,
    prefix=st.lists(PART, max_size=3).map("/".join),
    insecure=st.booleans(),
)
RULES = st.dictionaries(
    HOST | st.just("*"), st.lists(MIRROR, min_size=1, max_size=3).map(tuple)
).map(lambda each: tuple(each.items()))
TAG = st.sampled_from(["", ":1", ":latest", f"@{DIGEST}", f":1@{DIGEST}"])


@given(
    st.tuples(HOST, st.lists(PART, min_size=2, max_size=3).map("/".join), TAG),
    RULES,
    st.booleans(),
)
def test_any_mirrors(parts: tuple[str, str, str], mirrors: Mirrors, insecure: bool) -> None:  # noqa: FBT001  # drawn
    """Every place is another reference to the same tag or digest, and the last is the image's."""
    reference = f"{parts[0]}/{parts[1]}{parts[2]}"
    named = parse_reference(reference)

    asked = places(reference, mirrors, insecure=insecure)

    assert asked[-1] == Place(reference=reference, insecure=insecure)
    found = [parse_reference(each.reference) for each in asked]
    assert len({(each.registry, each.repository) for each in found}) == len(asked)
    for place, each in zip(asked, found, strict=True):
        assert each.digest == named.digest
        assert named.digest or each.tag == named.tag
        assert each.repository.endswith(named.repository)
        assert bool(place.mirror) == (place is not asked[-1])


# How they are asked


@dataclass
class Registries:
    """Registries that fail in given ways, what they were asked, and what was said.

    Attributes:
        failures: Errors, by reference; others have an image.
    """

    failures: Mapping[str, Exception] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    cancelled: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.asking = Asking(progress=self.said.append, cancelled=self.cancelled)

    def get(self, place: Place) -> str:
        self.asked.append(place.reference)
        if place.reference in self.failures:
            raise self.failures[place.reference]
        return f"image of {place.reference}"

    def first(self, reference: str, about: str = "base") -> tuple[int, str]:
        return self.asking.first(about, places(reference, ALL), self.get)


def missing(reference: str, about: str = "") -> ImageError:
    return ImageError(f"{about}{reference}: there is no such image or tag", hint=LOOK)


AT_HUB, AT_PLAIN = "mirror.example.com/hub/library/a:1", "10.0.0.7:5000/library/a:1"


def test_first_that_has_it() -> None:
    """The first that has an image gives it, nobody behind it is asked, and nothing is said."""
    registries = Registries()

    assert registries.first("a:1") == (0, f"image of {AT_HUB}")
    assert (registries.asked, registries.said) == ([AT_HUB], [])


def test_next_one_is_asked() -> None:
    """A mirror that does not have it is said, with its own words; one out of reach said it."""
    registries = Registries(
        {AT_HUB: missing(AT_HUB, "base: "), AT_PLAIN: ImageUnavailable("out of reach")}
    )

    assert registries.first("a:1") == (2, "image of a:1")
    assert registries.asked == [AT_HUB, AT_PLAIN, "a:1"]
    assert registries.said == [f"base: mirror {AT_HUB}: there is no such image or tag"]


def test_said_once() -> None:
    """What a mirror answers is said once, of the first image; another answer is said, too."""
    other = AT_HUB.replace("/a:", "/b:")
    login = ImageError(f"base: {AT_HUB}: registry mirror.example.com wants a login", hint="Do.")
    registries = Registries({each: missing(each) for each in (AT_HUB, other)})
    for reference in ("a:1", "a:1", "b:1"):
        registries.first(reference)
    registries.failures = {AT_HUB: login}
    registries.first("a:1")

    assert registries.asked.count(AT_HUB) == 3
    assert registries.said == [
        f"base: mirror {AT_HUB}: there is no such image or tag",
        f"base: mirror {AT_HUB}: registry mirror.example.com wants a login. Do.",
    ]


def test_mirror_that_fails_is_passed_over() -> None:
    """A mirror that failed after all tries is not waited for again, at any of its prefixes."""
    failed = TransientError(f"{AT_HUB}: registry mirror.example.com failed with 503.")
    registries = Registries({AT_HUB: failed})
    registries.first("a:1")
    registries.first("b:1")
    registries.first("quay.io/a/b:1")

    assert registries.asked == [
        AT_HUB,
        AT_PLAIN,
        "10.0.0.7:5000/library/b:1",
        "mirror.example.com/quay/all/a/b:1",
    ]
    assert registries.said == [
        (
            f"base: mirror {AT_HUB}: registry mirror.example.com failed with 503"
            "; it is not asked again in this run"
        )
    ]


@pytest.mark.parametrize("kind", [ImageError, ImageUnavailable, TransientError])
def test_all_fail(kind: type[ImageError | ImageUnavailable]) -> None:
    """When all fail, the error is the registry's own: its kind, its words and what to do."""
    own = kind("a:1: registry docker.io: rate limit.", hint="Log in.")
    registries = Registries({AT_HUB: missing(AT_HUB), AT_PLAIN: missing(AT_PLAIN), "a:1": own})
    with pytest.raises(kind) as caught:
        registries.first("a:1")

    assert type(caught.value) is kind
    assert str(caught.value) == (
        "a:1: registry docker.io: rate limit"
        " (mirrors tried: mirror.example.com/hub, 10.0.0.7:5000). Log in."
    )


def test_no_mirror_to_name() -> None:
    """An image without mirrors fails with the very error of its registry."""
    own = missing("a:1")
    registries = Registries({"10.0.0.7:5000/a/b:1": own})
    with pytest.raises(ImageError) as caught:
        registries.first("10.0.0.7:5000/a/b:1")

    assert caught.value is own
    assert registries.said == []


def test_cancelled() -> None:
    """A run that ends asks nobody else, and says nothing more."""
    registries = Registries({AT_HUB: ImageError("cancelled"), "b:1": ImageError("cancelled")})
    registries.cancelled.set()
    for reference in ("a:1", "10.0.0.7:5000/x:1"):
        registries.failures = {
            AT_HUB: ImageError("cancelled"),
            "10.0.0.7:5000/x:1": ImageError("cancelled"),
        }
        with pytest.raises(ImageError, match=r"^cancelled$"):
            registries.first(reference)

    assert registries.asked == [AT_HUB, "10.0.0.7:5000/x:1"]
    assert registries.said == []


def test_cancelled_at_the_registry() -> None:
    """A run that ends while the last one is asked names no mirrors."""

    class Ending(Registries):
        def get(self, place: Place) -> str:
            if not place.mirror:
                self.cancelled.set()
            return super().get(place)

    cancelled = ImageError("cancelled")
    registries = Ending({AT_HUB: missing(AT_HUB), AT_PLAIN: missing(AT_PLAIN), "a:1": cancelled})
    with pytest.raises(ImageError, match=r"^cancelled$"):
        registries.first("a:1")
