"""The key `mirrors` of variants.yaml: its forms, its mistakes, and several files."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest
import yaml

from nox_variants import config
from nox_variants.errors import ConfigError
from nox_variants.model import Mirror
from nox_variants.schemas import FILES

if TYPE_CHECKING:
    from nox_variants.model import Mirrors

PROGRAM = """\
version: 1
programs:
  hello-c: {language: c, source: ., run: scratch}
"""
HUB = Mirror(host="mirror.example.com", prefix="hub")
LAB = Mirror(host="10.0.0.7:5000", insecure=True)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A current folder, as a user has it."""
    monkeypatch.chdir(tmp_path)


def mirrors(text: str) -> Mirrors:
    """Return the mirrors of a file."""
    file = Path("variants.yaml")
    file.write_text(f"{PROGRAM}mirrors: {text}\n", encoding="utf-8")
    return config.load(file).mirrors


def schema() -> dict[str, Any]:
    """Return the shipped schema."""
    text = (resources.files("nox_variants.schemas") / FILES["variants"]).read_text("utf-8")
    value: dict[str, Any] = json.loads(text)
    return value


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mirror.example.com/hub", (("*", (HUB,)),)),
        ("[mirror.example.com/hub, mirror.example.com]", (("*", (HUB, Mirror(host=HUB.host))),)),
        ("{docker.io: mirror.example.com/hub}", (("docker.io", (HUB,)),)),
        (
            (
                '{docker.io: [mirror.example.com/hub, {host: "10.0.0.7:5000", insecure: true}],'
                ' "*": {host: mirror.example.com/hub}, "registry.example.com:5000": "[::1]:80/a/b"}'
            ),
            (
                ("docker.io", (HUB, LAB)),
                ("*", (HUB,)),
                ("registry.example.com:5000", (Mirror(host="[::1]:80", prefix="a/b"),)),
            ),
        ),
        ("localhost", (("*", (Mirror(host="localhost"),)),)),
        ('{host: "10.0.0.7:5000", insecure: true}', (("*", (LAB,)),)),
    ],
)
def test_forms(text: str, expected: Mirrors) -> None:
    """A mirror is for all, or for a registry; several are asked in their order."""
    assert mirrors(text) == expected
    jsonschema.validate(yaml.safe_load(f"{PROGRAM}mirrors: {text}"), schema())


def test_none() -> None:
    """A file without mirrors has none."""
    Path("variants.yaml").write_text(PROGRAM, encoding="utf-8")

    assert config.load(Path("variants.yaml")).mirrors == ()


EXAMPLE = "Write HOST[:PORT][/PREFIX], as in mirror.example.com:5000/hub"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "https://mirror.example.com",
            (
                f"4:10: mirrors: 'https://mirror.example.com' is an address. {EXAMPLE}; insecure:"
                " true is plain http."
            ),
        ),
        (
            "mirror/hub",
            (
                "4:10: mirrors: 'mirror/hub' names no host: to docker, 'mirror' is a folder of"
                " docker.io. Write mirror.DOMAIN or mirror:PORT."
            ),
        ),
        (
            "mirror.example.com/Hub",
            (
                "4:10: mirrors: 'mirror.example.com/Hub' is no mirror."
                f" {EXAMPLE}, the prefix in lower case."
            ),
        ),
        ("mirror.example.com/", f"4:10: mirrors: 'mirror.example.com/' is no mirror. {EXAMPLE},"),
        ("mirror.example.com/a:1", "is no mirror."),
        ("mirror.example.com:0/a", "is no mirror."),
        ('"mirror.example.com/a b"', "is no mirror."),
        ('"mirror.example.com?x=y"', "is no mirror."),
        ('""', "is no mirror."),
        (
            "{docker.io: [x.io, x.io/a, x.io]}",
            "4:22: mirrors.docker.io: 'x.io' is there twice.",
        ),
        (
            "{hub: x.io}",
            (
                "4:11: mirrors.hub: 'hub' is no registry. Write docker.io, HOST.DOMAIN or"
                ' HOST:PORT, or "*" for every other.'
            ),
        ),
        (
            "{registry-1.docker.io: x.io}",
            (
                "4:11: mirrors.registry-1.docker.io: 'registry-1.docker.io' is Docker Hub, which"
                " images call docker.io. Write docker.io."
            ),
        ),
        ("{host: x.io, insecur: true}", "mirrors: unknown key 'insecur'. Did you mean 'insecure'?"),
        (
            "{docker.io: {host: x.io, insecur: true}}",
            "4:35: mirrors.docker.io.insecur: unknown key 'insecur'. Did you mean 'insecure'?",
        ),
        (
            "{docker.io: [x.io, {insecure: true}]}",
            "4:29: mirrors.docker.io[1]: key 'host' is missing.",
        ),
        (
            "{docker.io: {host: x.io, insecure: 1}}",
            "4:45: mirrors.docker.io.insecure: must be true or false, not a number.",
        ),
        ("{}", "4:10: mirrors: must not be empty."),
        ("[]", "4:10: mirrors: must not be empty."),
        ("{docker.io: []}", "4:22: mirrors.docker.io: must not be empty."),
        ("{docker.io: }", "4:22: mirrors.docker.io: must be a mapping, not nothing."),
        ("", "4:9: mirrors: must be a mapping, not nothing."),
        ("5000", '4:10: mirrors: must be text, not a number. Quote it: "5000".'),
    ],
)
def test_mistakes(text: str, said: str) -> None:
    """A mistake is named with its place and with what to write."""
    with pytest.raises(ConfigError) as caught:
        mirrors(text)

    assert len(caught.value.problems) == 1
    assert said in caught.value.problems[0]
    assert caught.value.problems[0].startswith("variants.yaml:4:")


