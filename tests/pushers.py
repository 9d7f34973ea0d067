"""Who pushes images in tests, and small images of layers that are made here."""

from __future__ import annotations

import base64
import gzip
import io
import json
import random
import tarfile
import threading
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import requests
import zstandard

import registries
from nox_variants.errors import ImageError
from nox_variants.images.content import Descriptor
from nox_variants.images.packing import GZIP, Layer, Outgoing, Packer
from nox_variants.images.pushing import Pusher
from nox_variants.images.reference import Reference
from nox_variants.images.shipping import ship
from nox_variants.model import Digest
from nox_variants.store import Store
from registries import PASSWORD, USER

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from registries import Server

REPOSITORY = "team/app"


def tar(name: str, data: bytes) -> bytes:
    """Return a layer with one file."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as made:
        member = tarfile.TarInfo(name)
        member.size = len(data)
        made.addfile(member, io.BytesIO(data))
    return out.getvalue()


def write(data: bytes, out: Any) -> None:
    """Write a layer in pieces."""
    for start in range(0, len(data), 100_000):
        out.write(data[start : start + 100_000])


def plain(data: bytes) -> Layer:
    """Return a layer that is not compressed yet."""
    digest = Digest(registries.sha256(data))
    return Layer(diff_id=digest, size=len(data), write=partial(write, data))


def packed(data: bytes, form: str) -> Layer:
    """Return a layer that came compressed."""
    made = gzip.compress(data, 1) if form == "gzip" else zstandard.compress(data)
    described = Descriptor(
        media_type=f"{registries.LAYER}+{form}",
        digest=Digest(registries.sha256(made)),
        size=len(made),
    )
    diff_id = Digest(registries.sha256(data))
    return Layer(diff_id=diff_id, size=len(made), write=partial(write, made), packed=described)


def image_of(*layers: bytes) -> Outgoing:
    """Return an image of layers that are not compressed yet."""
    config = json.dumps(registries.configuration(list(layers))).encode()
    return Outgoing(config=config, layers=tuple(map(plain, layers)))


SMALL, LARGE = tar("small", b"small"), tar("large", random.Random(2).randbytes(700_000))  # noqa: S311  # no secret
IMAGE = image_of(SMALL, LARGE)


@dataclass
class Client:
    """A registry as a run has it, and what was said."""

    address: str
    home: Path
    environ: Mapping[str, str] = field(default_factory=dict)
    insecure: bool = True
    said: list[str] = field(default_factory=list)
    cancelled: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.store = Store(self.home)
        self.packer = Packer(self.store, progress=self.said.append, cancelled=self.cancelled)
        self.pusher = Pusher(
            self.address,
            insecure=self.insecure,
            environ=self.environ,
            progress=self.said.append,
            cancelled=self.cancelled,
        )

    def close(self) -> None:
        """Close connections and store."""
        self.pusher.close()
        self.store.close()

    def ship(
        self,
        image: Outgoing = IMAGE,
        repository: str = REPOSITORY,
        tag: str = "1",
        annotations: tuple[tuple[str, str], ...] = (),
    ) -> Digest:
        """Push an image."""
        target = Reference(registry=self.address, repository=repository, tag=tag, digest="")
        return ship(self.pusher, self.packer, image, target, annotations)

    def blob(self, data: bytes, repository: str = REPOSITORY) -> None:
        """Push a blob."""
        digest = Digest(registries.sha256(data))
        described = Descriptor(media_type=GZIP, digest=digest, size=len(data))
        self.pusher.blob("it", repository, described, lambda: io.BytesIO(data))

    def refused(self, kind: type[Exception] = ImageError, **changes: Any) -> str:
        """Return why an image is not taken, which tells no secret."""
        with pytest.raises(kind) as caught:
            self.ship(**changes)
        text = str(caught.value)
        assert text.startswith(f"{self.address}/{REPOSITORY}:1: ")
        assert_no_secret(text, *self.said)
        return text


def assert_no_secret(*texts: str) -> None:
    """Fail where a text has the password of the tests in it."""
    login = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    for text in texts:
        assert PASSWORD not in text
        assert login not in text


def got(address: str, path: str) -> requests.Response:
    """Ask a registry directly."""
    with requests.Session() as session:
        session.trust_env = False
        headers = {"Accept": registries.MANIFEST}
        return session.get(f"http://{address}/v2/{path}", headers=headers, timeout=60)


def methods(proxy: Server, part: str = "") -> list[str]:
    """Return the methods of what was asked, in order."""
    with proxy.lock:
        return [each.method for each in proxy.requests if part in each.path]
