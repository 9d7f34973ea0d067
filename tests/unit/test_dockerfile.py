"""Dockerfiles: their text, and that nothing in it means anything but what was written."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from nox_variants import dockerfile
from nox_variants.dockerfile import Base
from nox_variants.errors import ImageError
from nox_variants.model import CopiedFile, Image, LinkMode
from nox_variants.plan import BuildStage, make_plans
from samples import SETTINGS, variant

if TYPE_CHECKING:
    from nox_variants.plan import Plan

GCC = Base(name="gcc", reference="gcc:14")
ALPINE_GCC = Base(
    name="alpine-gcc", reference="alpine:3.22", setup=("apk add --no-cache gcc", "echo ready")
)
ALPINE = Base(name="alpine", reference="alpine:3.22")
SCRATCH = Base(name="scratch", reference="scratch")
STAND_IN = Base(
    name="gcc",
    reference="scratch",
    archive="gcc.tar",
    env=(("LANG", "C"),),
    stand_in=True,
)

STAGE = BuildStage(
    image=Image(name="gcc", sources=()),
    source=Path("hello-c"),
    workdir="/src",
    commands=("cc -o /out/hello-c *.c",),
    env=(),
    caches=(),
    artifacts=("/out/hello-c",),
    network=True,
)
CACHED = replace(
    STAGE,
    commands=("go mod download", "go vet | tee '/tmp/log'"),
    env=(("GOPATH", "/root/go"), ("NOTE", "a b")),
    caches=("/root/go/pkg/mod",),
)


def plan(run: str = "scratch", build: str = "gcc", **changes: Any) -> Plan:
    """Return the plan of a variant, with changes to its build stage."""
    (made,) = make_plans(SETTINGS, [variant(run, LinkMode.STATIC, build)])
    return replace(made, build=replace(made.build, **changes))


def stage(build: Base = GCC, *, buildkit: bool = True, kept: bool = False, **changes: Any) -> str:
    """Return the Dockerfile of a build stage."""
    made = replace(STAGE, **changes)
    return dockerfile.render_stage(made, build, epoch=7, buildkit=buildkit, kept=kept)


def instructions(text: str) -> list[tuple[str, str]]:
    """Return instructions as a builder reads them (Dockerfile reference, "Format")."""
    found, begun = [], ""
    for line in text.split("\n"):
        if line.lstrip().startswith("#") or not line.strip():
            continue
        if re.search(r"\\[ \t]*$", line):
            begun += re.sub(r"\\[ \t]*$", "", line)
            continue
        name, _, rest = (begun + line).strip().partition(" ")
        found.append((name, rest.strip()))
        begun = ""
    assert not begun
    return found


def commands(text: str) -> list[list[str]]:
    """Return what each RUN executes, without options, folders aside; JSON is what looks like it."""
    found = []
    for name, words in instructions(text):
        if name == "RUN" and not re.match(r"mkdir -p '?/", words):
            rest = re.sub(r"^(--mount=(\S|\"[^\"]*\")+\s+)*", "", words)
            assert not rest.startswith("--")
            assert "<<" not in rest or rest.startswith("[")
            found.append(json.loads(rest) if rest.startswith("[") else ["/bin/sh", "-c", rest])
    return found


def value(text: str) -> str:
    """Return a word of a builder's, quotes and escapes taken out; it may hold no variable."""
    if not text.startswith('"'):
        assert not re.search(r"[\\\"'$\s]", text)
        return text
    assert re.fullmatch(r'"([^\\"$]|\\[\\"$])*"', text)
    return re.sub(r'\\([\\"$])', r"\1", text[1:-1])


def test_two_stages_for_buildkit() -> None:
    """A build stage with mounts, and a stage with the program, a folder and a command."""
    text = dockerfile.render(
        plan("alpine", "alpine-gcc"), ALPINE_GCC, ALPINE, epoch=7, buildkit=True
    )

    assert (
        text
        == """\
# hello-c(alpine,static,alpine-gcc): c, static, built in alpine-gcc, runs in alpine. Made by nox-variants.

FROM alpine:3.22 AS build-base
# The versions are those of the release that FROM names.
# hadolint ignore=DL3018
RUN apk add --no-cache gcc
RUN echo ready

FROM build-base AS build
WORKDIR /out
WORKDIR /src
COPY src/ /src/
# ARG: what the build needs is no part of an image.
ARG SOURCE_DATE_EPOCH=7
RUN --mount=type=tmpfs,target=/tmp \\
    cc static -o /out/hello-c

FROM alpine:3.22 AS run
COPY --from=build /out/hello-c /hello-c
WORKDIR /
# Whatever the base starts, this image starts the program, without a shell.
ENTRYPOINT []
CMD ["/hello-c"]
"""  # noqa: E501  # the head names all there is
    )


