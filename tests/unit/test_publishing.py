"""What is published of a run, under which names, and what is said about it."""

from __future__ import annotations

import json
import string
import subprocess
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NoReturn

import hypothesis
import pytest
from hypothesis import strategies as st

from nox_variants import publishing
from nox_variants.cli import main
from nox_variants.commands import publish
from nox_variants.commands.publish import Publication, Registry, Wanted
from nox_variants.errors import HistoryError, ImageError, ImageUnavailable, UsageError
from nox_variants.history import History
from nox_variants.images.packing import Outgoing
from nox_variants.images.shipping import shown
from nox_variants.model import Cause, Digest, LinkMode, SourceKind, Verdict
from nox_variants.names import image_tag
from nox_variants.publishing import source_url
from nox_variants.record import ImageUsed
from nox_variants.reports import factview, pageview
from nox_variants.results import Outcome, Role
from nox_variants.store import Store
from records import DIGEST, FULL
from samples import variant

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from nox_variants.images.reference import Reference
    from nox_variants.model import Variant
    from nox_variants.record import Record

STATIC = variant("scratch", LinkMode.STATIC)
ALPINE = variant("alpine", LinkMode.STATIC)
BUSYBOX = variant("busybox:glibc", LinkMode.DYNAMIC)

SCRATCH = ImageUsed(
    name="scratch",
    role=Role.RUN,
    source=SourceKind.SCRATCH,
    reference="",
    digest=DIGEST,
    stand_in=False,
    packages=(),
)
STAND_IN = replace(SCRATCH, name="alpine", source=SourceKind.APT, stand_in=True)
PULLED = replace(
    SCRATCH,
    name="alpine",
    source=SourceKind.REGISTRY,
    reference="alpine:3.20",
    pinned=f"alpine:3.20@{DIGEST}",
)

PASSED = replace(
    FULL,
    images=(*FULL.images, SCRATCH),
    verdict=Verdict.WORKS,
    cause=None,
    outcome=Outcome.PASSED,
    reason="",
    explanation="",
)


# Names


@pytest.mark.parametrize(
    ("to", "name"),
    [
        ("ghcr.io/me/demo", "ghcr.io/me/demo/hello-c:gcc-static.scratch"),
        ("localhost:5000", "localhost:5000/hello-c:gcc-static.scratch"),
        ("[::1]:5000/a", "[::1]:5000/a/hello-c:gcc-static.scratch"),
        ("me", "docker.io/me/hello-c:gcc-static.scratch"),
        ("docker.io/me", "docker.io/me/hello-c:gcc-static.scratch"),
        ("index.docker.io/me", "docker.io/me/hello-c:gcc-static.scratch"),
    ],
)
def test_target(to: str, name: str) -> None:
    """A variant is a tag under its program, as it is with engines."""
    assert shown(publishing.target(to, STATIC)) == name


def test_tag_of_a_target() -> None:
    """What no tag can hold is written otherwise."""
    assert publishing.target("ghcr.io/me", BUSYBOX).tag == "gcc-dynamic.busybox_glibc"


@pytest.mark.parametrize(
    ("to", "words"),
    [
        ("https://ghcr.io/me", "is an address. Leave out"),
        ("ghcr.io/me/demo:1", "has a tag. Tags are made"),
        ("ghcr.io/Me", "which has to be lower-case. It has to be like ghcr.io/me/demo"),
        ("ghcr.io/me/", "repository 'me//hello-c'"),
        ("", "repository '/hello-c'"),
        ("-.io/me", "registry '-.io'"),
        (f"ghcr.io/{'a' * 255}", "more than 255 characters"),
        ("me/demo", "Docker Hub has no 'me/demo/hello-c': its names have two parts. --to NAME"),
        ("docker.io", "Docker Hub has no 'library/hello-c'"),
    ],
)
def test_no_target(to: str, words: str) -> None:
    """What is no place in a registry is refused, with what it has to be."""
    if to == "docker.io":
        # What docker takes for one of its official images is nobody's to push, but has two parts.
        assert shown(publishing.target(to, STATIC)).startswith("docker.io/library/")
        return
    with pytest.raises(UsageError) as caught:
        publishing.target(to, STATIC)
    assert str(caught.value).startswith("--to ")
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "to", [f"ghcr.io/me/demo@{DIGEST}", "me:secret@ghcr.io/me", "https://me:secret@ghcr.io/me"]
)
def test_nothing_secret_is_repeated(to: str) -> None:
    """What may hold a password is refused without saying it again."""
    with pytest.raises(UsageError) as caught:
        publishing.target(to, STATIC)
    assert str(caught.value).startswith("--to: has a digest or a login in it. Digests are made")
    assert "secret" not in str(caught.value)


