"""What the embedded engine does beyond the contract: builds, layers, the store."""

from __future__ import annotations

import json
import os
import platform
import shutil
import tarfile
import threading
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from handmade import COPY, GREETING, SMOKE, Bench, made_by, open_engine
from nox_variants.engines import builds
from nox_variants.engines.assembly import Assembler
from nox_variants.errors import BuildFailed, SourceError, StoreError, VariantsError
from nox_variants.model import CopiedFile, Smoke
from nox_variants.oci.digest import hex_of, sha256_file
from nox_variants.oci.validation import validate
from nox_variants.results import Observation
from nox_variants.sources import Snapshot
from nox_variants.store import Store
from sandboxed import OTHER, child, give, nothing_left, program_runs, token, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nox_variants.results import VariantImage
    from nox_variants.store import Kind

pytestmark = pytest.mark.sandbox

STATIC = COPY.format(link="static")


def output(bench: Bench, *commands: str, **changes: Any) -> str:
    """Return what commands write to /out/hello-c."""
    artifact = bench.build(bench.plan(*commands, **changes)).artifacts[0]
    return artifact.file.read_text(encoding="utf-8")


def config(bench: Bench, image: VariantImage) -> dict[str, Any]:
    """Return an image's configuration."""
    values: dict[str, Any] = json.loads(bench.blob(image, image.config_digest).read_bytes())
    return values


def members(bench: Bench, image: VariantImage, layer: int) -> dict[str, tarfile.TarInfo]:
    """Return what is in a layer of an image."""
    with tarfile.open(bench.blob(image, image.layers[layer])) as tar:
        return {member.name: member for member in tar}


# Builds


def test_source_is_there(bench: Bench) -> None:
    """Commands run in the source folder, and see it as it is."""
    (bench.source / "deep").mkdir()
    (bench.source / "deep/file").write_text("deep\n", encoding="utf-8")

    assert output(bench, "pwd > /out/hello-c; cat deep/file >> /out/hello-c") == "/src\ndeep\n"


def test_executable_bits(bench: Bench) -> None:
    """A script of the source runs when it may, and only then."""
    for name, mode in {"may": 0o755, "may-not": 0o644}.items():
        (bench.source / name).write_text(f"#!/bin/sh\necho {name}\n", encoding="utf-8")
        (bench.source / name).chmod(mode)

    assert output(bench, "(./may; ./may-not || echo $?) > /out/hello-c") == "may\n126\n"


def test_dockerignore(bench: Bench) -> None:
    """What .dockerignore leaves out is not there, and does not make another build."""
    (bench.source / ".dockerignore").write_text("*.log\n!keep.log\n", encoding="utf-8")
    for name in ("a.log", "keep.log", "a.c"):
        (bench.source / name).touch()

    assert output(bench, "ls > /out/hello-c").split() == ["a.c", "hello.c", "keep.log"]


def test_changes_to_the_source_stay_inside(bench: Bench) -> None:
    """A build may change its source; the user's folder and the next build see nothing of it."""
    assert output(bench, "echo changed > hello.c; cat hello.c > /out/hello-c") == "changed\n"
    assert output(bench, "cat hello.c > /out/hello-c") == "int main(void) { return 0; }\n"
    assert sorted(path.name for path in bench.source.iterdir()) == ["hello.c"]


def test_source_out_of_the_project(bench: Bench, tmp_path: Path) -> None:
    """A source folder outside of the project is refused."""
    (tmp_path / "elsewhere").mkdir()

    with pytest.raises(SourceError, match="elsewhere"):
        bench.build(bench.plan(stage_source=tmp_path / "elsewhere"))


def test_environment(bench: Bench, roots: dict[str, Path], home: Path) -> None:
    """Commands have SOURCE_DATE_EPOCH, the image's environment and the recipe's, which wins."""
    engine = open_engine(home, roots, bench.source.parent, epoch=1234)
    plan = bench.plan("env > /out/hello-c", stage_env=(("A", "recipe"), ("C", "recipe")))
    image = replace(plan.build.image, env=(("A", "image"), ("B", "image")))
    build = engine.build(plan.build, engine.prepare(image))
    lines = build.artifacts[0].file.read_text(encoding="utf-8").splitlines()

    assert {"SOURCE_DATE_EPOCH=1234", "A=recipe", "B=image", "C=recipe"} < set(lines)