def test_scratch_for_classic_builders() -> None:
    """A stand-in is filled from its archive and says that it is one; nothing is mounted."""
    text = dockerfile.render(plan(), STAND_IN, SCRATCH, epoch=0, buildkit=False)

    assert (
        text
        == """\
# hello-c(scratch,static): c, static, built in gcc, runs in scratch. Made by nox-variants.

# A stand-in for gcc, not that image.
FROM scratch AS build-base
ADD gcc.tar /

FROM build-base AS build
ENV LANG=C
RUN mkdir -p /out
WORKDIR /src
COPY src/ /src/
# ARG: what the build needs is no part of an image.
ARG SOURCE_DATE_EPOCH=0
RUN cc static -o /out/hello-c

FROM scratch AS run
COPY --from=build /out/hello-c /hello-c
CMD ["/hello-c"]
"""
    )


def test_single_stage() -> None:
    """Where the build image ships, there is one stage, and what it needs is not in its ENV."""
    made = plan("gcc", env=(("CC", "cc"),))

    text = dockerfile.render(made, GCC, GCC, epoch=7, buildkit=True)

    assert (
        text
        == """\
# hello-c(gcc,static): c, static, built in gcc, runs in gcc. Made by nox-variants.

FROM gcc:14 AS build
WORKDIR /out
WORKDIR /src
COPY src/ /src/
# ARG: what the build needs is no part of an image.
ARG SOURCE_DATE_EPOCH=7
# Exported, not ENV: that would ship.
RUN --mount=type=tmpfs,target=/tmp \\
    export CC=cc; \\
    cc static -o /out/hello-c
# The build image itself is shipped: the baseline.
# Whatever the base starts, this image starts the program, without a shell.
ENTRYPOINT []
CMD ["/out/hello-c"]
"""
    )


def test_caches_and_environment_for_buildkit() -> None:
    """Each image has its own caches; ENV wins over what the base image sets."""
    text = dockerfile.render_stage(CACHED, GCC, epoch=7, buildkit=True, kept=False)

    assert (
        text
        == """\
FROM gcc:14 AS build
WORKDIR /out
WORKDIR /src
COPY src/ /src/
# ARG: what the build needs is no part of an image.
ARG SOURCE_DATE_EPOCH=7
# ENV, which wins over the base's own: this stage does not ship.
ENV GOPATH=/root/go
ENV NOTE="a b"
RUN --mount=type=cache,id=gcc/root/go/pkg/mod,target=/root/go/pkg/mod,sharing=locked \\
    --mount=type=tmpfs,target=/tmp \\
    go mod download
# The shell is what the image has for /bin/sh: not every one knows pipefail.
# The recipe's commands are separate: each has a shell of its own.
# hadolint ignore=DL4006,DL3059
RUN --mount=type=cache,id=gcc/root/go/pkg/mod,target=/root/go/pkg/mod,sharing=locked \\
    --mount=type=tmpfs,target=/tmp \\
    go vet | tee '/tmp/log'
"""
    )


def test_caches_where_a_classic_builder_ships_the_stage() -> None:
    """Caches and temporary files are removed in the layer that has them, after the last command."""
    text = dockerfile.render_stage(CACHED, GCC, epoch=7, buildkit=False, kept=True)

    assert (
        text
        == """\
FROM gcc:14 AS build
RUN mkdir -p /out /root/go/pkg/mod
WORKDIR /src
COPY src/ /src/
# ARG: what the build needs is no part of an image.
ARG SOURCE_DATE_EPOCH=7
# Exported, not ENV: that would ship.
# The stage ships, and this builder has no mounts: one layer, nothing left over.
# The shell is what the image has for /bin/sh: not every one knows pipefail.
# hadolint ignore=DL4006
RUN export GOPATH=/root/go NOTE='a b'; \\
    /bin/sh -c 'go mod download' && \\
    /bin/sh -c 'go vet | tee '"'"'/tmp/log'"'"'' && \\
    rm -rf /tmp/* /tmp/.[!.]* /root/go/pkg/mod
"""
    )


