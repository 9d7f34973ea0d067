"""One store and many processes: at once, killed at any moment, on a full disk."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING

import pytest

from nox_variants.errors import StoreError
from nox_variants.sandbox.bubblewrap import find_bwrap
from nox_variants.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

pytestmark = pytest.mark.subprocess

BEGIN = """
import os, sys, threading
from pathlib import Path
from nox_variants.errors import StoreError
from nox_variants.store import Store

def say(*words):
    print(*words, flush=True)

def write(folder, text, files=20):
    for number in range(files):
        (folder / str(number)).write_text(text)

home, name = Path(sys.argv[1]), sys.argv[2]
"""

PUBLISH = """
store = Store(home)
say("ready")
input()
for key in ("same", name):
    with store.publish("builds", key) as staging:
        write(staging, name)
"""

STUCK = """
store = Store(home)
with store.publish("builds", "key") as staging:
    write(staging, name)
    say("within", staging.name)
    input()
"""

BUSY = """
store, number = Store(home), 0
while True:
    with store.publish("builds", f"{name}-{number}") as staging:
        write(staging, name)
    say(number)
    number += 1
"""

LOCK = """
store = Store(home)
with store.lock("name", cancelled=threading.Event()):
    say("held")
    input()
"""

ENTER = """
say("ready")
input()
for _ in range(25):
    store = Store(home)
    lock = Path(store._owner_lock.lock_file)
    with store.staging() as staging:
        write(staging, name, 3)
        assert lock.exists() and len(os.listdir(staging)) == 3
    store._owner_lock.release()
"""

STAND = """
store = Store(home)
os.chdir(store.find("builds", "key"))
say("standing")
for _ in sys.stdin:
    say(len(os.listdir(".")))
"""

FULL = """
store = Store(home)
for size in (64, 2 * 1024 * 1024, 64):
    key = f"{size}-{len(list(home.glob('builds/*')))}"
    try:
        with store.publish("builds", key) as staging:
            (staging / "file").write_bytes(bytes(size))
        say("published", store.find("builds", key) is not None)
    except StoreError as error:
        say(str(error).removeprefix(str(home)))
        say("left", len([path for path in (home / "tmp").iterdir() if path.is_dir()]))
"""


class Child:
    """A process that does something with a store and can be talked to."""

    def __init__(self, script: str, home: Path, name: str, *prefix: str | Path) -> None:
        self.process = subprocess.Popen(
            [*prefix, sys.executable, "-c", BEGIN + script, home, name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def hear(self) -> str:
        """Return the next line that it says."""
        return _open(self.process.stdout).readline().strip()

    def tell(self) -> None:
        """Let it go on."""
        stream = _open(self.process.stdin)
        stream.write("\n")
        stream.flush()

    def kill(self) -> None:
        """End it as the kernel's out-of-memory killer would."""
        self.process.send_signal(signal.SIGKILL)
        self.end()

    def end(self) -> int:
        """Wait for its end and return its exit code."""
        self.process.communicate()
        return self.process.returncode


def _open(stream: IO[str] | None) -> IO[str]:
    assert stream is not None
    return stream


@contextmanager
def children(
    script: str, home: Path, names: Sequence[str], *prefix: str | Path
) -> Iterator[list[Child]]:
    """Start processes that are gone at the end, whatever happens."""
    made = [Child(script, home, name, *prefix) for name in names]
    try:
        yield made
    finally:
        for child in made:
            child.kill()


def texts(entry: Path) -> set[str]:
    """Return the different contents of an entry's files."""
    return {path.read_text(encoding="utf-8") for path in entry.iterdir()}


def staged(home: Path) -> list[str]:
    """Return what unfinished work lies in a store."""
    return [path.name for path in (home / "tmp").iterdir() if path.suffix != ".lock"]


def test_eight_processes_publish_at_once(home: Path) -> None:
    """Each key has one whole entry by one of its writers, and nothing is left over."""
    names = [f"writer-{number}" for number in range(8)]
    with children(PUBLISH, home, names) as writers:
        assert [writer.hear() for writer in writers] == ["ready"] * 8
        for writer in writers:
            writer.tell()
        assert [writer.end() for writer in writers] == [0] * 8

    assert {name: texts(home / "builds" / name) for name in names} == {
        name: {name} for name in names
    }
    assert len([*(home / "builds" / "same").iterdir()]) == 20
    assert len(texts(home / "builds" / "same")) == 1
    assert staged(home) == []