@pytest.mark.parametrize(
    ("passwd", "home_"),
    [
        pytest.param(None, "/", id="none"),
        pytest.param("x:x:1:1::/x:\nroot:x:0:0:root:/home/root:/bin/sh\n", "/home/root", id="root"),
        pytest.param("root:x:0:0:root::/bin/sh\n", "/", id="empty"),
        pytest.param("root:x:0\n", "/", id="cut off"),
    ],
)
def test_home(
    bench: Bench, roots: dict[str, Path], home: Path, tmp_path: Path, passwd: str | None, home_: str
) -> None:
    """Root's home is where the image says, for builds and for programs."""
    changed = tmp_path / "root"
    shutil.copytree(roots["gcc"], changed, symlinks=True)
    if passwd is not None:
        (changed / "etc/passwd").write_text(passwd, encoding="utf-8")
    again = Bench(
        open_engine(home, {"gcc": changed, "alpine": changed}, bench.source.parent), bench.source
    )
    script = "printf '#!/bin/sh\\necho $HOME\\n' > /out/hello-c; chmod 755 /out/hello-c; echo $HOME"
    plan = again.plan(script, run="alpine")

    assert (again.build(plan).log, again.run(plan).stdout) == (f"{home_}\n",) * 2


def test_commands_follow_each_other(bench: Bench) -> None:
    """One command's files are there for the next, but for those in /tmp; the first failure ends."""
    assert output(bench, "echo 1 > /a; : > /tmp/b", "ls /tmp; cp /a /out/hello-c") == "1\n"
    assert bench.build(bench.plan("echo 1 > /tmp/b", f"ls /tmp; {STATIC}")).log == ""
    with pytest.raises(BuildFailed, match=r"^'exit 7' ended with exit code 7 in gcc$"):
        bench.build(bench.plan("exit 7", STATIC))


@pytest.mark.parametrize(("network", "same"), [(True, True), (False, False)])
def test_network(bench: Bench, network: bool, same: bool) -> None:  # noqa: FBT001
    """Commands share this machine's network where the stage says so, and have none otherwise."""
    own = Path("/proc/self/ns/net").readlink()

    assert (
        output(bench, "readlink /proc/self/ns/net > /out/hello-c", stage_network=network)
        == f"{own}\n"
    ) is same


def test_kept_folders(bench: Bench) -> None:
    """A cache folder keeps what builds put there, for this image, and is no part of the root."""
    count = "echo x >> /root/.cache/count; cp /root/.cache/count /out/hello-c"

    assert output(bench, count, stage_caches=("/root/.cache",)) == "x\n"
    assert output(bench, f": again; {count}", stage_caches=("/root/.cache",)) == "x\nx\n"


def test_folders_that_links_lead_to(
    bench: Bench, roots: dict[str, Path], home: Path, tmp_path: Path
) -> None:
    """Folders that a stage counts on are made where links of the root lead; no link is hidden."""
    linked = tmp_path / "linked"
    shutil.copytree(roots["gcc"], linked, symlinks=True)
    (linked / "lib").symlink_to("usr/lib")
    (linked / "usr/lib").chmod(0o711)
    engine = open_engine(home, {"gcc": linked}, bench.source.parent)
    plan = bench.plan(
        "cp /lib/hello-static /lib/new/hello-c; stat -c %a /usr/lib /usr/lib/new > /lib/new/modes",
        stage_artifacts=("/lib/new/hello-c", "/lib/new/modes"),
    )
    build = engine.build(plan.build, engine.prepare(plan.build.image))

    assert build.artifacts[1].file.read_text(encoding="utf-8") == "711\n755\n"


def test_mode_of_the_root(bench: Bench) -> None:
    """The root folder of a build is like any other, whatever the umask."""
    before = os.umask(0o077)
    try:
        assert output(bench, "stat -c %a / /out /src > /out/hello-c") == "755\n755\n755\n"
    finally:
        os.umask(before)


def test_no_shell(bench: Bench) -> None:
    """An image without a shell cannot build, and says so."""
    with pytest.raises(BuildFailed, match=r"^scratch has no /bin/sh to run the build's commands$"):
        bench.build(bench.plan(build="scratch"))


