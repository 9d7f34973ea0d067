"""The shipped schemas are those of the models, and editors believe what we believe."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path

import jsonschema
import pytest
import yaml

from nox_variants.cli import main
from nox_variants.schemas import FILES, documents

REPOSITORY = Path(__file__).parents[2]


def schema() -> dict[str, object]:
    """Return the shipped schema of variants.yaml."""
    text = (resources.files("nox_variants.schemas") / FILES["variants"]).read_text("utf-8")
    value: dict[str, object] = json.loads(text)
    return value


@pytest.mark.parametrize("name", FILES.values())
def test_shipped_schemas_have_not_drifted(name: str) -> None:
    """`nox -s schema` would write what is there already."""
    shipped = (resources.files("nox_variants.schemas") / name).read_text("utf-8")

    assert shipped == documents()[name]
    jsonschema.Draft202012Validator.check_schema(json.loads(shipped))


def test_own_file_fits_the_schema() -> None:
    """The project's own matrix is valid to an editor too."""
    value = yaml.safe_load((REPOSITORY / "variants.yaml").read_text(encoding="utf-8"))

    jsonschema.validate(value, schema())


def test_every_field_says_what_it_means() -> None:
    """An editor shows a sentence for every key."""
    definitions = schema()["$defs"]
    assert isinstance(definitions, dict)
    forms = [
        form
        for definition in definitions.values()
        for form in (definition, *definition.get("anyOf", ()))
        if "properties" in form
    ]

    assert len(forms) >= 10
    for form in forms:
        for name, field in form["properties"].items():
            assert field.get("description"), name


@pytest.mark.parametrize(
    "image", ["bash", ["bash", "dash"], {"packages": "bash", "setup": ["true"]}]
)
def test_short_and_long_forms_fit(image: object) -> None:
    """An image's source may be written short, for the schema as for the reader."""
    program = {"language": "c", "source": "a", "run": "scratch"}
    value = {"version": 1, "programs": {"a": program}, "images": {"b": {"apt": image}}}

    jsonschema.validate(value, schema())


@pytest.mark.parametrize("what", FILES)
def test_schema_command_prints_what_is_shipped(
    what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """`nox-variants schema` gives the schema to whoever has no source tree."""
    assert main(["schema", what]) == 0

    shipped = (resources.files("nox_variants.schemas") / FILES[what]).read_text("utf-8")
    assert capsys.readouterr().out == shipped


ONE = {"language": "c", "source": "a", "run": "gcc"}


@pytest.mark.parametrize(
    ("defaults", "program", "fits"),
    [
        (None, ONE, True),
        (None, {"language": "c", "source": "a"}, False),
        ({"run": "gcc"}, {"language": "c", "source": "a"}, True),
        ({"run": "gcc"}, {"language": "c"}, False),
        (ONE, {}, True),
        ({"runs": "gcc"}, ONE, False),
    ],
)
def test_defaults(defaults: dict[str, str] | None, program: dict[str, str], fits: bool) -> None:  # noqa: FBT001  # a row
    """An editor asks for what neither the program nor the defaults of the file say."""
    file = {"version": 1, "programs": {"a": program}}
    file |= {"defaults": defaults} if defaults else {}

    assert jsonschema.Draft202012Validator(schema()).is_valid(file) is fits
