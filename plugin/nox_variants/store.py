"""The store: a content-addressed folder that several processes share and may be killed over.

``NOX_VARIANTS_HOME`` holds entries as folders, ``KIND/KEY/``. An entry appears by one rename when
it is complete and on disk; what a killed process leaves lies in ``tmp/`` and is removed by the
next one. Everything here can be deleted at any time: it is made again.
"""

from __future__ import annotations

import ctypes
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
from typing import TYPE_CHECKING, Any, Literal

from filelock import FileLock, Timeout

from nox_variants.errors import StoreError

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterator, Mapping

FORMAT = 1

Kind = Literal["images", "refs", "sources", "builds", "layers"]

_VERSION_FILE = "format"
_WAIT = 0.2
_POLL = 0.02
_FEW_FILES = 64
_HINTS = {
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
        self._owner = f"{os.getpid()}-{secrets.token_hex(4)}"
        with self._explained():
            for name in ("tmp", "locks"):
                (home / name).mkdir(parents=True, exist_ok=True)
            self._check_format()
            self._owner_lock = FileLock(home / "tmp" / f"{self._owner}.lock", thread_local=False)
            self._owner_lock.acquire()
            self._sweep()

    def _check_format(self) -> None:
        file = self.home / _VERSION_FILE
        try:
            found = file.read_text(encoding="ascii").strip()
        except FileNotFoundError:
            draft = self.home / "tmp" / f"{self._owner}.format"
            draft.write_text(f"{FORMAT}\n", encoding="ascii")
            draft.replace(file)
            return
        if found != str(FORMAT):
            raise StoreError(
                f"{self.home}: made by another nox-variants (format {found!r}, not {FORMAT})",
                hint="Remove the folder, or point NOX_VARIANTS_HOME elsewhere.",
            )

    def _sweep(self) -> None:
        """Remove what killed processes left: staging folders whose owner holds no lock."""
        tmp = self.home / "tmp"
        for lock_file in tmp.glob("*.lock"):
            if lock_file.name == f"{self._owner}.lock":
                continue
            lock = FileLock(lock_file, thread_local=False)
            try:
                lock.acquire(blocking=False)
            except (Timeout, OSError):
                continue
            try:
                for left in tmp.glob(f"{lock_file.stem}.*"):
                    if left != lock_file:
                        _remove(left)
                lock_file.unlink(missing_ok=True)
            finally:
                lock.release()

    def entry(self, kind: Kind, key: str) -> Path:
        """Return where an entry is, or would be."""
        return self.home / kind / key

    def find(self, kind: Kind, key: str) -> Path | None:
        """Return an entry that is there, or None."""
        path = self.entry(kind, key)
        return path if path.is_dir() else None

    @contextmanager
    def publish(self, kind: Kind, key: str) -> Iterator[Path]:
        """Make an entry: yields an empty folder that becomes the entry when the block succeeds.

        Whoever comes second with the same key finds the first one's entry in its place.

        Raises:
            StoreError: The disk did not take it.
        """
        with self.staging() as staging:
            yield staging
            _to_disk(staging)
            target = self.entry(kind, key)
            target.parent.mkdir(exist_ok=True)
            try:
                staging.rename(target)
            except OSError as error:
                if error.errno not in {errno.EEXIST, errno.ENOTEMPTY}:
                    raise
            else:
                _fsync(target.parent)

    @contextmanager
    def staging(self) -> Iterator[Path]:
        """Yield an empty folder on the store's file system, removed at the end."""
        with self._explained():
            staging = self.home / "tmp" / f"{self._owner}.{secrets.token_hex(8)}"
            staging.mkdir()
            try:
                yield staging
            finally:
                _remove(staging)

    def discard(self, kind: Kind, key: str) -> None:
        """Take an entry out of the store at once, and then apart."""
        with self._explained():
            aside = self.home / "tmp" / f"{self._owner}.{secrets.token_hex(8)}"
            with suppress(FileNotFoundError):
                self.entry(kind, key).rename(aside)
                _remove(aside)

    def cache(self, name: str) -> Path:
        """Return a folder that builds keep between runs."""
        path = self.home / "caches" / name
        with self._explained():
            path.mkdir(parents=True, exist_ok=True)
        return path

    def folder(self, name: str) -> Path:
        """Return a folder of the store's own for another purpose, such as apt's state."""
        path = self.home / name
        with self._explained():
            path.mkdir(parents=True, exist_ok=True)
        return path

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
        with self._explained():
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
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            place = error.filename or self.home
            raise StoreError(
                f"{place}: {error.strerror or error}",
                hint=_HINTS.get(error.errno or 0, "Does the folder exist, and is it yours?"),
            ) from error


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _to_disk(folder: Path) -> None:
    """Bring a folder's content to the disk: file by file, or the whole file system for many."""
    files = list(islice((path for path in folder.rglob("*") if _is_file(path)), _FEW_FILES + 1))
    if len(files) <= _FEW_FILES:
        for path in (*files, folder):
            _fsync(path)
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        library = ctypes.CDLL(None, use_errno=True)
        if library.syncfs(descriptor) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), os.fspath(folder))
    finally:
        os.close(descriptor)


def _is_file(path: Path) -> bool:
    return stat.S_ISREG(path.lstat().st_mode)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(path: Path) -> None:
    """Remove a tree, also one with folders that their owner may not enter."""
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
        return

    def open_up(function: Any, name: str, _: object) -> None:
        with suppress(OSError):
            Path(name).parent.chmod(0o700)
            if Path(name).is_dir():
                Path(name).chmod(0o700)
                shutil.rmtree(name, ignore_errors=True)
            else:
                Path(name).unlink(missing_ok=True)
            with suppress(FileNotFoundError, OSError):
                function(name)

    if path.exists():
        shutil.rmtree(path, onerror=open_up)
