"""Cleaning: what goes, what stays, and why, without a daemon."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from docker.errors import APIError, NotFound
from hypothesis import given
from hypothesis import strategies as st
from requests import Response

from nox_variants import cleanup, usage
from nox_variants.cleanup import Kept, Removed, Wishes
from nox_variants.cli import main
from nox_variants.commands import clean
from nox_variants.engines.docker.connection import Daemon
from nox_variants.engines.docker.labels import ended as is_over
from nox_variants.model import LinkMode
from nox_variants.names import image_tag
from nox_variants.results import EngineInfo, EngineName
from nox_variants.store import Store
from nox_variants.usage import Meter, Part
from samples import variant

NOW = 1_000_000.0
DAY = 86400.0


def fill(store: Store, *names: str) -> list[Path]:
    """Make entries, ``KIND/KEY``, each used a day before the next one, the last one now."""
    paths = []
    for number, name in enumerate(reversed(names)):
        kind, _, key = name.partition("/")
        path = store.home / kind / key
        path.mkdir(parents=True)
        (path / "file").write_bytes(bytes(100_000))
        os.utime(path, (NOW - number * DAY, NOW - number * DAY))
        paths.append(path)
    return paths[::-1]


def there(home: Path) -> list[str]:
    """Return the entries of a store and what lies in it for unfinished work, locks aside."""
    return sorted(
        os.fspath(path.relative_to(home))
        for path in home.glob("*/*")
        if path.suffix != ".lock" and path.parent.name != "locks"
    )


def end(store: Store) -> Path:
    """Let a store go, and return its home."""
    store.close()
    return store.home


# --- what is asked for --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "size"), [("0", 0), ("5GB", 5 * 10**9), ("1.5 MiB", 1572864), ("1000", 1000)]
)
def test_size(text: str, size: int) -> None:
    """Sizes are written as in variants.yaml, and nothing at all is a size, too."""
    assert clean.size(text) == size


@pytest.mark.parametrize(
    ("text", "seconds"), [("30d", 30 * DAY), ("12h", DAY / 2), ("2w", 14 * DAY), ("1.5 m", 90.0)]
)
def test_age(text: str, seconds: float) -> None:
    """Ages are numbers with a unit."""
    assert clean.age(text) == seconds


@pytest.mark.parametrize("text", ["", "-1", "5 apples", "1e3", "9999TB"])
def test_what_is_neither(text: str) -> None:
    """What is no size or no age is refused with examples."""
    with pytest.raises(argparse.ArgumentTypeError, match=r"is no size\. Write 5GB"):
        clean.size(text)
    with pytest.raises(argparse.ArgumentTypeError, match=r"is no time\. Write 30d"):
        clean.age(text)


def test_mistake_on_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong age is a mistake of one line, and nothing is cleaned."""
    with pytest.raises(SystemExit) as caught:
        main(["clean", "--older-than", "long"])

    assert caught.value.code == 2
    assert "argument --older-than: 'long' is no time. Write 30d" in capsys.readouterr().err


# --- what the store holds -----------------------------------------------------------------------


def test_meter(tmp_path: Path) -> None:
    """Blocks on the disk count, a file with two names once, and what is gone not at all."""
    (tmp_path / "file").write_bytes(bytes(1_000_000))
    alone = Meter().size(tmp_path / "file")
    os.link(tmp_path / "file", tmp_path / "again")
    (tmp_path / "hole").touch()
    os.truncate(tmp_path / "hole", 10**9)
    (tmp_path / "link").symlink_to("/")
    folder = tmp_path.stat().st_blocks * 512

    assert alone >= 1_000_000
    assert alone <= Meter().size(tmp_path) <= alone + folder + 4096
    assert Meter().size(tmp_path / "gone") == 0


@given(most=st.integers(0, 4))
def test_meter_with_a_limit(most: int) -> None:
    """A meter that stopped says so, whatever it was asked afterwards."""
    meter = Meter(most)
    meter.size(Path("/proc/self/status"))
    meter.size(Path("/proc/self/stat"))

    assert meter.spent is (most < 2)


