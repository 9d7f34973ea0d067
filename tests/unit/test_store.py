"""The store: entries appear whole, leftovers go, errors say what to do."""

from __future__ import annotations

import errno
import os
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from filelock import FileLock, Timeout
from hypothesis import given, settings
from hypothesis import strategies as st

from nox_variants import store as store_module
from nox_variants.errors import StoreError
from nox_variants.store import Store, default_home, look
from ordinary import ordinary_user

if TYPE_CHECKING:
    from collections.abc import Callable

NEVER = threading.Event()


def end(store: Store) -> None:
    """Let a store go, as the end of its process does."""
    store._owner_lock.release()


def content(folder: Path) -> dict[str, str]:
    """Return the files of a folder."""
    return {
        os.fspath(path.relative_to(folder)): path.read_text(encoding="utf-8")
        for path in folder.rglob("*")
        if path.is_file()
    }


def left(home: Path) -> list[str]:
    """Return what lies in the store's folder for unfinished work, locks aside."""
    return sorted(path.name for path in (home / "tmp").iterdir() if path.suffix != ".lock")


def publish(store: Store, key: str, text: str, *, replace: bool = False) -> None:
    with store.publish("builds", key, replace=replace) as staging:
        (staging / "file").write_text(text, encoding="utf-8")


def test_home_of_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """NOX_VARIANTS_HOME counts, also a relative one; else it is the platform's cache folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    assert default_home({"NOX_VARIANTS_HOME": "here"}) == tmp_path / "here"
    assert default_home({"NOX_VARIANTS_HOME": ""}) == tmp_path / "cache" / "nox-variants"


def test_entry_appears_when_it_is_complete(home: Path) -> None:
    """While an entry is made nobody finds it; then it holds what was written, folders too."""
    store = Store(home)
    with store.publish("images", "ab") as staging:
        (staging / "root" / "empty").mkdir(parents=True)
        (staging / "root" / "file").write_text("text", encoding="utf-8")
        (staging / "root" / "link").symlink_to("nowhere")
        os.mkfifo(staging / "root" / "pipe")
        during = store.find("images", "ab")
    entry = store.find("images", "ab")

    assert during is None
    assert entry == store.entry("images", "ab") == home / "images" / "ab"
    assert sorted(path.name for path in (entry / "root").iterdir()) == [
        "empty",
        "file",
        "link",
        "pipe",
    ]
    assert left(home) == []


def test_failed_block_leaves_nothing(home: Path) -> None:
    """An error in the block comes out as it is, and there is neither an entry nor a leftover."""
    store = Store(home)

    def make() -> None:
        with store.publish("builds", "key") as staging:
            (staging / "closed").mkdir(mode=0)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        make()

    assert store.find("builds", "key") is None
    assert left(home) == []


def test_second_comer_finds_the_first(home: Path) -> None:
    """Publishing a key that is there changes nothing, and is no error."""
    store = Store(home)
    publish(store, "key", "first")
    publish(store, "key", "second")

    assert content(home / "builds" / "key") == {"file": "first"}
    assert left(home) == []


def test_replacing_an_entry(home: Path) -> None:
    """An entry that is replaced is never in pieces: the new one stands in its place."""
    store = Store(home)
    publish(store, "key", "first", replace=True)
    publish(store, "key", "second", replace=True)

    assert content(home / "builds" / "key") == {"file": "second"}


def test_discarded_entry_is_gone_at_once(home: Path) -> None:
    """Nobody finds an entry after it was discarded, and discarding nothing is no error."""
    store = Store(home)
    publish(store, "key", "text")
    store.discard("builds", "key")
    store.discard("builds", "key")

    assert store.find("builds", "key") is None


def test_discarded_files_stay_while_another_process_runs(home: Path) -> None:
    """A sandbox may stand on an entry's files: they go when a process finds itself alone."""
    user, other = Store(home), Store(home)
    publish(user, "key", "text")
    standing = Path(f"/proc/self/fd/{os.open(home / 'builds' / 'key', os.O_RDONLY)}")
    other.discard("builds", "key")
    end(other)

    third = Store(home)
    seen = content(standing)
    end(third)
    end(user)
    Store(home)
    seen_alone = content(standing)
    os.close(int(standing.name))

    assert seen == {"file": "text"}
    assert seen_alone == {}
    assert left(home) == []


