"""The store: a content-addressed folder that several processes share and may be killed over.

``NOX_VARIANTS_HOME`` holds entries as folders, ``KIND/KEY/``. An entry appears by one rename when
it is complete and on disk; what a killed process leaves lies in ``tmp/`` and is removed by the
next one. An entry that is taken out stays there too, as long as a process runs that may use it.
Everything here can be deleted while nothing runs: it is made again. An entry's own time is when it
was made or found last.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
import shutil
import stat
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from filelock import FileLock, Timeout

from nox_variants.errors import StoreError

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterable, Iterator, Mapping

FORMAT = 1

FACTS = "facts"
"""What can be found out again: not brought to the disk, and told by its digest when it is cut off.
"""

Kind = Literal["images", "refs", "blobs", "sources", "builds", "layers", "layouts", "facts"]

_VERSION_FILE = "format"
_DISCARDED = "discarded"
_WAIT = 0.2
_POLL = 0.02
_FEW = 64
_SHORT = "This machine is short of processes, memory or open files: use a smaller --jobs."
_HINTS = {
    errno.EAGAIN: _SHORT,
    errno.ENOMEM: _SHORT,
    errno.EMFILE: _SHORT,
    errno.ENOSPC: "The disk is full: free some space, or point NOX_VARIANTS_HOME elsewhere.",
    errno.EDQUOT: "Your quota is used up: free some space, or point NOX_VARIANTS_HOME elsewhere.",
    errno.EROFS: "The file system is read-only: point NOX_VARIANTS_HOME elsewhere.",
    errno.EACCES: "Another user's folder? Point NOX_VARIANTS_HOME elsewhere.",
    errno.EPERM: "Another user's folder? Point NOX_VARIANTS_HOME elsewhere.",
}


def default_home(environ: Mapping[str, str]) -> Path:
    """Return ``NOX_VARIANTS_HOME``, or the platform's cache folder."""
    if home := environ.get("NOX_VARIANTS_HOME"):
        return Path(home).absolute()
    from platformdirs import user_cache_path  # noqa: PLC0415  # a set variable needs no look-up

    return user_cache_path("nox-variants")