# What is left out


@pytest.mark.parametrize("outcome", Outcome)
def test_only_passed(outcome: Outcome) -> None:
    """Nothing but what passed is published; why it is not, is said."""
    record = replace(PASSED, outcome=outcome, reason="a reason")

    passed = outcome is Outcome.PASSED
    assert publishing.left_out(record) == ("" if passed else f"{outcome}: a reason")


def test_left_out() -> None:
    """What was not run or has no image is left out; a reason is one line that can be seen."""
    xfailed = replace(
        PASSED,
        outcome=Outcome.XFAILED,
        cause=Cause.EXIT_CODE,
        explanation="printed\n\x1b[31mred",
    )

    assert publishing.left_out(None).startswith("it is not in this run: nox -s matrix runs all")
    assert publishing.left_out(replace(PASSED, images=())) == (
        "its record does not say what it ran on"
    )
    assert publishing.left_out(replace(PASSED, image=None)) == "passed"
    assert publishing.left_out(xfailed) == "xfailed: printed \\x1b[31mred"


# What is said about an image


@pytest.mark.parametrize(
    ("config", "epoch", "time"),
    [
        ({"created": "2026-11-29T03:00:56.775385648Z"}, None, "2026-11-29T03:00:56.775385648Z"),
        ({"created": "2026-11-29T03:00:56+01:00"}, None, "2026-11-29T03:00:56+01:00"),
        ({"created": "2026-11-29T03:00:56Z"}, 86400, "1970-01-02T00:00:00Z"),
        ({"created": "2026-11-29T03:00:56Z"}, 0, "1970-01-01T00:00:00Z"),
        ({"created": "yesterday"}, None, ""),
        ({"created": "2026-11-29T03:00:56Z\n"}, None, ""),
        ({"created": 5}, None, ""),
        ({}, None, ""),
    ],
)
def test_created(config: dict[str, object], epoch: int | None, time: str) -> None:
    """An image was made when SOURCE_DATE_EPOCH says, else when it says itself."""
    assert publishing.created(json.dumps(config).encode(), epoch) == time


def said_of(record: Record, **changes: str) -> dict[str, str]:
    """Return annotations, their names without the beginning that most of them share."""
    pairs = publishing.manifest_annotations(record, **{"source": "", "made": "", **changes})
    return {name.removeprefix("org.opencontainers.image."): value for name, value in pairs}


def test_annotations() -> None:
    """A manifest says when, of what and from what an image was made."""
    record = replace(PASSED, images=(*FULL.images, PULLED))

    assert said_of(record, source="https://x.example/y", made="1970-01-01T00:00:00Z") == {
        "created": "1970-01-01T00:00:00Z",
        "title": "hello-c",
        "source": "https://x.example/y",
        "revision": "0" * 40,
        "base.name": "docker.io/library/alpine:3.20",
        "base.digest": DIGEST,
        "io.github.nox-variants.variant": "hello-c(scratch,static)",
    }


def test_annotations_that_are_left_out() -> None:
    """What is not known is not said; a stand-in is named, and no base that it is not."""
    record = replace(PASSED, images=(*FULL.images, STAND_IN), git_commit=None)

    assert said_of(record) == {
        "title": "hello-c",
        "io.github.nox-variants.variant": "hello-c(scratch,static)",
        "io.github.nox-variants.stand-in": "alpine",
    }


@pytest.mark.parametrize("commit", ["main", "a" * 39, "0" * 40 + "\n", "A" * 40])
def test_no_revision(commit: str) -> None:
    """What is no commit, in a record of elsewhere, is not said to be one."""
    assert "revision" not in said_of(replace(PASSED, git_commit=commit))
    assert "revision" in said_of(replace(PASSED, git_commit="a" * 64))