@pytest.mark.parametrize(
    "text",
    [
        "me:secret@mirror.example.com",
        "https://me:secret@mirror.example.com/hub",
        "{docker.io: {host: me:secret@mirror.example.com}}",
        '{docker.io: ["secret@mirror.example.com"]}',
        '{"me:secret@docker.io": mirror.example.com}',
    ],
)
def test_credentials(text: str) -> None:
    """Credentials are refused wherever they stand, and not repeated."""
    with pytest.raises(ConfigError) as caught:
        mirrors(text)

    assert "has an '@'." in str(caught.value)
    assert "secret" not in str(caught.value)


def test_schema_refuses() -> None:
    """An editor refuses what has no form of a mirror at all."""
    refused: tuple[object, ...] = (
        5000,
        {},
        [],
        {"docker.io": []},
        {"docker.io": {"insecure": True}},
    )
    for value in refused:
        file = {**yaml.safe_load(PROGRAM), "mirrors": value}
        assert not jsonschema.Draft202012Validator(schema()).is_valid(file), value


# Several files


def load(*texts: str) -> Mirrors:
    """Return the mirrors of several files, the first of which has a program."""
    files = [Path(name, "variants.yaml") for name in "abcd"[: len(texts)]]
    for file, text in zip(files, texts, strict=True):
        file.parent.mkdir()
        start = PROGRAM if file.parent.name == "a" else "version: 1\n"
        file.write_text(start + text, encoding="utf-8")
    return config.load(*files).mirrors


def test_files_add_up() -> None:
    """Each file may have mirrors of other registries; what two say alike is said once."""
    first = "mirrors: {docker.io: mirror.example.com/hub}\n"
    second = 'mirrors: {docker.io: [mirror.example.com/hub], "*": x.io}\n'

    assert load(first, "", second) == (
        ("docker.io", (HUB,)),
        ("*", (Mirror(host="x.io"),)),
    )


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        (
            "mirrors: {docker.io: x.io}",
            "mirrors:\n  docker.io: y.io",
            (
                "b/variants.yaml:3:3: mirrors.docker.io: 'docker.io' is something else in"
                " a/variants.yaml:4:11. Leave it in one of the files."
            ),
        ),
        (
            "mirrors: x.io",
            "mirrors: y.io",
            (
                "b/variants.yaml:2:10: mirrors: '*' is something else in a/variants.yaml:4:10."
                " Leave it in one of the files."
            ),
        ),
        (
            'mirrors: {"*": [x.io, y.io]}',
            "mirrors: [y.io, x.io]",
            (
                "b/variants.yaml:2:10: mirrors: '*' is something else in a/variants.yaml:4:11."
                " Leave it in one of the files."
            ),
        ),
    ],
)
def test_files_that_differ(first: str, second: str, said: str) -> None:
    """What two files say differently names both places."""
    with pytest.raises(ConfigError) as caught:
        load(first, second)

    assert caught.value.problems == (said,)


def test_files_that_differ_beside_a_mistake() -> None:
    """A mistake elsewhere hides nothing."""
    with pytest.raises(ConfigError) as caught:
        load("mirrors: x.io\n", "mirrors: y.io\n", "xyzzy: 1\n", "mirrors: z\n")

    assert [each.partition(":")[0] for each in caught.value.problems] == [
        f"{name}/variants.yaml" for name in "bcd"
    ]