def test_parts_of_a_store(home: Path) -> None:
    """Parts come in the order of their use; an image is used when a name of it is."""
    store = Store(home)
    digest = "ab" * 32
    fill(store, f"images/{digest}", "builds/old", "caches/go", "layers/new")
    fill(store, "refs/name", "refs/broken", "facts/key")
    (home / "refs/name/file").unlink()
    store.write_json(home / "refs/name/image.json", {"digest": f"sha256:{digest}"})
    os.utime(home / "refs/name", (NOW + DAY, NOW + DAY))
    (home / "refs/broken/image.json").write_text("broken", encoding="ascii")
    os.utime(home / "refs/broken", (NOW - DAY, NOW - DAY))

    found = {part.path.name: (part.kind, part.used) for part in usage.parts(home)}

    assert found == {
        "old": ("builds", NOW - 2 * DAY),
        "broken": ("refs", NOW - DAY),
        "go": ("caches", NOW - DAY),
        "key": ("facts", NOW),
        "new": ("layers", NOW),
        digest: ("images", NOW + DAY),
        "name": ("refs", NOW + DAY),
    }
    assert [*found.values()] == sorted(found.values(), key=lambda each: each[1])


def test_downloads_are_parts(home: Path) -> None:
    """A package that apt downloaded was used when it came, whatever time the mirror gave it."""
    archives = home / "apt" / "archives"
    (archives / "partial").mkdir(parents=True)
    (archives / "busybox.deb").touch()
    os.utime(archives / "busybox.deb", (1000, 1000))

    (found,) = usage.parts(home)

    assert (found.kind, found.path) == ("apt/archives", archives / "busybox.deb")
    assert found.used == (archives / "busybox.deb").stat().st_ctime