def test_base_that_was_pulled_by_digest() -> None:
    """A base that was named by its digest has a name without a tag."""
    pulled = replace(PULLED, pinned=f"ghcr.io/a/b@{DIGEST}")

    said = said_of(replace(PASSED, images=(pulled,)))
    assert (said["base.name"], said["base.digest"]) == ("ghcr.io/a/b", DIGEST)


@pytest.mark.parametrize(
    ("remote", "url"),
    [
        ("https://github.com/me/x", "https://github.com/me/x"),
        ("https://github.com/me/x.git", "https://github.com/me/x"),
        ("https://github.com/me/x.git/", "https://github.com/me/x"),
        ("http://git:3000/me/x", "http://git:3000/me/x"),
        ("http://[::1]:80/x", "http://[::1]:80/x"),
        ("https://user@github.com/me/x", "https://github.com/me/x"),
        ("https://user:secret@github.com/me/x", "https://github.com/me/x"),
        ("https://a@b:c@github.com/me/x", "https://github.com/me/x"),
        ("https://dev.azure.com/o/My%20P/_git/r", "https://dev.azure.com/o/My%20P/_git/r"),
        ("https://git.sr.ht/~me/x", "https://git.sr.ht/~me/x"),
        ("git@github.com:me/x.git", "https://github.com/me/x"),
        ("git@gitlab.example.com:/me/x.git", "https://gitlab.example.com/me/x"),
        ("github.com:me/x", "https://github.com/me/x"),
        ("ssh://git@github.com/me/x.git", "https://github.com/me/x"),
        ("ssh://git@github.com:22/me/x.git", "https://github.com/me/x"),
        # Not plainly an address for everybody:
        ("ssh://git@github.com:2222/me/x.git", ""),
        ("ssh://git@work/me/x.git", ""),
        ("work:me/x.git", ""),
        ("git@github.com:~me/x.git", ""),
        ("ssh://git@github.com/~me/x.git", ""),
        ("git://github.com/me/x", ""),
        ("file:///home/me/x", ""),
        ("/home/me/x.git", ""),
        ("../x", ""),
        ("C:\\x", ""),
        ("https://github.com", ""),
        ("https://github.com/", ""),
        ("https://github.com/.git", ""),
        ("", ""),
        # A token somewhere else:
        ("https://github.com/me/x?token=secret", ""),
        ("https://github.com/me/x#secret", ""),
        ("https://user:se/cret@github.com/me/x", ""),
        ("https://user:12/secret@github.com/me/x", ""),
        ("https://user:se#cret@github.com/me/x", ""),
        ("https://user:12?secret@github.com/me/x", ""),
        ("user:secret@github.com:me/x", ""),
        ("us.er:secret@github.com:me/x", ""),
        ("https://github.com/me/x\nsecret", ""),
    ],
)
def test_source_url(remote: str, url: str) -> None:
    """A remote becomes what everybody can open, without who asks, or nothing."""
    assert source_url(remote) == url


WORDS = st.text(string.ascii_lowercase + string.digits, min_size=1, max_size=5)
SECRETS = st.text(st.characters(exclude_characters="\0"), max_size=12).map(
    lambda text: f"SE{text}CRET"
)
"""Texts that occur nowhere else: letters are small there."""


@hypothesis.given(
    secrets=st.tuples(SECRETS, SECRETS),
    form=st.sampled_from(
        [
            "https://{0}:{1}@{host}/{path}",
            "https://{0}@{host}/{path}",
            "http://{0}:{1}@{host}:80/{path}.git",
            "https://{host}/{path}?token={0}",
            "https://{host}/{path}#{0}:{1}",
            "ssh://{0}:{1}@{host}/{path}",
            "ssh://{0}@{host}:22/{path}.git",
            "{0}@{host}:{path}.git",
            "{0}:{1}@{host}:{path}.git",
        ]
    ),
    host=st.tuples(WORDS, WORDS).map(".".join),
    path=st.tuples(WORDS, WORDS).map("/".join),
)
def test_no_secret_is_published(secrets: tuple[str, str], form: str, host: str, path: str) -> None:
    """Whatever stands for a user, a password or a token is never part of an address."""
    url = source_url(form.format(*secrets, host=host, path=path))

    assert not any(part in url for secret in secrets for part in ("SE", "CRET", secret))
    assert "@" not in url