@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("buildkit", [True, False])
def test_a_stage_is_the_beginning_of_its_variants(*, kept: bool, buildkit: bool) -> None:
    """What is compiled first and alone is what every variant's Dockerfile begins with."""
    made = plan("gcc" if kept else "scratch", caches=("/c",), env=(("A", "b"),))

    whole = dockerfile.render(made, ALPINE_GCC, ALPINE_GCC, epoch=7, buildkit=buildkit)
    part = dockerfile.render_stage(made.build, ALPINE_GCC, epoch=7, buildkit=buildkit, kept=kept)

    assert instructions(whole)[: len(instructions(part))] == instructions(part)
    assert instructions(part)[-1][0] == "RUN"


@pytest.mark.parametrize(
    ("build", "line"),
    [
        (GCC, "# The program's commands are to have no network: docker build --network=none"),
        (ALPINE_GCC, "# The program's commands are to have no network"),
    ],
)
def test_network(build: Base, line: str) -> None:
    """A build without a network says how to build it, unless its base needs one."""
    text = dockerfile.render(plan(network=False), build, SCRATCH, epoch=0, buildkit=True)

    assert text.splitlines()[1] == line


def test_run_environment_and_folder() -> None:
    """The environment of the base and the variant's own, and a folder that is not the root."""
    made = plan("alpine")
    made = replace(made, run=replace(made.run, env=(("MODE", "x y"),), workdir="/da ta"))
    base = replace(STAND_IN, name="alpine", archive="alpine.tar")

    text = dockerfile.render(made, GCC, base, epoch=0, buildkit=True)

    assert text.partition("AS run\n")[2] == (
        'ENV LANG=C\nENV MODE="x y"\nCOPY --from=build /out/hello-c /hello-c\n'
        'WORKDIR "/da ta"\nCMD ["/hello-c"]\n'
    )


OPTIONS: dict[str, Any] = {
    "files": (CopiedFile("/out/hello-c", "/hello-c"), CopiedFile("/etc/ssl", "/etc/ssl")),
    "install": ("setup --now",),
    "env": (("MODE", "x y"),),
    "user": "1000:1000",
    "labels": (("org.example.team", "a b"),),
    "entrypoint": ("/hello-c", "-v"),
    "cmd": (),
}


def test_all_options() -> None:
    """What a program's file says about its image, in the order in which one needs the other."""
    made = plan("alpine", files=("/etc/ssl",))
    made = replace(made, run=replace(made.run, **OPTIONS))

    text = dockerfile.render(made, GCC, replace(ALPINE, user="nobody"), epoch=0, buildkit=True)

    assert text.partition("AS run\n")[2] == (
        'ENV MODE="x y"\nCOPY --from=build /out/hello-c /hello-c\n'
        "COPY --from=build /etc/ssl /etc/ssl\nWORKDIR /\nUSER root\nRUN setup --now\n"
        'USER 1000:1000\nLABEL org.example.team="a b"\nENTRYPOINT ["/hello-c", "-v"]\nCMD []\n'
    )


@pytest.mark.parametrize("changes", [{"files": OPTIONS["files"][1:]}, {"install": ("true",)}])
def test_single_stage_with_more(changes: dict[str, Any]) -> None:
    """What comes on top of a single stage is a stage of its own: others copy from the build."""
    made = plan("gcc")
    made = replace(made, run=replace(made.run, **changes))

    text = dockerfile.render(made, GCC, GCC, epoch=0, buildkit=True)

    build, _, run = text.partition("\nFROM build AS run\n")
    assert "CMD" not in build
    assert run.endswith('CMD ["/out/hello-c"]\n')
    assert ("COPY --from=build /etc/ssl /etc/ssl" in run) == ("files" in changes)


def test_user_of_the_base() -> None:
    """A stand-in's user is said, for its archive cannot say it."""
    base = replace(STAND_IN, name="alpine", archive="alpine.tar", user="65532")

    text = dockerfile.render(plan("alpine"), GCC, base, epoch=0, buildkit=True)

    assert text.endswith('USER 65532\nCMD ["/hello-c"]\n')