def test_log_is_bounded(bench: Bench, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a flood, the store keeps the beginning, and the user sees the end."""
    monkeypatch.setattr(builds, "LOG_WRITTEN", 100_000)
    monkeypatch.setattr(builds, "LOG_KEPT", 1000)
    flood = f"yes 0123456 | head -n 200000; echo last; {STATIC}"
    build = bench.build(bench.plan(flood))

    assert build.log == ("0123456\n" * 125 + "last\n")[-1000:]
    log = home / "builds" / build.key / "log.txt"
    assert (log.stat().st_size, log.read_bytes()[:8]) == (100_000, b"0123456\n")


def test_log_of_a_quiet_build(bench: Bench) -> None:
    """A build that says nothing has an empty log."""
    assert bench.build(bench.plan()).log == ""


# Artifacts of untrusted builds


@pytest.mark.parametrize(
    ("commands", "words"),
    [
        pytest.param("true", "/out is empty", id="nothing"),
        pytest.param("touch /out/b /out/a", "/out holds 'a', 'b'$", id="others"),
        pytest.param("rmdir /out", "there is no folder /out", id="no folder"),
        pytest.param("mkfifo /out/hello-c", "/out holds 'hello-c'", id="a pipe"),
        pytest.param("ln -s hello-c /out/hello-c", "/out holds 'hello-c'", id="a cycle"),
        pytest.param("ln -s /proc/self/exe /out/hello-c", "/out holds 'hello-c'", id="into /proc"),
        pytest.param("ln -s /dev/zero /out/hello-c", "/out holds 'hello-c'", id="a device"),
        pytest.param(
            "rmdir /out; rm -r /usr; ln -s / /out",
            "/out holds 'bin', 'dev', 'etc', 'out', 'proc', 'src', 'tmp'$",
            id="another folder",
        ),
    ],
)
def test_no_artifact(bench: Bench, commands: str, words: str) -> None:
    """An artifact that is no file of the build's root is a build failure, with what is there."""
    with pytest.raises(
        BuildFailed, match=rf"^the build made no file /out/hello-c: {words}"
    ) as caught:
        bench.build(bench.plan(commands))

    assert caught.value.seconds > 0


@pytest.mark.parametrize("how", ["{secret}", "../..{secret}", "/../..{secret}"])
@pytest.mark.parametrize("what", ["ln -s {how} /out/hello-c", "rmdir /out; ln -s {how} /out"])
def test_links_out_of_the_root(bench: Bench, tmp_path: Path, how: str, what: str) -> None:
    """A build cannot make us read a file of this machine for it."""
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "hello-c").write_text("secret\n", encoding="utf-8")
    target = how.format(secret=secret if "rmdir" in what else secret / "hello-c")

    with pytest.raises(BuildFailed, match=r"^the build made no file /out/hello-c: "):
        bench.build(bench.plan(what.format(how=target)))


def test_link_inside_the_root(bench: Bench) -> None:
    """A link to a file of the root is followed, as in the root."""
    artifact = bench.build(bench.plan("ln -s /../usr/lib/hello-static /out/hello-c")).artifacts[0]

    assert artifact.digest == sha256_file(artifact.file)
    assert (artifact.file.is_symlink(), artifact.file.stat().st_mode & 0o777) == (False, 0o755)


def test_unreadable_artifact(bench: Bench) -> None:
    """A program that may only be executed is one, whoever builds it."""
    plan = bench.plan(f"{STATIC}; chmod 111 /out/hello-c", run="alpine")

    assert bench.build(plan).artifacts[0].file.stat().st_mode & 0o777 == 0o511
    assert bench.run(plan).stdout == GREETING


def test_links_between_commands(bench: Bench, tmp_path: Path) -> None:
    """A link that one command leaves does not lead the next one's sandbox out of the root."""
    outside = tmp_path / "outside"
    outside.mkdir()
    trap = f"mv /kept /moved; ln -s /oldroot{outside} /kept"

    with pytest.raises(VariantsError, match="of the root is a link that leads nowhere"):
        bench.build(bench.plan(trap, STATIC, stage_caches=("/kept/deep",)))
    assert list(outside.iterdir()) == []


# Layers and images


def test_layer_of_a_program(bench: Bench) -> None:
    """The layer over a base holds the program, owned by root, as old as the epoch."""
    image = bench.image(bench.plan(run="alpine"))
    (name, member), *others = members(bench, image, -1).items()

    assert (name, others) == ("hello-c", [])
    assert (member.mode, member.uid, member.gid, member.mtime) == (0o755, 0, 0, 0)
    assert member.size == image.sizes.binary


def test_folders_of_a_layer(bench: Bench) -> None:
    """Folders that a copied file needs are like any other, whatever the umask."""
    files = (CopiedFile(source="/out/hello-c", target="/opt/hello/bin/hello"),)
    plan = bench.plan(run_files=files, run_cmd=("/opt/hello/bin/hello",))
    before = os.umask(0o077)
    try:
        image = bench.image(plan)
    finally:
        os.umask(before)
    folders = ("opt", "opt/hello", "opt/hello/bin")

    found = members(bench, image, -1)
    assert [(found[name].isdir(), found[name].mode) for name in folders] == [(True, 0o755)] * 3
    assert bench.engine.smoke(image, SMOKE).stdout == GREETING


