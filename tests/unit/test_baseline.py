"""The baseline: what a run changes in it, which rows are missing or stale, and its file."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

import jsonschema
import pytest

from nox_variants import lockfile, schemas
from nox_variants.baseline import NAME, Baseline, Pin, Row
from nox_variants.errors import UsageError
from nox_variants.limits import Limit, Measure
from nox_variants.model import Cause, Digest, LinkMode, SourceKind, VariantId, Verdict
from nox_variants.record import ImageUsed
from nox_variants.results import Outcome, Role, Sizes
from records import FULL
from samples import variant

if TYPE_CHECKING:
    from pathlib import Path

SIZES = Sizes(binary=1, content=3, above_base=2)
GCC = FULL.images[0]
WORKS = replace(
    FULL, verdict=Verdict.WORKS, cause=None, outcome=Outcome.PASSED, sizes=SIZES, images=(GCC,)
)
STATIC = variant("scratch", LinkMode.STATIC)
OTHER = variant("alpine", LinkMode.STATIC)
ROW = Row(verdict=Verdict.WORKS, sizes=SIZES)


def test_a_run_is_taken() -> None:
    """Verdicts, sizes and the digests of its images; scratch has none that could move."""
    scratch = ImageUsed(
        name="scratch",
        role=Role.RUN,
        source=SourceKind.SCRATCH,
        reference="",
        digest=Digest("sha256:" + "0" * 64),
        stand_in=False,
        packages=(),
    )

    found = Baseline().updated([replace(WORKS, images=(GCC, scratch))], [STATIC])

    assert found.rows == {("apt", WORKS.variant): ROW}
    assert {key: pin.digest for key, pin in found.images.items()} == {
        ("gcc", SourceKind.APT): GCC.digest
    }


def test_what_has_no_verdict_leaves_its_row() -> None:
    """An infrastructure problem is nothing to agree on."""
    before = Baseline(rows={("apt", WORKS.variant): ROW})
    error = replace(WORKS, verdict=None, outcome=Outcome.ERROR, sizes=None)

    assert before.updated([error], [STATIC]).rows == before.rows


def test_stale_and_missing_rows() -> None:
    """Rows of variants that are gone are stale, and go; variants without a row are missing."""
    gone = ("apt", "gone(scratch,static)")
    before = Baseline(rows={gone: ROW, ("registry", WORKS.variant): ROW})

    assert before.stale([STATIC]) == ("gone(scratch,static)",)
    assert before.missing([WORKS, replace(WORKS, verdict=None)]) == (WORKS.variant,)
    after = before.updated([WORKS], [STATIC])
    assert sorted(after.rows) == [("apt", WORKS.variant), ("registry", WORKS.variant)]
    assert (after.stale([STATIC]), after.missing([WORKS])) == ((), ())


def test_the_ratchet_only_falls() -> None:
    """An update keeps the least that was ever measured, where a ratchet is asked for."""
    ratcheted = replace(
        STATIC,
        limits=(
            Limit(measure=Measure.CONTENT, ratchet=True),
            Limit(measure=Measure.BINARY, fail=9),
            Limit(measure=Measure.TRANSFER, ratchet=True),
        ),
    )
    smaller = replace(WORKS, sizes=Sizes(binary=1, content=2, above_base=1))

    found = Baseline()
    seen = []
    for record in (WORKS, smaller, WORKS):
        found = found.updated([record], [ratcheted])
        row = found.row(record)
        assert row
        seen.append(row.ratchet)

    assert seen == [
        ((Measure.CONTENT, 3),),
        ((Measure.CONTENT, 2),),
        ((Measure.CONTENT, 2),),
    ]


def test_a_side_of_a_comparison() -> None:
    """A row is compared with the images that the record used, as far as they are known."""
    found = Baseline().updated([WORKS], [STATIC])

    side = found.side(WORKS)

    assert side
    assert (side.verdict, side.sizes, side.source) == (Verdict.WORKS, SIZES, "apt")
    assert [(each.name, each.digest) for each in side.images] == [("gcc", GCC.digest)]
    assert Baseline().side(WORKS) is None


# --- the file ------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A project's folder."""
    (tmp_path / ".variants").mkdir()
    return tmp_path