def test_label_with_a_line_break() -> None:
    """A label that no LABEL can hold is refused."""
    made = plan("alpine")
    made = replace(made, run=replace(made.run, labels=(("a", "1\n2"),)))

    with pytest.raises(ImageError, match=r"^label a: '1\\n2' has a line break"):
        dockerfile.render(made, GCC, ALPINE, epoch=0, buildkit=True)


def test_loaded_stand_in() -> None:
    """A stand-in that an engine has loaded is named like any image; it starts nothing itself."""
    loaded = Base(name="gcc", reference="stand-ins/gcc:1", stand_in=True)

    text = dockerfile.render(plan("gcc"), loaded, loaded, epoch=0, buildkit=True)

    assert "FROM stand-ins/gcc:1 AS build\n" in text
    assert "ENTRYPOINT" not in text


def test_paths_with_blanks() -> None:
    """Blanks are part of a path in COPY, WORKDIR and mounts."""
    text = stage(artifacts=("/o ut/a b",), workdir="/s rc", caches=("/c d",))
    cleaned = stage(caches=("/c d",), buildkit=False, kept=True)

    assert 'WORKDIR "/o ut"\n' in text
    assert "RUN mkdir -p '/c d' /out\n" in cleaned
    assert 'WORKDIR "/s rc"\nCOPY ["src/", "/s rc/"]\n' in text
    assert '--mount=type=cache,id="gcc/c d",target="/c d",sharing=locked' in text
    assert cleaned.endswith("rm -rf /tmp/* /tmp/.[!.]* '/c d'\n")


def test_artifacts_alone() -> None:
    """For BuildKit's ``--output``, a stage holds the artifacts under their numbers."""
    made = replace(STAGE, artifacts=("/out/hello", "/out/b c"))

    text = dockerfile.render_artifacts(made, GCC, epoch=7)

    assert text.startswith(dockerfile.render_stage(made, GCC, epoch=7, buildkit=True, kept=False))
    assert text.endswith(
        """
FROM scratch
COPY --from=build /out/hello /0
COPY --from=build ["/out/b c", "/1"]
"""
    )


def test_no_folder_to_make() -> None:
    """An artifact in the root or in the work directory asks for no folder."""
    text = stage(artifacts=("/hello", "/src/hello"))

    assert [rest for name, rest in instructions(text) if name == "WORKDIR"] == ["/src"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"artifacts": ("/o*t/a",)}, "path '/o*t': '*' cannot be part of a path in a Dockerfile"),
        ({"caches": ("/a\nb",)}, r"path '/a\nb': '\n' cannot be part"),
        ({"caches": ("/a,b",)}, "path '/a,b': ',' cannot be part"),
        ({"workdir": "/$HOME"}, "path '/$HOME': '$' cannot be part"),
        ({"build": replace(GCC, reference="gcc 14")}, "image gcc: 'gcc 14' is no reference"),
        ({"build": replace(ALPINE_GCC, reference="")}, "image alpine-gcc: '' is no reference"),
        (
            {"build": replace(GCC, env=(("A", "b\nRUN c"),))},
            r"environment variable A: 'b\nRUN c' has a line break, which no ENV",
        ),
    ],
)
def test_what_has_no_form(changes: dict[str, Any], said: str) -> None:
    """What a Dockerfile cannot say is refused, and said to be possible elsewhere."""
    with pytest.raises(ImageError) as caught:
        stage(**changes)

    assert str(caught.value).startswith(said)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("command", "above"),
    [
        (
            "apt-get update && apt-get install -y gcc",
            [
                "# The versions are those of the release that FROM names.",
                "# hadolint ignore=DL3008",
            ],
        ),
        (
            "cd sub && cc *.c",
            [
                "# The command is the recipe's own, word for word.",
                "# hadolint ignore=SC2035,DL3003",
            ],
        ),
        ("make all", []),
    ],
)
def test_rules_that_a_recipe_may_break(command: str, above: list[str]) -> None:
    """An ignored rule stands right above its instruction, below the reason."""
    lines = stage(commands=(command,), buildkit=False).splitlines()

    assert lines[lines.index("ARG SOURCE_DATE_EPOCH=7") + 1 :] == [*above, f"RUN {command}"]