def test_leftovers_of_the_dead_are_removed(home: Path) -> None:
    """What a process left that holds no lock any more goes with its lock, and nothing else."""
    alive = Store(home)
    with alive.staging() as staging:
        (home / "tmp" / "1-dead.lock").touch()
        (home / "tmp" / "1-dead.format").touch()
        (home / "tmp" / "1-dead.abc" / "deep").mkdir(parents=True)
        Store(home)

        assert staging.is_dir()
        assert left(home) == [staging.name]
    assert not (home / "tmp" / "1-dead.lock").exists()


def test_lock_that_cannot_be_opened_is_not_touched(home: Path) -> None:
    """A lock that this user cannot open is taken for a living process's."""
    (home / "tmp" / "1-other.lock").mkdir(parents=True)
    (home / "tmp" / "1-other.abc").mkdir()
    (home / "tmp" / "discarded.abc").mkdir()
    Store(home)

    assert sorted(left(home)) == ["1-other.abc", "discarded.abc"]


def test_closed_folders_are_removed(home: Path) -> None:
    """Folders that even their owner may not enter or change go like any other."""
    outside = home.parent / "outside"
    outside.mkdir(mode=0o500)
    dead = home / "tmp" / "1-dead.abc"
    for name in ("closed", "read-only", "read-only/within"):
        (dead / name).mkdir(parents=True)
        (dead / name / "file").touch()
    (dead / "read-only" / "link").symlink_to(outside)
    for name, mode in (("closed", 0), ("read-only/within", 0o500), ("read-only", 0o500)):
        (dead / name).chmod(mode)
    dead.chmod(0o500)
    (home / "tmp" / "1-dead.lock").touch()
    with ordinary_user():
        Store(home)

    assert left(home) == []
    assert outside.stat().st_mode & 0o777 == 0o500


def test_entry_with_an_unreadable_file(home: Path) -> None:
    """A file that its owner may not read does not keep an ordinary user from publishing."""
    store = Store(home)
    with ordinary_user(), store.publish("builds", "key") as staging:
        (staging / "closed").mkdir()
        (staging / "file").touch(mode=0)
        (staging / "closed").chmod(0)

    assert store.find("builds", "key") is not None


def test_entry_of_many_files(home: Path) -> None:
    """An entry of more files than are worth syncing one by one is published like any other."""
    store = Store(home)
    with store.publish("builds", "key") as staging:
        for number in range(2 * store_module._FEW):
            (staging / str(number)).write_text(str(number), encoding="ascii")

    assert content(home / "builds" / "key") == {
        str(number): str(number) for number in range(2 * store_module._FEW)
    }