class Forgetful(Store):
    """A store whose layers are gone as soon as they are written."""

    @contextmanager
    def publish(self, kind: Kind, key: str, *, replace: bool = False) -> Iterator[Path]:
        with super().publish(kind, key, replace=replace) as staging:
            yield staging
        if kind == "layers":
            self.discard(kind, key)


def test_layer_that_vanishes(bench: Bench, home: Path, tmp_path: Path) -> None:
    """A layer that is gone as soon as it was made, for somebody cleans up, is an error."""
    plan = bench.plan()
    build = bench.build(plan)
    assembler = Assembler(
        Forgetful(home), tmp_path, epoch=0, platform="linux/amd64", cancelled=threading.Event()
    )
    source = Snapshot(digest="", root=tmp_path)

    with pytest.raises(StoreError, match=r"layer \w+ vanished from the store while it was made"):
        assembler.assemble(plan, bench.engine.prepare(plan.run.image), tmp_path, build, source)


def test_layers_of_a_single_stage(bench: Bench, home: Path) -> None:
    """A single-stage image has the source as one layer, and the commands' changes as another."""
    plan = bench.plan(f"{STATIC}; rm /etc/gone; echo new > new", run="gcc")
    prepared = bench.engine.prepare(plan.build.image)
    (home / "images" / hex_of(prepared.digest) / "root/etc/gone").touch()
    image = bench.image(plan)

    assert image.layers[:1] == prepared.layers
    assert set(members(bench, image, 1)) == {"src", "src/hello.c"}
    changes = members(bench, image, 2)
    assert {"out", "out/hello-c", "src", "src/new", "etc", "etc/.wh.gone"} <= set(changes)
    assert image.sizes.above_base == sum(
        member.size for layer in (1, 2) for member in members(bench, image, layer).values()
    )


def test_configuration(bench: Bench) -> None:
    """The configuration says what the plan says, and when: the epoch."""
    image = bench.image(bench.plan(run_env=(("NAME", "value"),), run_workdir="/tmp"))
    values = config(bench, image)

    assert values["config"] == {
        "Cmd": ["/hello-c"],
        "Env": ["NAME=value"],
        "WorkingDir": "/tmp",
    }
    assert (values["architecture"], values["os"]) == ("amd64", "linux")
    assert values["created"] == "1970-01-01T00:00:00Z"
    assert values["rootfs"]["diff_ids"] == list(image.layers)


def test_epoch(bench: Bench, roots: dict[str, Path], home: Path) -> None:
    """SOURCE_DATE_EPOCH is in the configuration, and in the layers: other times, other digests."""
    engine = open_engine(home, roots, bench.source.parent, epoch=1_000_000_000)
    first, second = (each.image(each.plan()) for each in (bench, Bench(engine, bench.source)))

    assert config(bench, second)["created"] == "2001-09-09T01:46:40Z"
    assert members(bench, second, -1)["hello-c"].mtime == 1_000_000_000
    assert first.layers != second.layers


def test_layout(bench: Bench) -> None:
    """The layout is valid, with the base's layers elsewhere."""
    plan = bench.plan(run="alpine")
    base, image = bench.engine.prepare(plan.run.image), bench.image(plan)

    validate(bench.source.parent / image.path, external=frozenset(base.layers))
    assert image.path == ".variants/images/hello-c/gcc-static.alpine"


def test_reproducible(roots: dict[str, Path], public: Path, source: Path) -> None:
    """The same inputs give the same images in any home, with any umask, for any user."""
    runs = ("scratch", "alpine", "gcc")
    project = public / "project"
    shutil.copytree(source.parent, project)
    give(project, OTHER if os.geteuid() == 0 else None)
    first, _ = made_by(public / "home-1", roots, source, runs)
    before = os.umask(0o077)
    try:
        second, _ = made_by(public / "home-2", roots, source, runs)
    finally:
        os.umask(before)
    homes = public / "home-3"
    homes.mkdir()
    give(homes, OTHER if os.geteuid() == 0 else None)
    uid = OTHER if os.geteuid() == 0 else None
    third, _ = child(uid, made_by, homes / "home", roots, project / source.name, runs).result()

    assert first == second == third
    assert len(set(first)) == len(runs)


# Smoke runs


