"""Stand-ins out of packages: of the host's mirror, and of repositories that misbehave."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from conftest import require
from debian import FILE, Repository
from nox_variants import rootfs
from nox_variants.errors import ImageError, ImageUnavailable
from nox_variants.images.apt import LISTS_AGE, Apt
from nox_variants.images.packages import Package, unpack
from nox_variants.images.provider import EPOCH, Images
from nox_variants.model import Image, ImageSource, SourceKind
from nox_variants.oci.layer import digest_tree
from nox_variants.sandbox.bubblewrap import find_bwrap
from nox_variants.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = [pytest.mark.apt, pytest.mark.sandbox]

NEVER = threading.Event()
APPLETS = "/bin/busybox --install -s /bin"


@pytest.fixture(scope="module", autouse=True)
def apt_works() -> None:
    """Skip what needs apt where there is none."""
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            require("apt", f"{tool} is not installed")


@pytest.fixture(autouse=True)
def no_proxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the configuration that apt reads first: servers of the tests' own are near."""
    file = tmp_path / "apt.conf"
    file.write_text('Acquire::http::Proxy::127.0.0.1 "DIRECT";\n', encoding="utf-8")
    monkeypatch.setenv("APT_CONFIG", str(file))
    return file


@pytest.fixture(scope="module")
def mirror_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with the lists and busybox of the host's mirror."""
    home = tmp_path_factory.mktemp("home")
    try:
        images(home).prepare(busybox())
    except (ImageError, ImageUnavailable) as error:
        require("apt", str(error))
    return home


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """A repository of the test's own."""
    return Repository(tmp_path / "repository")


@pytest.fixture
def notes() -> list[str]:
    """What is said about what takes long."""
    return []


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """A sources.list, still empty."""
    file = tmp_path / "sources.list"
    file.touch()
    return file


@pytest.fixture
def apt(home: Path, sources: Path, notes: list[str]) -> Callable[..., Apt]:
    """Makes apt as a new run has it, with the packages of the test's sources.list."""

    def make(line: str = "", **changes: object) -> Apt:
        if line:
            sources.write_text(line, encoding="utf-8")
        options = {"progress": notes.append, "cancelled": NEVER, "sources": sources} | changes
        return Apt(Store(home), **options)  # type: ignore[arg-type]

    return make


def busybox(*setup: str) -> Image:
    return image("busybox-static", setup=(APPLETS, *setup))


def image(*packages: str, setup: tuple[str, ...] = ()) -> Image:
    source = ImageSource(kind=SourceKind.APT, packages=packages, setup=setup)
    return Image(name="busybox", sources=(source,))


def images(home: Path, *, notes: list[str] | None = None, refresh: bool = False) -> Images:
    said = notes if notes is not None else []
    return Images(
        Store(home),
        policy="auto",
        refresh=refresh,
        progress=said.append,
        cancelled=NEVER,
        root=home,
        host="linux/amd64",
        environ={},
    )


def unpacked(packages: tuple[Package, ...], root: Path) -> Path:
    root.mkdir()
    unpack(packages, root, cancelled=NEVER)
    return root


def kept(home: Path) -> list[str]:
    """Return the packages that a store keeps."""
    return sorted(path.name for path in (home / "apt" / "archives").glob("*.deb"))


# --- the host's mirror ---------------------------------------------------------------------------


def test_stand_in_of_the_mirror(mirror_home: Path) -> None:
    """A stand-in says what it is, has what setup made, and is the content that its digest names."""
    prepared = images(mirror_home)
    made = prepared.prepare(busybox())
    root = prepared.root(made)

    assert made.kind is SourceKind.APT
    assert made.stand_in
    assert made.reference == "busybox-static"
    assert [package.partition("=1:")[0] for package in made.packages] == ["busybox-static"]
    assert rootfs.resolve((root,), "/bin/sh") == root / "usr/bin/busybox"
    assert digest_tree(root, mtime=EPOCH).diff_id == made.digest == made.layers[0]
    assert [*(root / "etc").iterdir()] == []