WORDS = st.lists(
    st.sampled_from(
        [
            *" \t\n\r#[]{}()<>|&;\"'\\$`*?!-=,",
            "<<E",
            "--mount=x",
            "# a",
            '["a"]',
            "cc",
            "é",
            "\u2028",
        ]
    )
).map("".join)
TEXT = WORDS | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
"""Anything that can be passed to a program, and what builders have an eye on."""


@given(command=TEXT, buildkit=st.booleans())
@example(command="[ -f a ] && b", buildkit=True)
@example(command="--network=none", buildkit=False)
@example(command="# nothing", buildkit=True)
@example(command="cat <<END\na\nEND", buildkit=True)
@example(command="a \\", buildkit=False)
@example(command="a\\ ", buildkit=False)
@example(command="a \\\n b\n", buildkit=False)
@example(command="", buildkit=True)
def test_commands_reach_the_shell(command: str, *, buildkit: bool) -> None:
    """The shell is given the command, but for blanks around it that mean nothing."""
    (argv,) = commands(stage(commands=(command,), buildkit=buildkit))

    assert argv[:2] == ["/bin/sh", "-c"]
    assert argv[2] == command or argv[2] == command.strip(" \n")
    assert argv[2] == command or not argv[2].endswith("\\")


@given(values=st.lists(TEXT, min_size=1, max_size=3), buildkit=st.booleans())
def test_exported_values(values: list[str], *, buildkit: bool) -> None:
    """In a stage that ships, a POSIX shell sees every value as it was written."""
    env = tuple((f"V{at}", each) for at, each in enumerate(values))

    ((*_, script),) = commands(stage(commands=("true",), env=env, kept=True, buildkit=buildkit))

    found = re.fullmatch(r"export (.*);\s+true(?: &&\s+rm -rf [^']*)?", script, re.DOTALL)
    assert found
    assert shlex.split(found[1]) == [f"{name}={each}" for name, each in env]


@given(values=st.lists(TEXT, min_size=1, max_size=3))
def test_declared_values(values: list[str]) -> None:
    """In a stage that is thrown away, values are ENV's, and exported where ENV cannot hold them."""
    env = tuple((f"V{at}", each) for at, each in enumerate(values))

    text = stage(commands=("true",), env=env)

    declared = [rest.partition("=") for name, rest in instructions(text) if name == "ENV"]
    plain = [(name, each) for name, each in env if not re.search(r"[\r\n]", each)]
    assert [(name, value(word)) for name, _, word in declared] == plain
    ((*_, script),) = commands(text)
    assert script.startswith("export ") == (len(plain) < len(env))


@given(parts=st.lists(TEXT, min_size=1, max_size=3))
def test_cleaned_commands(parts: list[str]) -> None:
    """In one layer, each command is one word of a shell's own, or plain enough for none."""
    ((*_, script),) = commands(stage(commands=tuple(parts), buildkit=False, kept=True))

    *words, last = script.rpartition("rm -rf")
    assert last == " /tmp/* /tmp/.[!.]*"
    words = shlex.split(words[0])
    if words[0] == "/bin/sh":
        assert words == [*chain(*(["/bin/sh", "-c", part, "&&"] for part in parts))]
    else:
        assert not re.search(r"[^\w./=:,@%+*? -]|exit|exec", parts[0])
        assert words == [*parts[0].split(), "&&"]
        assert len(parts) == 1


@pytest.mark.subprocess
@pytest.mark.parametrize(
    ("parts", "code", "said"),
    [
        (("cd / && exit 0", "pwd"), 0, "/away\ncleaned\n"),
        (("set -e; false; true", "echo never"), 1, ""),
        (("echo 'a\nb' # c",), 0, "a\nb\ncleaned\n"),
        (("exit 0",), 0, "cleaned\n"),
        (("echo plain",), 0, "plain\ncleaned\n"),
        (("exit 3",), 3, ""),
    ],
)
def test_a_real_shell(tmp_path: Path, parts: tuple[str, ...], code: int, said: str) -> None:
    """Commands of one layer know nothing of each other; the first that fails ends them."""
    (tmp_path / "away").mkdir()
    ((*shell, script),) = commands(stage(commands=parts, buildkit=False, kept=True))

    done = subprocess.run(
        [*shell, f"rm() {{ echo cleaned; }}; {script}"],
        env={"PATH": str(tmp_path)},  # nothing of this machine's is found, least of all its rm
        cwd=tmp_path / "away",
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stdout.replace(str(tmp_path), "")) == (code, said)