def test_killed_while_it_publishes(home: Path) -> None:
    """A process that is killed in the middle leaves no entry, and the next one sweeps the rest."""
    with children(STUCK, home, ["text"]) as (child,):
        within = child.hear().removeprefix("within ")
        child.kill()
    before = staged(home)
    store = Store(home)

    assert before == [within]
    assert store.find("builds", "key") is None
    assert staged(home) == []
    assert [path.name for path in (home / "tmp").iterdir()] == [f"{store._owner}.lock"]


def test_running_process_is_not_swept(home: Path) -> None:
    """What a process is working on stays while others come and go."""
    with children(STUCK, home, ["text"]) as (child,):
        within = child.hear().removeprefix("within ")
        Store(home)
        during = staged(home)
        child.tell()
        assert child.end() == 0

    assert during == [within]
    assert texts(home / "builds" / "key") == {"text"}


def test_killed_at_any_moment(home: Path) -> None:
    """However far a process came, every entry that is found is whole."""
    for number in range(6):
        with children(BUSY, home, [f"run-{number}"]) as (child,):
            for _ in range(2 + 3 * number):
                child.hear()
            child.kill()
    Store(home)
    entries = [*(home / "builds").iterdir()]

    assert len(entries) >= sum(2 + 3 * number for number in range(6))
    for entry in entries:
        assert len([*entry.iterdir()]) == 20
        assert texts(entry) == {entry.name.rpartition("-")[0]}
    assert staged(home) == []


def test_lock_of_a_killed_process_is_free(home: Path) -> None:
    """A lock is held while its process lives, and free as soon as it was killed."""
    store, given_up = Store(home), threading.Event()
    given_up.set()
    with children(LOCK, home, [""]) as (child,):
        child.hear()
        with pytest.raises(StoreError, match="cancelled"), store.lock("name", cancelled=given_up):
            raise AssertionError
        child.kill()
    with store.lock("name", cancelled=threading.Event()):
        taken = True

    assert taken


def test_processes_come_and_go(home: Path) -> None:
    """Nobody's lock or work is taken for a dead process's while many start at once."""
    with children(ENTER, home, list("abcd")) as made:
        assert [child.hear() for child in made] == ["ready"] * 4
        for child in made:
            child.tell()
        assert [child.end() for child in made] == [0] * 4

    assert staged(home) == []


def test_discarded_entry_under_another_process(home: Path) -> None:
    """Files that another process stands on stay until it is gone; the next process removes them."""
    store = Store(home)
    with store.publish("builds", "key") as staging:
        (staging / "file").touch()
    with children(STAND, home, [""]) as (child,):
        assert child.hear() == "standing"
        store.discard("builds", "key")
        store._owner_lock.release()
        Store(home)
        child.tell()
        seen = child.hear()
    after = staged(home)
    Store(home)

    assert seen == "1"
    assert len(after) == 1
    assert staged(home) == []


def test_corrupt_metadata_of_an_entry(home: Path) -> None:
    """Metadata that a disk has damaged is refused, and its entry can be made again."""
    store = Store(home)
    file = store.entry("builds", "key") / "entry.json"
    with store.publish("builds", "key") as staging:
        store.write_json(staging / "entry.json", {"text": "first"})
    with file.open("r+b") as opened:
        opened.seek(70)
        opened.write(b"\0")
    with pytest.raises(StoreError, match="was changed or cut off"):
        store.read_json(file)
    with store.publish("builds", "key", replace=True) as staging:
        store.write_json(staging / "entry.json", {"text": "second"})

    assert store.read_json(file) == {"text": "second"}


@pytest.mark.sandbox
def test_full_disk(home: Path) -> None:
    """A full disk is an error that says so; what was there stays good, and work goes on."""
    home.mkdir()
    prefix = (find_bwrap(), "--dev-bind", "/", "/", "--size", str(1024 * 1024), "--tmpfs", home)
    with children(FULL, home, [""], *prefix, "--") as (child,):
        said = [child.hear() for _ in range(4)]
        assert child.end() == 0

    full = "The disk is full: free some space, or point NOX_VARIANTS_HOME elsewhere."
    assert said == [
        "published True",
        f": No space left on device. {full}",
        "left 0",
        "published True",
    ]
    assert [*home.iterdir()] == []