def test_entry_is_on_disk_before_it_appears(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file and folder is synced while the entry is made, and then the place that names it."""
    synced, sync = [], os.fsync

    def note(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        synced.append(os.fspath(path.relative_to(home)))
        sync(descriptor)

    store = Store(home)
    monkeypatch.setattr(os, "fsync", note)
    with store.publish("builds", "key") as staging:
        (staging / "sub").mkdir()
        (staging / "sub" / "file").touch()
        within = f"tmp/{staging.name}"

    assert sorted(synced[:-1]) == [within, f"{within}/sub", f"{within}/sub/file"]
    assert synced[-1] == "builds"


def test_failed_sync_is_an_error() -> None:
    """What the kernel says to a whole file system's sync is not swallowed."""
    with pytest.raises(OSError, match="Bad file descriptor") as raised:
        store_module._sync_file_system(-1)

    assert raised.value.errno == errno.EBADF


@pytest.mark.parametrize("found", [b"2\n", b"", b"\xff\xfe"])
def test_home_of_another_version_is_left_alone(home: Path, found: bytes) -> None:
    """A home of another format is refused with what to do, and nothing in it is touched."""
    home.mkdir()
    (home / "format").write_bytes(found)

    with pytest.raises(StoreError, match=r"made by another nox-variants .*not 1\)\. Remove the f"):
        Store(home)

    assert [path.name for path in home.iterdir()] == ["format"]


def test_home_is_marked_with_its_format(home: Path) -> None:
    """The first process writes the format, the next ones accept it."""
    end(Store(home))
    Store(home)

    assert (home / "format").read_text(encoding="ascii") == "1\n"


@pytest.mark.parametrize(
    ("number", "hint"),
    [
        (errno.ENOSPC, "The disk is full: free some space"),
        (errno.EDQUOT, "Your quota is used up"),
        (errno.EROFS, "The file system is read-only"),
        (errno.EAGAIN, "This machine is short of processes"),
        (errno.EIO, "Does the folder exist, and is it yours"),
    ],
)
def test_disk_says_no(home: Path, number: int, hint: str) -> None:
    """What the disk says becomes an error of one line that names the place and what to do."""
    store = Store(home)

    with pytest.raises(StoreError) as raised, store.publish("builds", "key"):
        raise OSError(number, os.strerror(number))

    assert str(raised.value).startswith(f"{home}: {os.strerror(number)}. {hint}")
    assert store.find("builds", "key") is None


def test_home_of_another_user(home: Path) -> None:
    """A home in which nothing can be made is refused, with the folder and what to do."""
    home.mkdir(mode=0o500)

    with ordinary_user(), pytest.raises(StoreError, match=r"home/tmp: Permission denied\. Ano"):
        Store(home)


@pytest.mark.parametrize("name", ["home", "home/below"])
def test_home_that_is_a_file(home: Path, name: str) -> None:
    """A file in the place of the home, or of a folder above it, is an error, not a traceback."""
    home.write_text("text", encoding="utf-8")

    with pytest.raises(StoreError, match=r"home.*: Not a directory\. Does the folder exist"):
        Store(home.parent / name)


def test_file_in_the_place_of_an_entry(home: Path) -> None:
    """Something else in an entry's place is an error that names it, never overwritten."""
    store = Store(home)
    (home / "builds").mkdir()
    (home / "builds" / "key").write_text("mine", encoding="utf-8")

    with pytest.raises(StoreError, match="Not a directory"):
        publish(store, "key", "text")

    assert store.find("builds", "key") is None
    assert (home / "builds" / "key").read_text(encoding="utf-8") == "mine"


def test_folders_for_other_purposes(home: Path) -> None:
    """Caches and other folders are made once and keep what is in them."""
    store = Store(home)
    (store.cache("go") / "file").touch()
    (store.folder("apt") / "file").touch()

    assert [path.name for path in store.cache("go").iterdir()] == ["file"]
    assert store.cache("go") == home / "caches" / "go"
    assert store.folder("apt") == home / "apt"
    assert (home / "apt" / "file").exists()


class Asked(threading.Event):
    """An event that does something when it is asked for the second time: it sets itself."""

    def __init__(self, action: Callable[[], object] | None = None) -> None:
        super().__init__()
        self._action = action or self.set
        self._asked = 0

    def is_set(self) -> bool:
        self._asked += 1
        if self._asked == 2:
            self._action()
        return super().is_set()


def test_lock_excludes(home: Path) -> None:
    """A lock is waited for, and taken when the one who holds it lets it go."""
    store = Store(home)
    log = []
    holder = store.lock("name", cancelled=NEVER)
    holder.__enter__()

    def let_go() -> None:
        log.append("let go")
        holder.__exit__(None, None, None)

    with store.lock("name", cancelled=Asked(let_go)), store.lock("other", cancelled=NEVER):
        log.append("taken")

    assert log == ["let go", "taken"]


def test_lock_is_free_after_an_error(home: Path) -> None:
    """An error in the block comes out, and the lock can be taken again."""
    store = Store(home)
    with pytest.raises(ZeroDivisionError), store.lock("name", cancelled=NEVER):
        raise ZeroDivisionError

    with store.lock("name", cancelled=NEVER):
        assert [file.name for file in (home / "locks").iterdir() if len(file.name) == 64]


def test_cancelling_ends_the_wait(home: Path) -> None:
    """Who waits for a lock when the run is cancelled gets an error, and the lock stays held."""
    store = Store(home)

    with store.lock("name", cancelled=NEVER):
        with pytest.raises(StoreError, match="cancelled"), store.lock("name", cancelled=Asked()):
            raise AssertionError
        file = next(file for file in (home / "locks").iterdir() if len(file.name) == 64)

        with pytest.raises(Timeout):
            FileLock(file).acquire(blocking=False)


def test_finding_an_entry_is_using_it(home: Path) -> None:
    """The time of an entry, and of a folder kept between builds, is when it was used last."""
    store = Store(home)
    publish(store, "key", "text")
    paths = (home / "builds" / "key", store.cache("go"))
    for path in paths:
        os.utime(path, (1000, 1000))
    store.entry("builds", "key")
    before = [path.stat().st_mtime for path in paths]
    store.find("builds", "key")
    store.cache("go")

    assert before == [1000, 1000]
    assert all(path.stat().st_mtime > 1000 for path in paths)


def test_guarded_store_lets_nobody_in(home: Path) -> None:
    """Who guards a store knows the processes that are in, and keeps others out until the end."""
    store, other = Store(home), Store(home)
    lock = FileLock(home / "locks" / "enter")
    with store.guarded() as others, pytest.raises(Timeout):
        lock.acquire(blocking=False)
    other.close()
    with store.guarded() as nobody:
        pass
    lock.acquire(blocking=False)
    lock.release()

    assert others == (os.getpid(),)
    assert nobody == ()


def test_looking_changes_nothing(home: Path) -> None:
    """A look tells who is in and what the next one removes, and leaves all of it there."""
    store = Store(home)
    publish(store, "key", "text")
    store.discard("builds", "key")
    for name in ("1-dead.lock", "1-dead.format"):
        (home / "tmp" / name).touch()
    (home / "tmp" / "1-dead.abc").mkdir()
    dead = {home / "tmp" / name for name in ("1-dead.format", "1-dead.abc")}
    during = look(home)
    store.close()
    alive, left = look(home)
    discarded = set(left) - dead

    assert (during[0], set(during[1])) == ((os.getpid(),), dead)
    assert alive == ()
    assert [path.name.partition(".")[0] for path in discarded] == ["discarded"]
    assert all(path.exists() for path in (*left, home / "tmp" / "1-dead.lock"))


def test_looking_into_what_is_no_store(home: Path) -> None:
    """A folder that is not there, or is empty, holds nothing, and nothing is made in it."""
    absent = look(home)
    home.mkdir()
    empty = look(home)

    assert absent == empty == ((), ())
    assert [*home.iterdir()] == []


def test_looking_into_another_version(home: Path) -> None:
    """A store of another format is refused by a look, too."""
    home.mkdir()
    (home / "format").write_text("2", encoding="ascii")

    with pytest.raises(StoreError, match="made by another nox-variants"):
        look(home)


def test_lock_with_a_strange_name(home: Path) -> None:
    """A lock that does not say whose it is counts as a process."""
    (home / "tmp" / "strange.lock").mkdir(parents=True)
    Store(home)

    assert look(home)[0] == (0,)


SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()


@settings(max_examples=50, deadline=None)
@given(values=st.dictionaries(st.text(), SCALARS | st.lists(SCALARS)), data=st.data())
def test_metadata_is_whole_or_refused(values: dict[str, Any], data: st.DataObject) -> None:
    """Metadata comes back as it was written, and is refused when one byte of it is not."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "entry.json")
        Store.write_json(file, values)
        back = Store.read_json(file)
        written = file.read_bytes()
        at = data.draw(st.integers(0, len(written) - 2))
        other = data.draw(st.integers(0, 255).filter(lambda byte: byte != written[at]))
        file.write_bytes(written[:at] + bytes([other]) + written[at + 1 :])

        assert back == values
        assert [*Path(folder).iterdir()] == [file]
        with pytest.raises(StoreError):
            Store.read_json(file)


@pytest.mark.parametrize("length", [0, 10, 64, 65, 70])
def test_metadata_that_was_cut_off(tmp_path: Path, length: int) -> None:
    """Metadata that is not complete is an error that names the file."""
    file = tmp_path / "entry.json"
    Store.write_json(file, {"name": "value"})
    file.write_bytes(file.read_bytes()[:length])

    with pytest.raises(StoreError, match=r"entry\.json: was changed or cut off\. It will be made"):
        Store.read_json(file)


@pytest.mark.parametrize(
    ("found", "message"), [(None, "No such file"), (b"\xff\n\xff", "codec can't decode")]
)
def test_metadata_that_cannot_be_read(tmp_path: Path, found: bytes | None, message: str) -> None:
    """Missing metadata and metadata that is no text are errors that say so."""
    file = tmp_path / "entry.json"
    if found is not None:
        file.write_bytes(found)

    with pytest.raises(StoreError, match=f"entry.json: cannot be read: .*{message}"):
        Store.read_json(file)
