"""Build options, on every engine: folders, files, commands in the image, users, entry points."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from handmade import GREETING, SMOKE, Bench
from nox_variants import diagnosis
from nox_variants.errors import BuildFailed
from nox_variants.model import Cause, CopiedFile, Smoke, Verdict
from nox_variants.subject import Subject

if TYPE_CHECKING:
    from nox_variants.plan import Plan
    from nox_variants.results import Finding

APP = (
    "mkdir -p /out/app/data && cp /usr/lib/hello-static /out/app/run && echo 12345 >"
    " /out/app/data/five && ln -s data/five /out/app/link && ln -s /nowhere /out/app/dangling"
)
FOLDER: dict[str, Any] = {
    "stage_artifacts": ("/out/app",),
    "run_files": (CopiedFile("/out/app", "/app"),),
    "run_cmd": ("/app/run",),
}
PROGRAM = CopiedFile("/out/hello-c", "/hello-c")


def said(bench: Bench, *command: str, **changes: Any) -> str:
    """Return what a command of busybox says in a variant of alpine."""
    seen = bench.run(bench.plan(run="alpine", run_cmd=("/bin/busybox", *command), **changes))
    assert seen.exit_code == 0, seen
    return seen.stdout


def predicted(bench: Bench, plan: Plan) -> Finding:
    """Return what is foretold of a variant."""
    image = bench.image(plan)
    build = bench.build(plan)
    return diagnosis.predict(
        Subject(
            facts=bench.engine.inspect(image),
            artifact=build.artifacts[0].facts,
            smoke=plan.smoke,
            machine="x86_64",
            run_image=plan.variant.run_image,
            cmd=image.argv,
            user=image.user,
        )
    )


def test_folder(real: Bench) -> None:
    """An artifact may be a folder: its content is copied, links as they are, and counted."""
    plan = real.plan(APP, run="scratch", **FOLDER)
    (artifact,) = real.build(plan).artifacts
    image = real.image(plan)

    assert artifact.file.is_dir()
    assert artifact.size == (artifact.file / "run").stat().st_size + len("12345\n")
    assert (artifact.file / "link").readlink().as_posix() == "data/five"
    assert (image.sizes.binary, image.sizes.content) == (artifact.size, artifact.size)
    assert real.engine.smoke(image, SMOKE).stdout == GREETING


def test_folder_is_cached(real: Bench) -> None:
    """A folder comes out of the store as it went in; one that was changed there does not."""
    plan = real.plan(APP, run="scratch", **FOLDER)
    first = real.build(plan)
    again = real.build(plan)
    assert (again.cached, again.artifacts) == (True, first.artifacts)

    (first.artifacts[0].file / "data" / "five").write_text("other!\n", encoding="utf-8")
    assert not real.build(plan).cached


def test_folder_joins_what_is_there(real: Bench) -> None:
    """A folder's content comes beside that of the image's own folder."""
    files = (PROGRAM, CopiedFile("/out/more", "/etc"))
    commands = ("mkdir /out/more; echo hi > /out/more/new; cp /usr/lib/hello-static /out/hello-c",)
    install = ("echo old > /etc/old",)
    plan = real.plan(
        *commands,
        run="alpine",
        stage_files=("/out/more",),
        run_files=files,
        run_install=install,
        run_cmd=("/bin/busybox", "cat", "/etc/new", "/etc/old"),
    )

    assert real.run(plan).stdout == "hi\nold\n"


def test_files(real: Bench) -> None:
    """Files come from the source, and from the build image as it is after the build."""
    changes: dict[str, Any] = {
        "stage_files": ("/src/hello.c", "/usr/lib"),
        "run_files": (
            PROGRAM,
            CopiedFile("/src/hello.c", "/opt/deep/hello.c"),
            CopiedFile("/usr/lib", "/opt/lib"),
        ),
    }

    assert said(real, "cat", "/opt/deep/hello.c", **changes).startswith("int main")
    listed = said(real, "ls", "/opt/lib", **changes)
    assert listed.split() == ["hello-dynamic", "hello-static"]


def test_missing_file(real: Bench) -> None:
    """A file that the build image does not have is a build that failed."""
    with pytest.raises(BuildFailed, match="the build has no file /etc/none"):
        real.build(real.plan(stage_files=("/etc/none",)))


def test_install(real: Bench) -> None:
    """Commands of the run stage change the image, and what they made is seen before it runs."""
    plan = real.plan(
        run="alpine",
        run_env=(("NAME", "made"),),
        run_install=('cp /hello-c "/bin/$NAME"', "rm /hello-c"),
        run_cmd=("made",),
    )
    image = real.image(plan)

    assert predicted(real, plan).verdict is Verdict.WORKS
    assert real.engine.smoke(image, SMOKE).stdout == f"{GREETING}made\n"
    size = real.build(plan).artifacts[0].size
    assert image.sizes.above_base == 2 * size  # a layer hides what is below, and keeps it


@pytest.mark.parametrize(
    ("run", "words"),
    [
        ("alpine", "'echo no; exit 3' ended with exit code 3 in alpine"),
        ("scratch", "scratch has no /bin/sh to run the build's commands"),
    ],
)
def test_install_that_fails(real: Bench, run: str, words: str) -> None:
    """A command of the run stage that fails is a build that failed."""
    with pytest.raises(BuildFailed) as caught:
        real.image(real.plan(run=run, run_install=("echo no; exit 3",)))

    assert words in str(caught.value)
    assert run != "alpine" or "no" in caught.value.log.split()


@pytest.mark.parametrize(
    ("user", "ids"),
    [
        ("", "0 0 /"),
        ("1234", "1234 0 /"),
        ("1234:99", "1234 99 /"),
        ("me", "77 78 /home/me"),
        ("77:team", "77 79 /home/me"),
    ],
)
def test_user(real: Bench, user: str, ids: str) -> None:
    """A program runs as its user: by number, or as the image's files say."""
    install = (
        "echo me:x:77:78::/home/me:/bin/sh > /etc/passwd; echo team:x:79: > /etc/group",
        "mkdir -p /home/me",
    )
    script = 'echo "$(id -u) $(id -g) $HOME"'

    said_ids = said(real, "sh", "-c", script, run_user=user, run_install=install)

    assert said_ids.strip() == ids