@hypothesis.given(
    remote=st.text() | st.text("ab:/@.?#%~ \n12[]").map(lambda text: f"https://{text}")
)
def test_any_remote(remote: str) -> None:
    """Any text gives an address without a user, or nothing."""
    url = source_url(remote)

    assert not url or url.startswith(("https://", "http://"))
    assert not {"@", "?", "#", " ", "\n"} & set(url)


def test_published() -> None:
    """Where an image is, is kept in its record once, the newest last."""
    record = publishing.published(publishing.published(PASSED, "a@1"), "b@2")
    again = publishing.published(record, "a@1")

    assert record.image is not None
    assert again.image is not None
    assert (record.image.published, again.image.published) == (("a@1", "b@2"), ("b@2", "a@1"))
    with pytest.raises(TypeError):
        publishing.published(replace(PASSED, image=None), "a@1")


def test_page() -> None:
    """The page shows where an image was pushed to, where it was."""
    (before,) = pageview.entries([PASSED])
    (after,) = pageview.entries([publishing.published(PASSED, "a@1")])

    facts = [dict(dict(factview.facts(entry))["Made by"]) for entry in (before, after)]
    assert ("published" in facts[0], facts[1]["published"]) == (False, "a@1")


# The command


@dataclass
class Shop:
    """Images as they are after a run, a registry, and a history.

    Attributes:
        gone: Tags of images that are not here.
        refused: Tags that the registry does not take.
        taken: Tags that were taken out.
        pushed: Tags that were pushed.
        kept: Records that were kept.
    """

    gone: set[str] = field(default_factory=set)
    refused: set[str] = field(default_factory=set)
    ending: BaseException | None = None
    taken_out: list[str] = field(default_factory=list)
    pushed: list[str] = field(default_factory=list)
    kept: list[Record] = field(default_factory=list)

    def check(self, record: Record, variant: Variant) -> None:
        """Look whether an image is here."""
        assert record.variant == variant.id
        if image_tag(variant) in self.gone:
            raise ImageUnavailable("its image is gone", hint="Run it again.")

    def taken(self, record: Record, variant: Variant) -> AbstractContextManager[Outgoing]:
        """Take an image out."""
        self.check(record, variant)
        self.taken_out.append(image_tag(variant))
        return nullcontext(Outgoing(config=b"{}", layers=()))

    def push(self, image: Outgoing, target: Reference, record: Record) -> Digest:
        """Push an image."""
        del image, record
        if target.tag in self.refused:
            raise ImageError(f"{shown(target)}: refused")
        if self.ending:
            raise self.ending
        self.pushed.append(target.tag)
        return DIGEST

    def run(self, *records: Record, dry: bool = False, stand_ins: bool = False) -> int:
        """Publish records of the three variants."""
        publication = Publication(
            images=self,
            keep=self.kept.append,
            stand_ins=stand_ins,
            push=None if dry else self.push,
        )
        known = {each.variant: each for each in records}
        return publication.run(
            [
                Wanted(each, known.get(each.id), publishing.target("x.example/a", each))
                for each in (STATIC, ALPINE, BUSYBOX)
            ],
            "RUN",
        )


def of(made: object, run_image: ImageUsed = SCRATCH, **changes: object) -> Record:
    """Return a record of a variant."""
    return replace(PASSED, variant=str(made), images=(*FULL.images, run_image), **changes)  # type: ignore[arg-type]


GOOD = (of(STATIC.id), of(ALPINE.id, PULLED), of(BUSYBOX.id, PULLED))