def test_stand_in_without_setup(mirror_home: Path) -> None:
    """Without setup a root is what its packages hold."""
    prepared = images(mirror_home)
    root = prepared.root(prepared.prepare(image("busybox-static")))

    assert rootfs.resolve((root,), "/bin/busybox") == root / "usr/bin/busybox"
    assert rootfs.resolve((root,), "/bin/sh") is None
    assert [*(root / "etc").iterdir()] == []


def test_second_prepare_needs_nothing(
    mirror_home: Path, notes: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What an earlier run prepared is there without apt, without a network, without a word."""
    first = images(mirror_home).prepare(busybox())
    monkeypatch.setenv("PATH", str(tmp_path))

    assert images(mirror_home, notes=notes).prepare(busybox()) == first
    assert notes == []


def test_corrupt_reference_is_made_anew(mirror_home: Path, notes: list[str]) -> None:
    """A damaged note of what an earlier run prepared costs time, not the run."""
    first = images(mirror_home).prepare(busybox())
    for file in mirror_home.glob("refs/*/image.json"):
        file.write_bytes(file.read_bytes()[:-3])

    assert images(mirror_home, notes=notes).prepare(busybox()) == first
    assert notes == ["busybox: unpacking 1 packages"]


def test_refreshing_under_another_umask(mirror_home: Path, notes: list[str]) -> None:
    """Made anew by a user with a strict umask, with new lists, an image is the same."""
    first = images(mirror_home).prepare(busybox())
    before = os.umask(0o077)
    try:
        again = images(mirror_home, notes=notes, refresh=True).prepare(busybox())
    finally:
        os.umask(before)

    assert again == first
    assert notes == ["apt: fetching package lists", "busybox: unpacking 1 packages"]


@pytest.mark.parametrize("name", ["no-such-package", "busybox.static"])
def test_package_that_does_not_exist(mirror_home: Path, name: str) -> None:
    """A package that the release lacks makes the image unavailable; its name is no pattern."""
    with pytest.raises(ImageUnavailable) as raised:
        images(mirror_home).prepare(image(name))

    assert str(raised.value).startswith(
        f"image busybox cannot be had here: apt: Unable to locate package {name}"
    )
    assert raised.value.hint == "This machine's Debian or Ubuntu release does not have it."


def test_setup_that_fails(mirror_home: Path) -> None:
    """A setup command that fails is an error with its exit code and its last words."""
    command = "echo out; echo the last words >&2; exit 3"
    with pytest.raises(ImageError) as raised:
        images(mirror_home).prepare(busybox(command))

    assert str(raised.value) == (
        f"image busybox: setup {command!r} ended with exit code 3: the last words."
        " The command runs with /bin/sh in the image's own root, as uid 0."
    )


def test_silent_setup_that_fails(mirror_home: Path) -> None:
    """A setup command that fails without a word is an error too."""
    with pytest.raises(ImageError, match=r"setup 'exit 4' ended with exit code 4\. The command"):
        images(mirror_home).prepare(busybox("exit 4"))


def test_setup_that_closes_the_root(mirror_home: Path) -> None:
    """Modes that setup gives do not keep an ordinary user from publishing and removing a root."""
    prepared = images(mirror_home)
    root = prepared.root(prepared.prepare(busybox("mkdir /closed && chmod 500 /closed /")))

    assert stat.S_IMODE(root.stat().st_mode) == 0o755
    assert stat.S_IMODE((root / "closed").stat().st_mode) == 0o500


# --- packages ------------------------------------------------------------------------------------


def test_dependencies_come_along(
    apt: Callable[..., Apt], repository: Repository, tmp_path: Path
) -> None:
    """What a package depends on comes along, what it recommends does not; versions are whole."""
    repository.add("toy", version="2:1.0~rc1+b2-3", Depends="base", Recommends="more")
    repository.add("base")
    repository.add("more")
    with repository.served() as mirror:
        packages = apt(mirror.line()).fetch("toys", ["toy"])

    assert sorted(map(str, packages)) == ["base=1.0", "toy=2:1.0~rc1+b2-3"]
    assert sorted(package.file.name for package in packages) == [
        "base_1.0_all.deb",
        "toy_2%3a1.0~rc1+b2-3_all.deb",
    ]
    assert all(package.file.is_file() and package.owned for package in packages)
    assert tmp_path.exists()


def test_root_of_packages(apt: Callable[..., Apt], repository: Repository, tmp_path: Path) -> None:
    """Files keep their modes but setuid and setgid; folders are merged; documents stay out."""
    repository.add(
        "toy",
        {
            "usr/bin/set": ("text", 0o6755),
            "bin/old": ("text", 0o755),
            "etc/closed": ("text", 0o600),
            "usr/share/doc/toy/copyright": ("text", FILE),
        },
        folders={"var/shared": 0o2775},
        links={"usr/lib/link": "../bin/set"},
    )
    root = unpacked(apt(repository.local()).fetch("toys", ["toy"]), tmp_path / "root")

    assert {
        name: oct(stat.S_IMODE((root / name).stat().st_mode))
        for name in ("usr/bin/set", "bin/old", "etc/closed", "var/shared", "tmp", "root", "usr")
    } == {
        "usr/bin/set": "0o755",
        "bin/old": "0o755",
        "etc/closed": "0o600",
        "var/shared": "0o775",
        "tmp": "0o1777",
        "root": "0o755",
        "usr": "0o755",
    }
    assert (root / "bin").readlink() == Path("usr/bin")
    assert (root / "lib" / "link").read_text(encoding="utf-8") == "text"
    assert [*(root / "usr/share/doc").iterdir()] == []
    assert {path.stat().st_uid for path in root.rglob("*")} == {os.geteuid()}


def test_package_that_leads_out_of_its_root(
    apt: Callable[..., Apt], repository: Repository, tmp_path: Path
) -> None:
    """A file behind a link to this machine's programs is not written there."""
    repository.add("first", links={"opt/out": "/usr/share"})
    repository.add("second", {"opt/out/file-of-tests": ("text", FILE)}, Depends="first")
    packages = apt(repository.local()).fetch("toys", ["first", "second"])
    in_order = tuple(sorted(packages, key=lambda package: package.name))

    with pytest.raises(
        ImageError, match=r"second_1\.0_all\.deb: cannot be unpacked: tar: .*Read-o"
    ):
        unpacked(in_order, tmp_path / "root")

    assert not Path("/usr/share/file-of-tests").exists()


def test_package_that_leads_to_what_a_sandbox_does_not_have(
    apt: Callable[..., Apt], repository: Repository, tmp_path: Path
) -> None:
    """A link to anything else of this machine leads nowhere: the file stays in the root."""
    outside = tmp_path / "outside"
    outside.mkdir()
    repository.add("first", links={"opt/out": str(outside)})
    repository.add("second", {"opt/out/file": ("text", FILE)}, Depends="first")
    packages = apt(repository.local()).fetch("toys", ["first", "second"])
    in_order = tuple(sorted(packages, key=lambda package: package.name))

    root = unpacked(in_order, tmp_path / "root")

    assert [*outside.iterdir()] == []
    assert not (root / "opt" / "out").is_symlink()
    assert (root / "opt" / "out" / "file").read_text(encoding="utf-8") == "text"


def test_corrupt_package_is_removed(tmp_path: Path) -> None:
    """A package that cannot be unpacked is an error that names it, and is downloaded again."""
    file = tmp_path / "toy_1.0_all.deb"
    file.write_bytes(b"no package")

    with pytest.raises(ImageError) as raised:
        unpacked((Package(name="toy", version="1.0", file=file),), tmp_path / "root")

    assert str(raised.value).startswith("toy_1.0_all.deb: cannot be unpacked: dpkg-deb: error: ")
    assert raised.value.hint == "It was removed and will be downloaded again."
    assert not file.exists()


def test_corrupt_package_of_a_local_source_stays(tmp_path: Path) -> None:
    """A file that is not the store's own is never removed."""
    file = tmp_path / "toy_1.0_all.deb"
    file.write_bytes(b"no package")
    package = Package(name="toy", version="1.0", file=file, owned=False)

    with pytest.raises(ImageError, match="It lies in a local source of apt's: is it whole"):
        unpacked((package,), tmp_path / "root")

    assert file.exists()


def test_half_a_package(repository: Repository, tmp_path: Path) -> None:
    """A package whose end is missing is an error, however much of it was unpacked."""
    file = repository.add("toy", {"opt/file": (bytes(200_000), FILE)})
    file.write_bytes(file.read_bytes()[:100_000])

    with pytest.raises(
        ImageError, match=r"toy_1\.0_all\.deb: cannot be unpacked: dpkg-deb.* (end of|truncated)"
    ):
        unpacked((Package(name="toy", version="1.0", file=file),), tmp_path / "root")


FULL_DISK = """
import sys, threading
from pathlib import Path
from nox_variants.errors import ImageError
from nox_variants.images.packages import Package, unpack

file, root = map(Path, sys.argv[1:])
try:
    unpack([Package(name="toy", version="1.0", file=file)], root, cancelled=threading.Event())
except ImageError as error:
    print(error)
"""


def test_full_disk(repository: Repository, tmp_path: Path) -> None:
    """A full disk is no fault of the package: the error says so, and the package stays."""
    file = repository.add("toy", {"opt/file": (bytes(2_000_000), FILE)})
    root = tmp_path / "root"
    root.mkdir()
    disk: list[str | Path]
    disk = [find_bwrap(), "--dev-bind", "/", "/", "--size", "1000000", "--tmpfs", root, "--"]
    done = subprocess.run(
        [*disk, sys.executable, "-c", FULL_DISK, file, root],
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout.startswith("toy_1.0_all.deb: cannot be unpacked: tar: ./opt/file: ")
    assert done.stdout.endswith(
        ". The disk is full: free some space, or point NOX_VARIANTS_HOME elsewhere.\n"
    )
    assert file.exists()


# --- lists and downloads -------------------------------------------------------------------------


def test_lists_are_kept(apt: Callable[..., Apt], repository: Repository, notes: list[str]) -> None:
    """Lists are fetched once a day, packages once at all."""
    repository.add("toy")
    with repository.served() as mirror:
        for _ in range(2):
            apt(mirror.line()).fetch("toys", ["toy"])
        asked = mirror.packages()

    assert notes == ["apt: fetching package lists", "toys: downloading 1 packages, 0.0 MB"]
    assert asked == ["toy_1.0_all.deb"]


@pytest.mark.parametrize("age", [LISTS_AGE, -LISTS_AGE], ids=["yesterday", "tomorrow"])
def test_old_lists_are_fetched_again_once(
    age: float, apt: Callable[..., Apt], repository: Repository, home: Path, notes: list[str]
) -> None:
    """Lists of yesterday are fetched again by the first who needs them, as those of tomorrow."""
    repository.add("toy")
    repository.add("more")
    apt(repository.local()).fetch("toys", ["toy"])
    marker = home / "apt" / "updated"
    old = marker.stat().st_mtime - age
    os.utime(marker, (old, old))
    notes.clear()
    again = apt()
    again.fetch("toys", ["toy"])
    again.fetch("toys", ["more"])
    apt().fetch("toys", ["toy"])

    assert notes.count("apt: fetching package lists") == 1
    assert marker.stat().st_mtime != old


def test_superseded_package(apt: Callable[..., Apt], repository: Repository) -> None:
    """A package that the mirror has replaced since the lists were fetched is no error."""
    first = repository.add("toy", version="1.0")
    repository.add("other")
    with repository.served() as mirror:
        apt(mirror.line()).fetch("toys", ["other"])
        first.unlink()
        repository.add("toy", version="1.1")
        packages = apt(mirror.line()).fetch("toys", ["toy"])

    assert [str(package) for package in packages] == ["toy=1.1"]


def test_new_package(apt: Callable[..., Apt], repository: Repository, notes: list[str]) -> None:
    """A package that fresh lists do not have is looked for in new ones, once a run."""
    repository.add("toy")
    apt(repository.local()).fetch("toys", ["toy"])
    repository.add("new")
    later = apt()
    packages = later.fetch("toys", ["new"])
    for _ in range(2):
        with pytest.raises(ImageUnavailable):
            later.fetch("toys", ["nothing"])

    assert [str(package) for package in packages] == ["new=1.0"]
    assert notes.count("apt: fetching package lists") == 2


def test_package_that_the_mirror_lost(apt: Callable[..., Apt], repository: Repository) -> None:
    """A package that is in the lists and not there is an error of the download."""
    repository.add("toy").unlink()
    with repository.served() as mirror, pytest.raises(ImageError) as raised:
        apt(mirror.line()).fetch("toys", ["toy"])

    assert str(raised.value).startswith("toys: downloading packages failed: Failed to fetch ")
    assert "404" in str(raised.value)


def test_damaged_download_is_replaced(
    apt: Callable[..., Apt], repository: Repository, home: Path
) -> None:
    """A kept package that is not what the lists say is downloaded again before it is used."""
    good = repository.add("toy").read_bytes()
    with repository.served() as mirror:
        (package,) = apt(mirror.line()).fetch("toys", ["toy"])
        package.file.write_bytes(good[:-1] + b"?")
        (again,) = apt(mirror.line()).fetch("toys", ["toy"])
        asked = mirror.packages()

    assert again.file.read_bytes() == good
    assert asked == ["toy_1.0_all.deb"] * 2
    assert kept(home) == ["toy_1.0_all.deb"]


def test_local_source(apt: Callable[..., Apt], repository: Repository, home: Path) -> None:
    """Packages of a folder of this machine are used where they are."""
    file = repository.add("toy")
    (package,) = apt(repository.local()).fetch("toys", ["toy"])

    assert package == Package(name="toy", version="1.0", file=file, owned=False)
    assert kept(home) == []


def test_damaged_local_source(apt: Callable[..., Apt], repository: Repository) -> None:
    """A package of a local source that is not what its list says is refused, and left alone."""
    file = repository.add("toy")
    file.write_bytes(file.read_bytes()[:-1] + b"?")

    with pytest.raises(ImageError, match="toys: "):
        apt(repository.local()).fetch("toys", ["toy"])

    assert file.exists()


@pytest.mark.parametrize("way", ["file", "http"])
def test_repository_without_a_signature(
    apt: Callable[..., Apt], repository: Repository, home: Path, way: str
) -> None:
    """Packages of a repository that nobody signed are not taken, and the error says why."""
    repository.add("toy")
    with repository.served() as mirror:
        lines = {"file": repository.local(""), "http": mirror.line("")}
        with pytest.raises(ImageError) as raised:
            apt(lines[way]).fetch("toys", ["toy"])

    assert str(raised.value).startswith("toys: apt cannot fetch package lists: E: The repository")
    assert raised.value.hint.startswith("Install the archive's key")
    assert kept(home) == []


@pytest.mark.parametrize("way", ["file", "http"])
def test_repository_that_the_host_lets_pass(
    apt: Callable[..., Apt], repository: Repository, home: Path, way: str
) -> None:
    """Nor are they where the host's sources put up with a missing signature."""
    repository.add("toy")
    passing = "[allow-insecure=yes]"
    with repository.served() as mirror:
        lines = {"file": repository.local(passing), "http": mirror.line(passing)}
        with pytest.raises(ImageError) as raised:
            apt(lines[way]).fetch("toys", ["toy"])
        asked = mirror.packages()

    assert str(raised.value) == (
        "toys: apt cannot check the packages' signatures: There were unauthenticated packages and"
        " -y was used without --allow-unauthenticated."
        " Install the archive's key, or remove that source from apt's list."
    )
    assert asked == kept(home) == []


def test_mirror_that_cannot_be_reached(apt: Callable[..., Apt]) -> None:
    """Without lists nothing is known about packages: an error about the network, no skip."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        line = f"deb http://127.0.0.1:{closed.getsockname()[1]}/ ./\n"
        with pytest.raises(ImageError) as raised:
            apt(line).fetch("toys", ["toy"])

    assert str(raised.value).startswith("toys: apt cannot fetch package lists: W: Failed to fetch ")
    assert raised.value.hint.startswith("Is the network up, and the mirror reachable?")


def test_broken_source_beside_a_good_one(
    apt: Callable[..., Apt], repository: Repository, notes: list[str]
) -> None:
    """A broken source of the host's is no error as long as the others have the packages."""
    repository.add("toy")
    broken = f"deb file:{repository.folder}/nothing ./\n"
    with_one_broken = apt(repository.local() + broken)
    packages = with_one_broken.fetch("toys", ["toy"])
    with pytest.raises(ImageError, match="toys: apt cannot fetch package lists: E: The repository"):
        with_one_broken.fetch("toys", ["other"])

    assert [str(package) for package in packages] == ["toy=1.0"]
    assert notes.count("apt: fetching package lists") == 1


def test_dependency_that_does_not_exist(apt: Callable[..., Apt], repository: Repository) -> None:
    """A package whose dependencies the release lacks makes the image unavailable."""
    repository.add("toy", Depends="nothing")

    with pytest.raises(
        ImageUnavailable,
        match=r"toys: Unable to (correct problems|satisfy dependencies.* toy:\S+ Depends nothing)",
    ):
        apt(repository.local()).fetch("toys", ["toy"])


def test_lists_that_cannot_be_read(
    apt: Callable[..., Apt], repository: Repository, home: Path
) -> None:
    """Damaged lists are an error about apt, never a missing package."""
    repository.add("toy")
    with repository.served() as mirror:
        apt(mirror.line()).fetch("toys", ["toy"])
        for file in (home / "apt" / "lists").glob("*Packages*"):
            file.write_text("no list\n", encoding="utf-8")
        with pytest.raises(ImageError, match="toys: apt cannot "):
            apt().fetch("toys", ["toy"])


@pytest.mark.parametrize(
    ("script", "message"),
    [
        (
            "echo 'E: Something new'; exit 100",
            "toys: apt cannot tell what its packages need: Something new. Is there room on",
        ),
        ("exit 100", "toys: apt cannot tell what its packages need: apt-get said nothing. Is"),
        (
            "echo \"'http://example.org/toy_1_all.deb' toy_1_all.deb 9 SHA256:$(printf %064d 0)\"",
            "toys: toy_1_all.deb is not what the package lists say. Does a local source",
        ),
    ],
    ids=["words", "silence", "lie"],
)
def test_apt_of_another_version(
    apt: Callable[..., Apt],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    script: str,
    message: str,
) -> None:
    """What an apt does that this one does not is an error of one line, never a skip."""
    tool = tmp_path / "bin" / "apt-get"
    tool.parent.mkdir()
    tool.write_text(f'#!/bin/sh\ncase "$*" in *update) exit 0; esac\n{script}\n', encoding="utf-8")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tool.parent), prepend=os.pathsep)

    with pytest.raises(ImageError) as raised:
        apt().fetch("toys", ["toy"])

    assert str(raised.value).startswith(message)


