"""Configurations and manifests: equal values give equal bytes, and descriptors fit them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st

from nox_variants.oci import image
from nox_variants.oci.digest import sha256_bytes

if TYPE_CHECKING:
    from nox_variants.model import Digest

FIRST, SECOND = sha256_bytes(b"first"), sha256_bytes(b"second")

DIGESTS = st.binary(min_size=1, max_size=8).map(sha256_bytes)
PAIRS = st.lists(st.tuples(st.text(), st.text()), max_size=4).map(tuple)


def config(*layers: Digest, platform: str = "linux/amd64", created: int = 0) -> bytes:
    return image.config(
        layers,
        cmd=("/hello", "--now"),
        env=(("PATH", "/bin"), ("A", "b=c")),
        workdir="/src",
        created=created,
        platform=platform,
    )


def test_config() -> None:
    """A configuration says what runs, where, and on which layers, base first."""
    moment = "2024-02-29T12:30:01Z"
    assert json.loads(config(SECOND, FIRST, created=1_709_209_801)) == {
        "architecture": "amd64",
        "os": "linux",
        "created": moment,
        "config": {
            "Cmd": ["/hello", "--now"],
            "Env": ["PATH=/bin", "A=b=c"],
            "WorkingDir": "/src",
        },
        "rootfs": {"type": "layers", "diff_ids": [SECOND, FIRST]},
        "history": [{"created": moment, "created_by": "nox-variants"}] * 2,
    }


def test_config_bytes_are_stable() -> None:
    """The bytes of a configuration, and so the image's id, change with no release unnoticed."""
    assert config() == (
        b'{"architecture":"amd64","config":{"Cmd":["/hello","--now"],"Env":["PATH=/bin","A=b=c"],'
        b'"WorkingDir":"/src"},"created":"1970-01-01T00:00:00Z","history":[],"os":"linux",'
        b'"rootfs":{"diff_ids":[],"type":"layers"}}'
    )


def test_platform_variant() -> None:
    """The third part of a platform becomes the variant; two parts leave none."""
    arm = json.loads(config(platform="linux/arm64/v8"))

    assert (arm["os"], arm["architecture"], arm["variant"]) == ("linux", "arm64", "v8")
    assert "variant" not in json.loads(config(platform="linux/arm64"))


@settings(deadline=None)
@given(env=PAIRS, labels=PAIRS, cmd=st.lists(st.text(), max_size=4))
def test_settings_are_kept(
    env: tuple[tuple[str, str], ...], labels: tuple[tuple[str, str], ...], cmd: list[str]
) -> None:
    """Any text survives: the environment and the command in order, labels only when given."""
    data = image.config(
        (), cmd=cmd, env=env, labels=labels, workdir="/", created=0, platform="linux/amd64"
    )

    found = json.loads(data)["config"]
    assert found["Env"] == [f"{name}={value}" for name, value in env]
    assert found["Cmd"] == cmd
    assert found.get("Labels") == (dict(labels) or None)


@settings(deadline=None)
@given(layers=st.lists(st.tuples(DIGESTS, st.integers(min_value=0, max_value=2**63))))
def test_manifest(layers: list[tuple[Digest, int]]) -> None:
    """A manifest describes its configuration's bytes and every layer, in order."""
    data = config(*(digest for digest, _ in layers))

    assert json.loads(image.manifest(data, layers)) == {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": sha256_bytes(data),
            "size": len(data),
        },
        "layers": [
            {
                "mediaType": "application/vnd.oci.image.layer.v1.tar",
                "digest": digest,
                "size": size,
            }
            for digest, size in layers
        ],
    }