def test_unknown_user(real: Bench) -> None:
    """A user that the image does not know keeps the program from starting, as is foretold."""
    plan = real.plan(run="alpine", run_user="nobody-here")

    seen = real.run(plan)

    assert not seen.started
    assert predicted(real, plan).cause is Cause.MISSING_USER


def test_entrypoint(real: Bench) -> None:
    """The entry point gets the command, and the smoke run's arguments, for its own."""
    plan = real.plan(run_entrypoint=("/hello-c", "one"), run_cmd=("two",), smoke=Smoke(args=("3",)))
    image = real.image(plan)

    assert image.argv == ("/hello-c", "one", "two")
    assert real.engine.smoke(image, plan.smoke).stdout == f"{GREETING}one\ntwo\n3\n"


def test_entrypoint_alone(real: Bench) -> None:
    """An entry point needs no command."""
    plan = real.plan(run_entrypoint=("/hello-c", "one"), run_cmd=())

    assert real.run(plan).stdout == f"{GREETING}one\n"


def test_single_stage_with_more(real: Bench) -> None:
    """A single-stage image gets files and commands on top of what was built."""
    plan = real.plan(
        run="gcc",
        stage_files=("/src/hello.c",),
        run_files=(CopiedFile("/src/hello.c", "/etc/copy.c"),),
        run_install=("cat /etc/copy.c > /etc/installed",),
        run_cmd=("/bin/busybox", "cat", "/etc/installed"),
    )

    assert real.run(plan).stdout.startswith("int main")