def test_hooks_of_the_host_do_not_run(
    apt: Callable[..., Apt], repository: Repository, no_proxy: Path, tmp_path: Path
) -> None:
    """What the host does after its own updates is not done for ours."""
    hooks = ("Pre-Invoke", "Post-Invoke", "Post-Invoke-Success")
    with no_proxy.open("a", encoding="utf-8") as file:
        file.writelines(
            f'APT::Update::{name} {{ "touch {tmp_path}/{name}"; }};\n' for name in hooks
        )
    repository.add("toy")
    apt(repository.local()).fetch("toys", ["toy"])

    assert [name for name in hooks if (tmp_path / name).exists()] == []


@pytest.mark.parametrize("missing", ["apt-get", "dpkg-deb", "tar"])
def test_host_without_a_tool(
    apt: Callable[..., Apt], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, missing: str
) -> None:
    """On another distribution apt stand-ins are unavailable, with what is missing."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for tool in {"apt-get", "dpkg-deb", "tar"} - {missing}:
        (tools / tool).symlink_to(shutil.which(tool) or "")
    monkeypatch.setenv("PATH", str(tools))

    with pytest.raises(ImageUnavailable, match=f"toys: apt stand-ins need {missing}, which this"):
        apt().fetch("toys", ["toy"])


def test_long_download(apt: Callable[..., Apt], repository: Repository, notes: list[str]) -> None:
    """A download says how far it is, before it is through."""
    repository.add("toy", {"opt/file": (bytes(8_000_000), FILE)})
    with repository.served() as mirror:
        mirror.go_on.clear()

        def note(text: str) -> None:
            notes.append(text)
            if text == "toys: downloaded 4 of 8 MB":
                mirror.go_on.set()

        apt(mirror.line(), progress=note, note_every=0).fetch("toys", ["toy"])

    assert notes[:2] == ["apt: fetching package lists", "toys: downloading 1 packages, 8.0 MB"]
    assert "toys: downloaded 4 of 8 MB" in notes


def test_cancelled_download(
    apt: Callable[..., Apt], repository: Repository, home: Path, notes: list[str]
) -> None:
    """A cancelled run ends apt in the middle of a download; the next one takes it up again."""
    repository.add("toy", {"opt/file": (bytes(8_000_000), FILE)})
    with repository.served() as mirror:
        mirror.go_on.clear()
        cancelled = threading.Event()

        def note(text: str) -> None:
            notes.append(text)
            if text == "toys: downloaded 4 of 8 MB":
                cancelled.set()

        interrupted = apt(mirror.line(), progress=note, cancelled=cancelled, note_every=0)
        with pytest.raises(ImageError, match="cancelled"):
            interrupted.fetch("toys", ["toy"])
        running = [file for file in Path("/proc").glob("[0-9]*/cmdline") if holds(file, home)]
        before = kept(home)
        mirror.go_on.set()
        apt(mirror.line()).fetch("toys", ["toy"])

    assert running == []
    assert before == []
    assert kept(home) == ["toy_1.0_all.deb"]
    assert notes.count("apt: fetching package lists") == 1


def holds(file: Path, home: Path) -> bool:
    """Tell whether a process of this machine was started with a store's folder."""
    try:
        return os.fsencode(f"Dir::State={home}") in file.read_bytes()
    except OSError:
        return False


def test_cancelled_unpacking(repository: Repository, tmp_path: Path) -> None:
    """A cancelled run ends tar; the package is not blamed."""
    file = repository.add("toy", {"opt/file": (bytes(50_000_000), FILE)})
    cancelled = threading.Event()
    cancelled.set()
    (tmp_path / "root").mkdir()

    with pytest.raises(ImageError, match="cancelled"):
        unpack(
            (Package(name="toy", version="1.0", file=file),), tmp_path / "root", cancelled=cancelled
        )

    assert file.exists()