class Store:
    """The store of this process.

    Args:
        home: Its folder; made when it does not exist.

    Raises:
        StoreError: It cannot be made, or another version of nox-variants made it.
    """

    def __init__(self, home: Path) -> None:
        self.home = home
        self._tmp = home / "tmp"
        self._owner = f"{os.getpid()}-{secrets.token_hex(4)}"
        self._owner_lock = FileLock(self._tmp / f"{self._owner}.lock", thread_local=False)
        with self.explained():
            check_format(home)
            for name in ("tmp", "locks"):
                (home / name).mkdir(parents=True, exist_ok=True)
            self._enter()

    def _enter(self) -> None:
        """Take this process's lock, and remove what processes that are no more have left.

        One process at a time looks around: a lock between the making of its file and its locking
        would look like one that was left behind.
        """
        with FileLock(self.home / "locks" / "enter", thread_local=False):
            self._owner_lock.acquire()
            self._write_format()
            alive, dead = _others(self._tmp, self._owner)
            discarded = [] if alive else [*self._tmp.glob(f"{_DISCARDED}.*")]
        for file, lock in dead.items():
            with suppress(OSError):  # the next process tries again
                _remove_all(left for left in self._tmp.glob(f"{file.stem}.*") if left != file)
                file.unlink(missing_ok=True)
            lock.release()
        with suppress(OSError):
            _remove_all(discarded)

    def _write_format(self) -> None:
        file = self.home / _VERSION_FILE
        if not file.exists():
            draft = self._tmp / f"{self._owner}.format"
            draft.write_text(f"{FORMAT}\n", encoding="ascii")
            _fsync(draft)
            draft.replace(file)

    def entry(self, kind: Kind, key: str) -> Path:
        """Return where an entry is, or would be."""
        return self.home / kind / key

    def find(self, kind: Kind, key: str) -> Path | None:
        """Return an entry that is there, or None."""
        path = self.entry(kind, key)
        if not path.is_dir():
            return None
        _touch(path)
        return path

    @contextmanager
    def publish(self, kind: Kind, key: str, *, replace: bool = False) -> Iterator[Path]:
        """Make an entry: yields an empty folder that becomes the entry when the block succeeds.

        Whoever comes second with the same key finds the first one's entry in its place.

        Args:
            kind: What it is.
            key: Its name, safe as a file name.
            replace: Whether it takes the place of an entry that is there.

        Raises:
            StoreError: The disk did not take it.
        """
        with self.staging() as staging:
            yield staging
            if kind != FACTS:
                _to_disk(staging)
            target = self.entry(kind, key)
            target.parent.mkdir(exist_ok=True)
            if replace:
                self.discard(kind, key)
            try:
                staging.rename(target)
            except OSError as error:
                if error.errno not in {errno.EEXIST, errno.ENOTEMPTY}:
                    raise
            else:
                if kind != FACTS:
                    _fsync(target.parent)

    @contextmanager
    def staging(self) -> Iterator[Path]:
        """Yield an empty folder on the store's file system, removed at the end."""
        with self.explained():
            staging = self._tmp / f"{self._owner}.{secrets.token_hex(8)}"
            staging.mkdir()
            try:
                yield staging
            finally:
                with suppress(OSError):  # the next process tries again; the block's error counts
                    _remove(staging)

    def discard(self, kind: Kind, key: str) -> None:
        """Take an entry out of the store at once.

        Its files stay until a process finds itself alone: a sandbox may stand on them now.
        """
        with self.explained(), suppress(FileNotFoundError):
            self.entry(kind, key).rename(self._tmp / f"{_DISCARDED}.{secrets.token_hex(8)}")

    def cache(self, name: str) -> Path:
        """Return a folder that builds keep between runs."""
        path = self.home / "caches" / name
        with self.explained():
            path.mkdir(parents=True, exist_ok=True)
        _touch(path)
        return path

    def folder(self, name: str) -> Path:
        """Return a folder of the store's own for another purpose, such as apt's state."""
        path = self.home / name
        with self.explained():
            path.mkdir(parents=True, exist_ok=True)
        return path

    @contextmanager
    def guarded(self) -> Iterator[tuple[int, ...]]:
        """Let no other process enter; yields the ids of those that are in.

        Where there are none, everything in the store may be moved away, and what was moved may be
        removed at leisure: who enters later does not find it. Processes that start wait: be quick.
        """
        with self.explained(), FileLock(self.home / "locks" / "enter", thread_local=False):
            alive, dead = _others(self._tmp, self._owner)
            _release(dead.values())
            yield alive

    def close(self) -> None:
        """Leave the store, as the end of the process does."""
        self._owner_lock.release()

    @contextmanager
    def lock(self, name: str, *, cancelled: threading.Event) -> Iterator[None]:
        """Hold a lock that excludes other threads and other processes.

        Args:
            name: What is locked.
            cancelled: Ends the wait.

        Raises:
            StoreError: The run was cancelled while it waited.
        """
        file = self.home / "locks" / hashlib.sha256(name.encode()).hexdigest()
        held = FileLock(file, thread_local=False)
        with self.explained():
            while not held.is_locked:
                if cancelled.is_set():
                    raise StoreError("cancelled")
                with suppress(Timeout):
                    held.acquire(timeout=_WAIT, poll_interval=_POLL)
        try:
            yield
        finally:
            held.release()

    @staticmethod
    def write_json(file: Path, values: dict[str, Any]) -> None:
        """Write metadata with a digest of itself, whole or not at all."""
        body = json.dumps(values, separators=(",", ":"))
        draft = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
        draft.write_text(f"{_digest(body)}\n{body}\n", encoding="utf-8")
        draft.replace(file)

    @staticmethod
    def read_json(file: Path) -> dict[str, Any]:
        """Return metadata.

        Raises:
            StoreError: It is missing, cut off, or not what was written.
        """
        try:
            digest, _, body = file.read_text(encoding="utf-8").rstrip("\n").partition("\n")
            if digest == _digest(body):
                values: dict[str, Any] = json.loads(body)
                return values
        except (OSError, ValueError) as error:
            raise StoreError(f"{file}: cannot be read: {error}") from error
        raise StoreError(f"{file}: was changed or cut off", hint="It will be made again.")

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Turn what the file system says no to into a StoreError with what to do."""
        with _explained(self.home):
            yield


def check_format(home: Path) -> None:
    """Refuse a home of another version, before anything in it is touched.

    Raises:
        StoreError: Another version of nox-variants made it.
    """
    try:
        found = (home / _VERSION_FILE).read_text(encoding="ascii", errors="replace")
    except FileNotFoundError:
        return
    if found.strip() != str(FORMAT):
        raise StoreError(
            f"{home}: made by another nox-variants (format {found.strip()!r}, not {FORMAT})",
            hint="Remove the folder, or point NOX_VARIANTS_HOME elsewhere.",
        )


def look(home: Path) -> tuple[tuple[int, ...], tuple[Path, ...]]:
    """Look into a store without entering it, and change nothing.

    Returns:
        The ids of processes that are in, and what the next one to enter will remove.

    Raises:
        StoreError: It cannot be read, or another version of nox-variants made it.
    """
    tmp = home / "tmp"
    with _explained(home):
        check_format(home)
        if not (home / "locks").is_dir():
            return (), ()
        with FileLock(home / "locks" / "enter", thread_local=False):
            alive, dead = _others(tmp, "")
            left = [path for file in dead for path in tmp.glob(f"{file.stem}.*") if path != file]
            left += [] if alive else tmp.glob(f"{_DISCARDED}.*")
            _release(dead.values())
    return alive, tuple(left)


@contextmanager
def _explained(home: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        place = error.filename or home
        raise StoreError(
            f"{place}: {error.strerror or error}",
            hint=_HINTS.get(error.errno or 0, "Does the folder exist, and is it yours?"),
        ) from error


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _others(tmp: Path, own: str) -> tuple[tuple[int, ...], dict[Path, FileLock]]:
    """Return the ids of living processes, and the locks of dead ones, held.

    Only who holds the lock ``enter`` may ask.
    """
    files = [file for file in tmp.glob("*.lock") if file.stem != own]
    dead = {file: lock for file in files if (lock := _left_behind(file))}
    return tuple(sorted(_process(file) for file in files if file not in dead)), dead


def _process(file: Path) -> int:
    number = file.stem.partition("-")[0]
    return int(number) if number.isdecimal() else 0


def _release(locks: Iterable[FileLock]) -> None:
    for lock in locks:
        lock.release()


def _touch(path: Path) -> None:
    """Note that an entry is used, where that is possible."""
    with suppress(OSError):
        os.utime(path)


def _left_behind(file: Path) -> FileLock | None:
    """Return the lock of a process that is no more, held; None when it runs."""
    lock = FileLock(file, thread_local=False)
    try:
        lock.acquire(blocking=False)
    except (Timeout, OSError):
        return None
    return lock


def _to_disk(folder: Path) -> None:
    """Bring a folder's content to the disk: one by one, or the whole file system for many."""
    with suppress(PermissionError):  # a file of a build that its owner may not read
        paths = list(islice(_content(folder), _FEW + 1))
        if len(paths) <= _FEW:
            for path in paths:
                _fsync(path)
            return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        _sync_file_system(descriptor)
    finally:
        os.close(descriptor)


def _sync_file_system(descriptor: int) -> None:
    import ctypes  # noqa: PLC0415  # few entries are that large

    library = ctypes.CDLL(None, use_errno=True)
    if library.syncfs(descriptor) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _content(folder: Path) -> Iterator[Path]:
    """Yield a folder and all folders and regular files in it."""
    yield folder
    for parent, folders, files in os.walk(folder, onerror=_raise):
        for path in (Path(parent, name) for name in (*folders, *files)):
            if stat.S_IFMT(path.lstat().st_mode) in {stat.S_IFREG, stat.S_IFDIR}:
                yield path


def _raise(error: OSError) -> NoReturn:
    raise error


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove_all(paths: Iterable[Path]) -> None:
    for path in paths:
        _remove(path)


def _remove(path: Path) -> None:
    """Remove a file or a tree, also one with folders that their owner may not enter or change."""
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
        return
    try:
        shutil.rmtree(path)
    except PermissionError:
        path.chmod(stat.S_IRWXU)
        for parent, names, _ in os.walk(path):
            for folder in (Path(parent, name) for name in names):
                if not folder.is_symlink():
                    folder.chmod(stat.S_IRWXU)
        shutil.rmtree(path)
