"""Several files are one project: names, images and languages are shared, sources are not."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from nox_variants import config, matrix
from nox_variants.errors import ConfigError, SourceError
from nox_variants.sources import Sources
from nox_variants.store import Store

if TYPE_CHECKING:
    from nox_variants.model import Settings

SHARED = """\
version: 1
images:
  base: {archive: base.tar}
languages:
  shell:
    artifact: /out/{program}
    link: {dynamic: {build: base, commands: "cp *.sh /out/{program}"}}
"""
ONE = """\
version: 1
defaults: {language: shell, run: base}
programs:
  one: {source: src}
"""
OTHER = """\
version: 1
programs:
  other: {language: c, source: src, run: [base, gcc]}
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder of a project, with no files yet."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def load(**texts: str) -> Settings:
    """Return the settings of files, each in a folder of its own."""
    files = [Path(name, "variants.yaml") for name in texts]
    for file, text in zip(files, texts.values(), strict=True):
        file.parent.mkdir()
        file.write_text(text, encoding="utf-8")
    return config.load(*files)


def problems(**texts: str) -> tuple[str, ...]:
    """Return what is said about files."""
    with pytest.raises(ConfigError) as caught:
        load(**texts)
    return caught.value.problems


def test_files_are_one_project(project: Path) -> None:
    """Programs follow in the order of the files; images and languages are everybody's."""
    settings = load(a=ONE, b=OTHER, shared=SHARED)

    assert [(each.name, each.source) for each in settings.programs] == [
        ("one", project / "a/src"),
        ("other", project / "b/src"),
    ]
    assert settings.root == project
    assert settings.roots == (project / "a", project / "b", project / "shared")
    images = {image.name: image for image in settings.images}
    assert images["base"].sources[0].reference == "shared/base.tar"
    assert len(images) == len(settings.images)
    assert len(matrix.expand(settings).variants) == 3


def test_one_file_is_its_own_root(project: Path) -> None:
    """The root of one file is its folder, wherever it is read from."""
    settings = load(a=SHARED + OTHER.removeprefix("version: 1\n"))

    assert (settings.root, settings.roots) == (project / "a", (project / "a",))
    assert settings.images[-1].sources[0].reference == "base.tar"


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (
            {"a": ONE, "b": ONE, "shared": SHARED},
            (
                "b/variants.yaml:4:3: programs.one: 'one' is something else in"
                " a/variants.yaml:4:3. Rename one, or remove it."
            ),
        ),
        (
            {"a": ONE, "b": SHARED, "c": SHARED},
            (
                "c/variants.yaml:3:3: images.base: 'base' is something else in"
                " b/variants.yaml:3:3. Rename one, or remove it."
            ),
        ),
        (
            {"a": ONE, "b": SHARED, "c": SHARED.replace("base.tar", "../b/base.tar")},
            (
                "c/variants.yaml:3:19: images.base.archive: '../b/base.tar' leads out of the folder"
                " of this file. Write a path below it; to use sources from elsewhere, put the file"
                " above them."
            ),
        ),
        (
            {"a": ONE, "b": SHARED, "c": SHARED.replace("*.sh", "x.sh").replace("base.tar", "/x")},
            (
                "c/variants.yaml:5:3: languages.shell: 'shell' is something else in"
                " b/variants.yaml:5:3. Rename one, or remove it."
            ),
        ),
        (
            {"a": ONE.replace("shell", "shel"), "b": SHARED},
            (
                "a/variants.yaml:2:22: defaults.language: unknown language 'shel'."
                " Did you mean 'shell'?"
            ),
        ),
        (
            {"a": SHARED, "b": SHARED.replace("base", "base2").replace("shell", "sh")},
            "a/variants.yaml:1:1: key 'programs' is missing.",
        ),
        (
            {"a": ONE, "b": OTHER.replace("language: c, ", ""), "shared": SHARED},
            "b/variants.yaml:3:10: programs.other: key 'language' is missing.",
        ),
    ],
    ids=["program", "archive", "outside", "language", "unknown", "no programs", "defaults"],
)
def test_mistakes_between_files(texts: dict[str, str], said: str) -> None:
    """What two files say differently names both places; defaults are those of one file."""
    assert said in problems(**texts)


@pytest.mark.usefixtures("project")
def test_what_two_files_say_alike() -> None:
    """The same definition twice is one."""
    image = "images:\n  mine: {apt: bash}\n"

    settings = load(shared=SHARED, a=ONE + image, b=OTHER + image)

    assert [image.name for image in settings.images].count("mine") == 1


@pytest.mark.usefixtures("project")
def test_mistakes_of_all_files_are_said_at_once() -> None:
    """In the order of the files, and of their lines."""
    found = problems(
        b=OTHER.replace("gcc", "gc") + "xyzzy: 1\n",
        a=ONE.replace("src", "/src") + "images: {base: {apt: bash}}\n",
    )

    assert [said.split(" ")[0] for said in found] == [
        "b/variants.yaml:3:49:",
        "b/variants.yaml:4:1:",
        "a/variants.yaml:2:22:",
        "a/variants.yaml:4:17:",
    ]


@pytest.mark.usefixtures("project")
def test_files_that_cannot_be_read() -> None:
    """Each is named; the others are not blamed for what stands in it."""
    assert [said.split(": ")[0] for said in problems(a=ONE, b="a: b: c\n", c="")] == [
        "b/variants.yaml:1:5",
        "c/variants.yaml:1:1",
    ]


def test_sources_stay_in_the_folder_of_their_file(project: Path) -> None:
    """A link to the source of another file leads out, though not out of the project."""
    for name in ("a/src", "a/inner/src", "b/src"):
        (project / name).mkdir(parents=True)
    (project / "a/link").symlink_to("../b/src")
    (project / "a/inner/link").symlink_to("../src")
    (project / "a/below").symlink_to("inner/src")
    roots = (project / "a", project / "b", project / "a/inner")
    sources = Sources(Store(project / "home"), roots=roots)

    for name in ("a/src", "a/inner/src", "b/src", "a/below"):
        sources.snapshot(project / name)
    for name, root in (("a/link", "a"), ("a/inner/link", "a/inner"), ("home", "b")):
        with pytest.raises(SourceError, match=f"out(side)? of {project / root}"):
            sources.snapshot(project / name)