def test_all(capsys: pytest.CaptureFixture[str]) -> None:
    """What passed is pushed, printed and kept, each on its own."""
    shop = Shop()

    assert shop.run(*GOOD) == 0
    out, err = capsys.readouterr()
    assert out.splitlines() == [
        f"hello-c(scratch,static): x.example/a/hello-c:gcc-static.scratch@{DIGEST}",
        f"hello-c(alpine,static): x.example/a/hello-c:gcc-static.alpine@{DIGEST}",
        f"hello-c(busybox:glibc,dynamic): x.example/a/hello-c:gcc-dynamic.busybox_glibc@{DIGEST}",
    ]
    assert err == "run RUN: 3 published, 0 left out, 0 not published\n"
    assert [f"{each.variant}: {each.image.published[0]}" for each in shop.kept if each.image] == (
        out.splitlines()
    )


def test_what_did_not_pass(capsys: pytest.CaptureFixture[str]) -> None:
    """What did not pass, or was not run, is left out and said; that is no failure."""
    shop = Shop()
    failed = of(ALPINE.id, outcome=Outcome.FAILED, reason="it did not work")

    assert shop.run(GOOD[0], failed) == 0
    assert shop.taken_out == shop.pushed == ["gcc-static.scratch"]
    assert capsys.readouterr().err.splitlines() == [
        "hello-c(alpine,static): left out: failed: it did not work",
        f"hello-c(busybox:glibc,dynamic): left out: {publishing.left_out(None)}",
        "run RUN: 1 published, 2 left out, 0 not published",
    ]


def test_nothing_passed(capsys: pytest.CaptureFixture[str]) -> None:
    """Where nothing passed, nothing is pushed, and the command fails."""
    shop = Shop()

    assert shop.run() == 1
    assert shop.taken_out == shop.pushed == []
    assert capsys.readouterr().err.endswith("run RUN: 0 published, 3 left out, 0 not published\n")


@pytest.mark.parametrize("where", ["gone", "refused"])
def test_what_passed_and_is_not_published(where: str, capsys: pytest.CaptureFixture[str]) -> None:
    """An image that is gone or that a registry refuses is a failure; the others are pushed."""
    tags = {"gcc-static.alpine"}
    shop = Shop(gone=tags) if where == "gone" else Shop(refused=tags)

    assert shop.run(*GOOD) == 1
    assert shop.pushed == ["gcc-static.scratch", "gcc-dynamic.busybox_glibc"]
    assert [each.variant for each in shop.kept] == [STATIC.id, BUSYBOX.id]
    said = capsys.readouterr().err
    assert "hello-c(alpine,static): not published: " in said
    assert said.endswith("run RUN: 2 published, 0 left out, 1 not published\n")


def test_stand_ins(capsys: pytest.CaptureFixture[str]) -> None:
    """What runs on a stand-in is pushed when that is asked for, and only then."""
    shop, asked = Shop(), Shop()
    records = (GOOD[0], of(ALPINE.id, STAND_IN), GOOD[2])

    assert (shop.run(*records), "gcc-static.alpine" in shop.pushed) == (1, False)
    assert (
        "hello-c(alpine,static): not published: it runs on a stand-in for alpine, for which it"
        " would be taken. --stand-ins pushes it all the same" in capsys.readouterr().err
    )
    assert (asked.run(*records, stand_ins=True), len(asked.pushed)) == (0, 3)


def test_dry_run(capsys: pytest.CaptureFixture[str]) -> None:
    """What would be pushed is said, also what is not here; nothing is taken, sent or kept."""
    shop = Shop(gone={"gcc-static.alpine"})

    assert shop.run(*GOOD, dry=True) == 1
    out, err = capsys.readouterr()
    assert out.splitlines() == [
        "hello-c(scratch,static): would go to x.example/a/hello-c:gcc-static.scratch",
        "hello-c(busybox:glibc,dynamic): would go to x.example/a/hello-c:gcc-dynamic.busybox_glibc",
    ]
    assert "hello-c(alpine,static): not published: its image is gone. Run it again." in err
    assert "2 would be published" in err
    assert (shop.taken_out, shop.pushed, shop.kept) == ([], [], [])