def test_arguments_and_environment(bench: Bench) -> None:
    """A smoke run adds arguments and environment to the image's own."""
    plan = bench.plan(
        smoke=Smoke(args=("a", "b c"), env=(("NAME", "smoke"),)), run_env=(("NAME", "x"),)
    )

    assert bench.run(plan).stdout == f"{GREETING}a\nb c\nsmoke\n"


def test_files_of_an_engine(bench: Bench) -> None:
    """A smoke run has the files that a container engine gives where there is no network."""
    script = "cat /etc/hostname /etc/resolv.conf; head -n 1 /etc/hosts"
    plan = bench.plan(
        f"printf '#!/bin/sh\\n{script}\\n' > /out/hello-c; chmod 755 /out/hello-c", run="alpine"
    )

    assert bench.run(plan).stdout == (
        "variant\n# A smoke run has no network.\n127.0.0.1\tlocalhost\n"
    )


def test_mount_points_that_are_links(
    bench: Bench, roots: dict[str, Path], home: Path, tmp_path: Path
) -> None:
    """An image whose mount points are links runs all the same, and its links lead nowhere."""
    linked = tmp_path / "linked"
    shutil.copytree(roots["alpine"], linked, symlinks=True)
    for name in ("tmp", "proc", "dev", "etc"):
        shutil.rmtree(linked / name)
        (linked / name).symlink_to(f"/oldroot{tmp_path}")
    plan = bench.plan(
        "printf '#!/bin/sh\\nls -A /tmp /proc/1/exe\\n' > /out/hello-c; chmod 755 /out/hello-c",
        run="alpine",
    )
    engine = open_engine(home, {**roots, "alpine": linked}, bench.source.parent)

    assert Bench(engine, bench.source).run(plan).stdout == "/proc/1/exe\n\n/tmp:\n"


@pytest.mark.parametrize(
    "made",
    [
        pytest.param("echo echo hello > /out/hello-c", id="text without a shebang"),
        pytest.param("touch /out/hello-c", id="nothing at all"),
        pytest.param(
            f"{STATIC}; printf '\\267' | dd of=/out/hello-c bs=1 seek=18 conv=notrunc",
            id="another machine",
        ),
    ],
)
@pytest.mark.skipif(platform.machine() == "aarch64", reason="the other machine is aarch64")
def test_no_executable_format(bench: Bench, made: str) -> None:
    """What the kernel cannot execute does not start, though the image has a shell that could."""
    plan = bench.plan(f"{made}; chmod 755 /out/hello-c", run="alpine")

    assert bench.run(plan) == Observation(started=False, exec_error="exec format error")


EXIT_42 = (
    "7f454c46010101000000000000000000020003000100000054800408340000000000000000000000"
    "34002000010000000000000001000000000000000080040800800408600000006000000005000000"
    "0010000031c040b32acd80"
)
"""A 32-bit program: `exit(42)`."""


@pytest.mark.skipif(platform.machine() != "x86_64", reason="a program for x86")
def test_32_bits(bench: Bench) -> None:
    """A 32-bit program is left to the kernel, which runs it on a 64-bit machine."""
    data = "".join(f"\\x{EXIT_42[at : at + 2]}" for at in range(0, len(EXIT_42), 2))
    plan = bench.plan(f"printf '{data}' > /out/hello-c; chmod 755 /out/hello-c")

    assert bench.run(plan).exit_code == 42


def test_no_program(bench: Bench) -> None:
    """A command that the image does not have does not start."""
    seen = bench.run(bench.plan(run_cmd=("/nothing",)))

    assert seen == Observation(started=False, exec_error="/nothing: No such file or directory")


def test_not_executable(bench: Bench) -> None:
    """A program without its executable bit does not start."""
    plan = bench.plan(f"{STATIC}; chmod 644 /out/hello-c")

    assert bench.run(plan) == Observation(started=False, exec_error="/hello-c: Permission denied")


def test_cancel_a_build(bench: Bench, home: Path) -> None:
    """A cancelled build ends its command, leaves nothing in the store, and is no verdict."""
    word = token()

    def cancel() -> None:
        try:
            wait_until(lambda: program_runs(word), "the build runs")
        finally:
            bench.engine.cancel()

    canceller = threading.Thread(target=cancel)
    canceller.start()
    with pytest.raises(VariantsError, match=r"^cancelled$") as caught:
        bench.build(bench.plan(f"sh -c 'sleep 1000; :' {word}"))
    canceller.join()

    assert not isinstance(caught.value, BuildFailed)
    assert nothing_left(word)
    assert not (home / "builds").exists()
