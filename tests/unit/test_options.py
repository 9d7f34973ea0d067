"""Options: command line, environment, and mistakes in either."""

from __future__ import annotations

from pathlib import Path

import pytest

from nox_variants.errors import UsageError
from nox_variants.options import Options, cores, parse

PROG = "nox -s matrix --"


def test_defaults_use_every_core() -> None:
    """Without arguments everything is automatic."""
    options = parse([], {}, prog=PROG)

    assert isinstance(options, Options)
    assert options == Options()
    assert options.jobs is None
    assert cores() >= 1


def test_all_options() -> None:
    """Every option reaches its field; globs add up."""
    line = (
        "--only a* --only b --skip *c --engine embedded --images apt --jobs 3 --json out.json"
        " --no-cache --fail-fast --strict"
    )

    options = parse(
        line.split(),
        {},
        prog=PROG,
    )

    assert options == Options(
        engine="embedded",
        images="apt",
        jobs=3,
        only=("a*", "b"),
        skip=("*c",),
        json=Path("out.json"),
        use_cache=False,
        fail_fast=True,
        strict=True,
    )


def test_environment_is_the_default_and_the_command_line_wins() -> None:
    """`NOX_VARIANTS_*` mirrors the options."""
    environ = {
        "NOX_VARIANTS_ENGINE": "embedded",
        "NOX_VARIANTS_IMAGES": "apt",
        "NOX_VARIANTS_JOBS": "5",
    }

    options = parse(["--jobs", "2"], environ, prog=PROG)

    assert options == Options(engine="embedded", images="apt", jobs=2)


def test_empty_variable_is_not_set() -> None:
    """A variable that is set to nothing counts as not set."""
    assert parse([], {"NOX_VARIANTS_IMAGES": "", "NOX_VARIANTS_JOBS": ""}, prog=PROG) == parse(
        [], {}, prog=PROG
    )


def test_help_is_text() -> None:
    """`--help` names every option and does not end the process."""
    text = parse(["--help"], {}, prog=PROG)

    assert isinstance(text, str)
    for option in ("--only", "--skip", "--engine", "--images", "--jobs", "--json", "--no-cache"):
        assert option in text
    assert text.startswith("usage: nox -s matrix --")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--jobs", "0"], "'0' is not a number of jobs from 1 to 1024"),
        (["--jobs", "many"], "'many' is not a number of jobs"),
        (["--engine", "qemu"], "invalid choice: 'qemu'"),
        (["--shard", "1"], "'1' is no shard: 1/4 is the first of four"),
        (["--shards", "1/2"], "unrecognized arguments: --shards 1/2"),
        (["--json"], "expected one argument"),
    ],
)
def test_wrong_arguments_are_explained(arguments: list[str], message: str) -> None:
    """A mistake is a sentence with where to look, never a SystemExit."""
    with pytest.raises(UsageError) as caught:
        parse(arguments, {}, prog=PROG)

    assert message in str(caught.value)
    assert str(caught.value).endswith("nox -s matrix -- --help lists the options.")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        (
            "ENGINE",
            "qemu",
            "NOX_VARIANTS_ENGINE: unknown value 'qemu'. Choose from auto, embedded, docker, podman.",
        ),
        ("JOBS", "-1", "NOX_VARIANTS_JOBS: '-1' is not a number of jobs from 1 to 1024"),
    ],
)
def test_wrong_environment_is_explained(name: str, value: str, message: str) -> None:
    """A wrong variable is named."""
    with pytest.raises(UsageError) as caught:
        parse([], {f"NOX_VARIANTS_{name}": value}, prog=PROG)

    assert str(caught.value) == message
