"""`setup:` on layers of an image: what it may change, and whose files it leaves."""

from __future__ import annotations

import os
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from conftest import require
from handmade import make_roots
from nox_variants.errors import ImageError
from nox_variants.images import setup
from nox_variants.oci.layer import digest_tree
from nox_variants.sandbox import bubblewrap, command
from nox_variants.sandbox.command import Root

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.sandbox, pytest.mark.subprocess]

MAPPER = """\
import ctypes, os, sys
words = sys.argv[sys.argv.index("--") + 1:]
mapped, ready = os.pipe(), os.pipe()
child = os.getpid()
if os.fork() == 0:  # the parent stays the process that is waited for
    os.close(ready[1])
    os.read(ready[0], 1)
    for name in ("uid", "gid"):
        with open(f"/proc/{child}/{name}_map", "w") as file:
            file.write("0 0 65536")
    os.write(mapped[1], b"x")
    os._exit(0)
assert ctypes.CDLL(None).unshare(0x10000000) == 0  # CLONE_NEWUSER
os.write(ready[1], b"x")
os.read(mapped[0], 1)
os.execvp(words[0], words)
"""
"""What `unshare --map-auto` does, for root, who has no line in subuid(5) as a rule."""

GIVE = "mkdir -p /srv/own && touch /srv/own/file && chown -R 33:44 /srv/own && chmod 700 /srv/own"


@pytest.fixture
def root(tmp_path: Path) -> Root:
    """A root with busybox, and a layer above it."""
    lower = make_roots(tmp_path / "roots")["alpine"]
    upper, work = tmp_path / "upper", tmp_path / "work"
    upper.mkdir()
    work.mkdir()
    return Root(lower=(lower,), upper=upper, work=work)


def run(root: Root, *commands: str) -> None:
    setup.set_up("base", commands, root, env=(), cancelled=threading.Event())


@pytest.fixture
def mapping(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A machine on which this user may use more uids than one."""
    if os.geteuid():
        require("sandbox", "mapping uids by hand needs root")
    (tmp_path / "mapper.py").write_text(MAPPER, encoding="utf-8")
    words = (sys.executable, str(tmp_path / "mapper.py"), "--")
    for module in (bubblewrap, command, setup):
        monkeypatch.setattr(module, "MAP_ALL", words)
    bubblewrap.can_map.cache_clear()
    yield
    bubblewrap.can_map.cache_clear()


@pytest.fixture
def one_uid(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which this user has one uid."""
    monkeypatch.setattr(setup, "can_map", lambda: False)


@pytest.mark.usefixtures("one_uid")
def test_changes_are_a_layer(root: Root) -> None:
    """Files are made, changed and removed above the image; the image stays as it is."""
    before = digest_tree(root.lower[0], mtime=0)
    run(root, "echo new > /etc/new", "cd /bin && rm sh")

    assert (root.upper / "etc" / "new").read_text(encoding="utf-8") == "new\n"
    assert not (root.upper / "etc" / "hosts").exists()
    assert digest_tree(root.lower[0], mtime=0) == before


@pytest.mark.usefixtures("one_uid")
def test_one_uid(root: Root) -> None:
    """Where one uid is mapped, a chown fails, and the error says what to install."""
    with pytest.raises(ImageError, match=r"ended with exit code 1.*Only one uid.*uidmap"):
        run(root, GIVE)


@pytest.mark.usefixtures("mapping")
def test_all_uids(root: Root) -> None:
    """Where all are mapped, files are given away inside, and taken back afterwards."""
    run(root, GIVE, 'test "$(stat -c %u:%g /srv/own/file)" = 33:44')

    for path in (root.upper / "srv" / "own", root.upper / "srv" / "own" / "file"):
        assert (path.lstat().st_uid, path.lstat().st_gid) == (os.geteuid(), os.getegid())
    assert digest_tree(root.upper, mtime=0).entries == 4


@pytest.mark.usefixtures("mapping")
def test_failure_among_all_uids(root: Root) -> None:
    """A command that fails leaves nothing behind that this user could not remove."""
    with pytest.raises(ImageError, match=r"'exit 3' ended with exit code 3"):
        run(root, GIVE, "exit 3")

    assert (root.upper / "srv" / "own").lstat().st_uid == os.geteuid()