def test_not_recorded(capsys: pytest.CaptureFixture[str]) -> None:
    """What is in the registry is published, also where the history does not take it."""

    def full(_: Record) -> NoReturn:
        raise HistoryError("the disk is full")

    publication = Publication(images=Shop(), keep=full, push=Shop().push)
    target = publishing.target("x.example/a", STATIC)

    assert publication.run([Wanted(STATIC, GOOD[0], target)], "RUN") == 0
    out, err = capsys.readouterr()
    assert out == f"hello-c(scratch,static): x.example/a/hello-c:gcc-static.scratch@{DIGEST}\n"
    assert err.splitlines() == [
        "hello-c(scratch,static): is published, but the record does not say so: the disk is full",
        "run RUN: 1 published, 0 left out, 0 not published",
    ]


@pytest.mark.parametrize("ending", [KeyboardInterrupt(), SystemExit(143)])
def test_interrupted(ending: BaseException, capsys: pytest.CaptureFixture[str]) -> None:
    """Who is interrupted says what was pushed."""
    shop = Shop(ending=ending)

    with pytest.raises(type(ending)):
        shop.run(*GOOD)
    assert capsys.readouterr().err == "0 of 3 variants were pushed, each of them whole\n"
    assert shop.kept == []


def test_publishing_what_was_not_run() -> None:
    """A variant without a record is never published."""
    publication = Publication(images=Shop(), keep=print)

    with pytest.raises(TypeError):
        publication._publish(Wanted(STATIC, None, publishing.target("x.example/a", STATIC)))


# The command line


GIVEN = """\
version: 1
programs:
  hello-c:
    language: c
    source: .
    run: [alpine, scratch]
    link: static
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Give a project with a record, and no images."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NOX_VARIANTS_HOME", str(tmp_path / "home"))
    (tmp_path / "variants.yaml").write_text(GIVEN, encoding="utf-8")
    with History(tmp_path / ".variants" / "history.sqlite") as history:
        history.add(GOOD[0])
    yield tmp_path
    Store(tmp_path / "home").close()


@pytest.mark.usefixtures("project")
def test_image_that_is_gone(capsys: pytest.CaptureFixture[str]) -> None:
    """Without its image, a record is not published, and nobody is asked."""
    words = ["publish", "*scratch*", "--to", "x.example/a", "--dry-run"]

    assert main(words) == 1
    said = capsys.readouterr().err
    assert "hello-c(scratch,static): not published: its image is gone. Run the matrix" in said


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["*musl*", "--to", "x.example/a"], "no variant matches '*musl*'"),
        (["*", "--to", "x.example/a:1"], "--to 'x.example/a:1': has a tag"),
        (["*", "--to", "x.example/a", "--run", "2027"], "no run's id begins with '2027'"),
    ],
)
def test_mistakes(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A mistake on the command line is explained before anything is done."""
    assert main(["publish", *words]) == 2
    assert said in capsys.readouterr().err


def test_no_record(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Before the first run there is nothing to publish, and it is said how to get something."""
    (project / ".variants" / "history.sqlite").unlink()

    assert main(["publish", "*", "--to", "x.example/a"]) == 2
    assert "there is no record yet. `nox -s matrix` makes some." in capsys.readouterr().err


@pytest.mark.parametrize("words", [["*"], ["--to", "x.example/a"]])
def test_incomplete(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """What is published and where it goes have both to be said."""
    with pytest.raises(SystemExit) as caught:
        main(["publish", *words])
    assert caught.value.code == 2
    assert "the following arguments are required" in capsys.readouterr().err


def test_without_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without git publishes all the same, without a source."""

    def missing(*args: object, **_: object) -> NoReturn:
        raise FileNotFoundError(2, "No such file or directory", args)

    monkeypatch.setattr(subprocess, "run", missing)

    assert publish._remote(tmp_path) == ""


def test_source_date_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong SOURCE_DATE_EPOCH is a mistake before anything is sent."""
    import threading  # noqa: PLC0415

    monkeypatch.setattr(publish, "_remote", lambda _: "")
    store = Store(tmp_path / "home")
    with pytest.raises(UsageError, match="SOURCE_DATE_EPOCH"):
        Registry(
            "x.example",
            insecure=False,
            folder=tmp_path,
            store=store,
            environ={"SOURCE_DATE_EPOCH": "yesterday"},
            cancelled=threading.Event(),
        )
    store.close()