FAILS = replace(
    WORKS,
    variant=OTHER.id,
    verdict=Verdict.FAILS,
    cause=Cause.MISSING_LOADER,
    outcome=Outcome.XFAILED,
    sizes=None,
)


def test_the_file_round_trips(folder: Path) -> None:
    """What is written is read; a variant is a line; the schema takes it."""
    limits = (Limit(measure=Measure.CONTENT, ratchet=True),)
    wanted = Baseline().updated([WORKS, FAILS], [replace(STATIC, limits=limits), OTHER])

    lockfile.update(folder, "linux/amd64", lambda _: wanted)

    assert lockfile.exists(folder)
    assert lockfile.read(folder, "linux/amd64") == wanted
    text = (folder / NAME).read_text("utf-8")
    line = '"hello-c(alpine,static)": {"verdict": "fails", "cause": "missing-loader"}'
    assert line in [each.strip().rstrip(",") for each in text.splitlines()]
    schema = json.loads(schemas.documents()["lock.schema.json"])
    jsonschema.validate(json.loads(text), schema)


def test_other_platforms_stay(folder: Path) -> None:
    """A platform's update leaves the rest of the file alone."""
    for platform in ("linux/amd64", "linux/arm64", "linux/amd64"):
        lockfile.update(folder, platform, lambda found: found.updated([WORKS], [STATIC]))

    amd, arm = (lockfile.read(folder, f"linux/{each}") for each in ("amd64", "arm64"))
    assert amd == arm
    assert lockfile.read(folder, "linux/riscv64") == Baseline()


def test_updates_at_once(folder: Path) -> None:
    """Sessions of `nox -j` that update at the same time lose nothing of each other."""

    def work(number: int) -> None:
        record = replace(WORKS, variant=f"p({number},static)")
        every = [replace(STATIC, id=VariantId(f"p({each},static)")) for each in range(8)]
        lockfile.update(folder, "linux/amd64", lambda found: found.updated([record], every))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(lockfile.read(folder, "linux/amd64").rows) == 8


def test_no_file_is_an_empty_baseline(folder: Path) -> None:
    """Without one there is nothing to be held against."""
    assert not lockfile.exists(folder)
    assert lockfile.read(folder, "linux/amd64") == Baseline()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("no JSON", "Invalid JSON"),
        ('{"version": 2}', "version: Input should be 1"),
        (
            '{"version": 1, "platforms": {"x": {"images": {"g": {"apt": {"digest": "../a"}}}}}}',
            "platforms.x.images.g.apt.digest: String should match pattern",
        ),
        ('{"version": 1, "extra": 1}', "extra: Extra inputs are not permitted"),
    ],
)
def test_a_file_that_is_wrong(folder: Path, text: str, said: str) -> None:
    """Where and what is wrong is said, with what to do; nothing is overwritten."""
    (folder / NAME).write_text(text, encoding="utf-8")

    with pytest.raises(UsageError) as caught:
        lockfile.update(folder, "linux/amd64", lambda found: found)

    assert f"{folder / NAME}: {said}" in str(caught.value)
    assert "--update-baseline" in str(caught.value)
    assert (folder / NAME).read_text("utf-8") == text


def test_a_file_that_cannot_be_read(folder: Path) -> None:
    """A folder in its place is one sentence."""
    (folder / NAME).mkdir()

    with pytest.raises(UsageError, match="cannot be read"):
        lockfile.read(folder, "linux/amd64")


def test_pins_have_a_reference(folder: Path) -> None:
    """What an image can be had by again is kept."""
    pin = Pin(digest=GCC.digest, reference="gcc libc6-dev")
    wanted = Baseline(images={("gcc", SourceKind.APT): pin})

    lockfile.update(folder, "linux/amd64", lambda _: wanted)

    assert lockfile.read(folder, "linux/amd64").images == wanted.images