def test_part_that_vanishes(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What goes away while the store is looked through is left out."""
    fill(Store(home), "builds/gone", "builds/here")
    look = Path.lstat

    def lstat(path: Path) -> os.stat_result:
        if path.name == "gone":
            raise FileNotFoundError
        return look(path)

    monkeypatch.setattr(Path, "lstat", lstat)

    assert [part.path.name for part in usage.parts(home)] == ["here"]


MEASURED = st.dictionaries(
    st.integers(0, 100).map(lambda n: Part(kind="builds", path=Path(f"/{n}"), used=n * DAY)),
    st.integers(0, 1000),
)


@given(measured=MEASURED, keep=st.integers(0, 20_000))
def test_surplus_by_size(measured: dict[Part, int], keep: int) -> None:
    """What stays is no more than asked for, and what goes was used before all that stays."""
    gone = usage.surplus(measured, keep=keep, older_than=None, now=NOW)
    stays = measured.keys() - set(gone)

    assert sum(measured[part] for part in stays) <= keep
    assert all(one.used <= other.used for one in gone for other in stays)
    if gone:
        assert sum(measured[part] for part in stays) + measured[gone[-1]] > keep


@given(measured=MEASURED, days=st.integers(0, 100))
def test_surplus_by_age(measured: dict[Part, int], days: int) -> None:
    """What was not used for longer goes, whatever its size, and nothing else."""
    gone = usage.surplus(measured, keep=None, older_than=days * DAY, now=100 * DAY)

    assert {part.used for part in gone} == {
        part.used for part in measured if part.used < (100 - days) * DAY
    }


def test_nothing_is_surplus_by_itself() -> None:
    """Without a size and an age everything stays."""
    measured = {Part(kind="builds", path=Path("/old"), used=0): 10**12}

    assert usage.surplus(measured, keep=None, older_than=None, now=NOW) == ()


# --- the store ----------------------------------------------------------------------------------


def cleaned(home: Path, **wishes: Any) -> list[cleanup.Result]:
    return [*cleanup.clean_store(home, Wishes(**wishes), now=NOW)]


def test_no_store(home: Path) -> None:
    """Where there is no store none is made."""
    assert cleaned(home, keep=0) == []
    assert not home.exists()


def test_leftovers_only(home: Path) -> None:
    """Without options only what a killed process left goes, and its size is said."""
    fill(Store(home), "builds/key")
    (home / "tmp" / "1-dead.lock").touch()
    (home / "tmp" / "1-dead.abc").mkdir()
    (home / "tmp" / "1-dead.abc" / "file").write_bytes(bytes(500_000))
    dry = cleaned(home, dry_run=True)
    before = there(home)
    found = cleaned(home)

    assert dry == found
    assert before == ["builds/key", "tmp/1-dead.abc"]
    (removed,) = found
    assert isinstance(removed, Removed)
    assert removed.what == "1 piece of unfinished work"
    assert removed.freed is not None
    assert removed.freed >= 500_000
    assert there(home) == ["builds/key"]
    assert cleaned(home) == []


def test_oldest_parts_go_first(home: Path) -> None:
    """Of four equal parts the two that were used last stay where there is room for two."""
    paths = fill(Store(home), "builds/a", "images/b", "layers/c", "sources/d")
    one = Meter().size(paths[0])
    dry = cleaned(home, keep=2 * one, dry_run=True)
    before = there(home)
    found = cleaned(home, keep=2 * one)

    assert dry == found
    assert found == [
        Removed(place="store", what="2 of 4 parts (images 1, builds 1)", freed=2 * one)
    ]
    assert len(before) == 4
    assert there(home) == ["layers/c", "sources/d"]


def test_old_parts_go(home: Path) -> None:
    """What was not used for a day and a half goes, downloads and caches too."""
    fill(Store(home), "caches/a", "builds/b", "layers/c", "sources/d")
    cleaned(home, older_than=1.5 * DAY)

    assert there(home) == ["layers/c", "sources/d"]


def test_nothing_kept(home: Path) -> None:
    """With no room at all every part goes, and the store is as good as new."""
    store = Store(home)
    fill(store, "refs/a", "images/b", "facts/c")
    end(store)
    cleaned(home, keep=0)
    again = Store(home)
    with again.publish("builds", "key"):
        pass

    assert there(home) == ["builds/key"]


def test_store_in_use(home: Path) -> None:
    """While another process is in the store its parts stay, and its number is said."""
    user = Store(home)
    fill(user, "builds/key")
    dry = cleaned(home, keep=0, dry_run=True)
    found = cleaned(home, keep=0)
    during = there(home)
    end(user)
    cleaned(home, keep=0)

    assert dry == found
    assert found == [
        Kept(
            place="store",
            what="1 of 1 part (builds 1)",
            why=f"in use by process {os.getpid()}; again when it has ended",
        )
    ]
    assert during == ["builds/key"]
    assert there(home) == []


def test_store_in_use_with_nothing_to_remove(home: Path) -> None:
    """Nothing to remove is no complaint, whoever is in the store."""
    user = Store(home)
    fill(user, "builds/key")

    assert cleaned(home, keep=10**9) == [Removed(place="store", what="0 of 1 part", freed=0)]


def test_parts_that_are_gone_meanwhile(home: Path) -> None:
    """A part that somebody removed by hand in this moment is no error."""
    store = Store(home)
    (path,) = fill(store, "builds/key")
    gone = Part(kind="builds", path=home / "builds" / "gone", used=0)
    here = Part(kind="builds", path=path, used=0)

    assert cleanup._move_away(store, (gone, here)) == ()
    assert there(home) == []


# --- daemons ------------------------------------------------------------------------------------

VARIANT = variant("busybox:glibc", LinkMode.STATIC)
LABELS = {
    "nox-variants.variant": str(VARIANT.id),
    "org.opencontainers.image.title": VARIANT.program,
}
TAG = f"{VARIANT.program}:{image_tag(VARIANT)}"


def listed(*tags: str, labels: dict[str, str] | None = None) -> dict[str, Any]:
    """Return an image as a daemon lists it."""
    return {"Id": "sha256:1", "RepoTags": [*tags] or None, "Labels": labels}


@pytest.mark.parametrize("prefix", ["", "docker.io/library/", "docker.io/", "localhost/"])
@pytest.mark.parametrize("name", ["nox-variants/build:ab", "nox-variants/stand-in:cd"])
def test_means_may_go(prefix: str, name: str) -> None:
    """Build stages and stand-ins go, under the names that Podman gives them as well."""
    image = listed(prefix + name, labels={"nox-variants.stage": "ab"})

    assert cleanup.removable(image, variants=False) == (prefix + name,)


@pytest.mark.parametrize("prefix", ["", "docker.io/library/", "localhost/"])
def test_variants_go_when_it_is_asked_for(prefix: str) -> None:
    """A variant's image is the user's: it goes on request only."""
    image = listed(prefix + TAG, labels=LABELS)

    assert cleanup.removable(image, variants=False) == ()
    assert cleanup.removable(image, variants=True) == (prefix + TAG,)


def test_variant_with_a_tag_that_was_cut() -> None:
    """A tag that is too long to say the link mode is a variant's all the same."""
    image = listed(f"{VARIANT.program}:{'a' * 128}", labels=LABELS)

    assert cleanup.removable(image, variants=True) == tuple(image["RepoTags"])


@pytest.mark.parametrize(
    "image",
    [
        listed("nox-variants/build:ab"),
        listed("nox-variants/build:ab", labels={"maintainer": "me"}),
        listed("mine:latest", labels=LABELS),
        listed(f"{VARIANT.program}:v1", labels=LABELS),
        listed(f"ghcr.io/me/{TAG}", labels=LABELS),
        listed("mine/nox-variants/build:ab", labels=LABELS),
        listed(TAG, labels={"nox-variants.stand-in": "gcc"}),
        listed("<none>:<none>", labels=LABELS),
        listed(labels=LABELS),
    ],
)
def test_what_is_not_ours_stays(image: dict[str, Any]) -> None:
    """Neither names without labels nor labels that came from an image below are enough."""
    assert cleanup.removable(image, variants=True) == ()


def test_one_of_two_names() -> None:
    """A name that the user gave to a build stage stays."""
    image = listed("nox-variants/build:ab", "mine:1", labels={"nox-variants.stage": "ab"})

    assert cleanup.removable(image, variants=True) == ("nox-variants/build:ab",)


@pytest.mark.parametrize(
    ("owner", "ended"),
    [
        ("here:12", False),
        ("here:34", True),
        ("there:34", False),
        ("34", False),
        ("here:", False),
        ("here:../34", False),
        ("", False),
    ],
)
def test_owner_that_has_ended(tmp_path: Path, owner: str, *, ended: bool) -> None:
    """Only a process of this machine that is no more is known to have ended."""
    (tmp_path / "12").mkdir()

    assert is_over(owner, "here", tmp_path) is ended


class Images:
    """The images and containers of a daemon, as its API shows them."""

    def __init__(self, images: list[dict[str, Any]], containers: list[str]) -> None:
        self._images = images
        self._containers = containers
        self.asked: list[str] = []

    def containers(self, **_: object) -> list[dict[str, Any]]:
        """Return containers."""
        return [{"Labels": {"nox-variants.owner": owner}} for owner in self._containers]

    def images(self, *, filters: dict[str, bool] | None = None) -> list[dict[str, Any]]:
        """Return images, or the untagged ones."""
        return [each for each in self._images if not filters or not each["RepoTags"]]

    def remove_image(self, name: str) -> None:
        """Refuse what is in use, and what is gone."""
        self.asked.append(name)
        if name.endswith("used"):
            response = Response()
            response.status_code = 409
            raise APIError("conflict", response, "in use by a container")
        if name.endswith("gone"):
            response = Response()
            response.status_code = 404
            raise NotFound("no such image", response)
        self._images = [each for each in self._images if name not in (each["RepoTags"] or ())]


def daemon(
    api: Images, *sizes: int, name: EngineName = EngineName.DOCKER, error: bool = False
) -> Daemon:
    """Return a daemon whose layers take so many bytes, one after the other."""
    answers = iter(sizes)

    def df() -> dict[str, int]:
        if error:
            raise APIError("no")
        return {"LayersSize": next(answers)}

    client: Any = SimpleNamespace(api=api, df=df)
    return Daemon(
        client=client,
        info=EngineInfo(name=name, version="1"),
        id="ID",
        why="DOCKER_HOST",
        environ=(),
    )


STAGE = {"nox-variants.stage": "ab"}


def test_images_go(home: Path) -> None:
    """Means go, what is gone already does not count, and what is in use stays with the reason."""
    api = Images(
        [
            listed("nox-variants/build:ab", labels=STAGE),
            listed("nox-variants/build:gone", labels=STAGE),
            listed("nox-variants/stand-in:used", labels=STAGE),
            listed(TAG, labels=LABELS),
            listed("mine:1"),
        ],
        [],
    )
    dry = [*cleanup.clean_daemon(daemon(api, 900), home, Wishes(dry_run=True))]
    made = home.exists()
    found = [*cleanup.clean_daemon(daemon(api, 900, 200), home, Wishes())]

    assert (dry, made) == ([Removed(place="docker", what="3 images")], False)
    assert found == [
        Removed(place="docker", what="1 image", freed=700),
        Kept(
            place="docker",
            what="nox-variants/stand-in:used",
            why="the daemon says: in use by a container",
        ),
    ]
    assert api.asked == [
        "nox-variants/build:ab",
        "nox-variants/build:gone",
        "nox-variants/stand-in:used",
    ]


def test_untagged_images_are_tried_once(home: Path) -> None:
    """An untagged image that stays, and is listed again, ends the work."""
    api = Images([{**listed(labels=STAGE), "Id": "sha256:used"}, {**listed(), "Id": "other"}], [])
    found = [*cleanup.clean_daemon(daemon(api, 900), home, Wishes())]

    assert [each.what for each in found] == ["sha256:used"]
    assert api.asked == ["sha256:used"]


@pytest.mark.parametrize("name", [EngineName.PODMAN, EngineName.DOCKER])
def test_daemon_that_does_not_say_sizes(home: Path, name: EngineName) -> None:
    """Podman's figure is 0, and a daemon may refuse it: then no bytes are said."""
    api = Images([listed("nox-variants/build:ab", labels=STAGE)], [])
    asked = daemon(api, 0, 0, name=name, error=name is EngineName.DOCKER)

    assert [*cleanup.clean_daemon(asked, home, Wishes())] == [
        Removed(place=name, what="1 image", freed=None)
    ]


def test_containers_of_others_keep_the_images(home: Path) -> None:
    """A run of another machine may be using the images of a daemon that is shared."""
    api = Images([listed("nox-variants/build:ab", labels=STAGE)], ["there:1", "there:1"])

    assert [*cleanup.clean_daemon(daemon(api), home, Wishes())] == [
        Kept(
            place="docker",
            what="images",
            why="runs of there:1 have containers; again when they have ended",
        )
    ]
    assert api.asked == []


@pytest.mark.parametrize("dry_run", [True, False])
def test_running_process_keeps_the_images(home: Path, *, dry_run: bool) -> None:
    """A run that has no container yet is known by the store."""
    api = Images([listed("nox-variants/build:ab", labels=STAGE)], [])
    user = Store(home)
    found = [*cleanup.clean_daemon(daemon(api, 1), home, Wishes(dry_run=dry_run))]
    end(user)

    assert found == [
        Kept(
            place="docker",
            what="images",
            why=f"in use by process {os.getpid()}; again when it has ended",
        )
    ]
    assert api.asked == []


# --- all of it ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("result", "dry", "wet"),
    [
        (
            Removed(place="store", what="2 of 4 parts", freed=1_500_000),
            "store: would remove 2 of 4 parts, 1.5 MB",
            "store: removed 2 of 4 parts, 1.5 MB",
        ),
        (
            Removed(place="docker", what="1 image"),
            "docker: would remove 1 image",
            "docker: removed 1 image",
        ),
        (
            Kept(place="docker", what="images", why="in use"),
            "docker: kept images: in use",
            "docker: kept images: in use",
        ),
    ],
)
def test_lines(result: cleanup.Result, dry: str, wet: str) -> None:
    """Each result is a line that says where, what and how much."""
    assert cleanup.line(result, dry_run=True) == dry
    assert cleanup.line(result, dry_run=False) == wet


def test_no_trouble_stops_the_rest(
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A store of another version and daemons that should answer are all said; the status is 1."""
    home.mkdir()
    (home / "format").write_text("2", encoding="ascii")
    monkeypatch.setenv("NOX_VARIANTS_HOME", str(home))
    for name in ("DOCKER_HOST", "CONTAINER_HOST"):
        monkeypatch.setenv(name, f"unix://{tmp_path}/{name}")

    assert main(["clean"]) == 1

    said = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in said] == ["store", "docker", "podman"]
    assert "made by another nox-variants (format '2', not 1). Remove the folder" in said[0]
    assert said[1].startswith("docker: kept everything: docker does not answer: unix://")


def test_nothing_to_remove(
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Without a store and without daemons that is what is said; the status is 0."""
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    monkeypatch.setattr(Path, "exists", lambda _: False)
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.delenv("CONTAINER_HOST", raising=False)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("NOX_VARIANTS_HOME", str(home))

    assert main(["clean", "--keep", "0"]) == 0
    assert capsys.readouterr().out == "nothing to remove\n"
