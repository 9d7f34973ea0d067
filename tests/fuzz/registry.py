"""A registry may answer anything: the image is pulled and pushed, or an error of ours says why not.

An input is answers with `--` lines between them: a status, headers, an empty line, a body. In
bodies and headers, `@d2` is the digest of the second answer's body, `@s2` its size.
"""

from __future__ import annotations

import io
import re
import tempfile
import threading
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nox_variants.errors import VariantsError
from nox_variants.images.content import Descriptor
from nox_variants.images.pushing import Pusher
from nox_variants.images.registry import Registries
from nox_variants.images.transport import Transport
from nox_variants.oci.digest import sha256_bytes

if TYPE_CHECKING:
    from collections.abc import Callable

    import requests

WHERE = "registry.example.com/team/app:1"
ENVIRONMENT: dict[str, str] = {}
_REFERENCE = re.compile(rb"@([ds])([1-9])")
_MOST_ANSWERS = 40


class Hasty(threading.Event):
    """Nobody waits for it."""

    def wait(self, timeout: float | None = None) -> bool:
        """Return at once."""
        del timeout
        return self.is_set()


class Scripted(Transport):
    """HTTP whose answers are all known before."""

    def __init__(self, answers: list[tuple[int, dict[str, str], bytes]]) -> None:
        super().__init__(ENVIRONMENT, lambda _: None, Hasty())
        self._answers = iter(answers)

    def _opened(self) -> Any:
        session = super()._opened()
        for scheme in ("https://", "http://"):
            session.mount(scheme, _adapter(lambda: next(self._answers, None)))
        return session


def _adapter(following: Callable[[], tuple[int, dict[str, str], bytes] | None]) -> Any:
    """Return what gives requests its answers."""
    import requests  # noqa: PLC0415  # as the package does
    from requests.adapters import HTTPAdapter  # noqa: PLC0415
    from urllib3 import HTTPResponse  # noqa: PLC0415

    class Adapter(HTTPAdapter):
        def send(self, request: requests.PreparedRequest, **_: Any) -> requests.Response:  # type: ignore[override]
            for _piece in request.body or ():
                pass
            answer = following()
            if answer is None:
                raise requests.ConnectionError
            status, headers, body = answer
            raw = HTTPResponse(
                io.BytesIO(body), headers=headers, status=status, preload_content=False
            )
            return self.build_response(request, raw)

    return Adapter()


def answers(data: bytes) -> list[tuple[int, dict[str, str], bytes]]:
    """Return the answers that an input stands for."""
    parts = data.split(b"\n--\n")[:_MOST_ANSWERS]
    bodies: dict[int, bytes] = {}

    def meant(match: re.Match[bytes]) -> bytes:
        body = bodies.get(int(match[2]), b"")
        return sha256_bytes(body).encode() if match[1] == b"d" else b"%d" % len(body)

    found = []
    for number in range(len(parts), 0, -1):  # a body names those behind it
        head, _, body = parts[number - 1].partition(b"\n\n")
        bodies[number] = _REFERENCE.sub(meant, body)
        status, *lines = _REFERENCE.sub(meant, head).decode("latin-1").split("\n")
        pairs = (line.partition(":") for line in lines)
        headers = {name.strip(): value.strip() for name, colon, value in pairs if colon}
        code = int(status) if re.fullmatch("[2-5][0-9][0-9]", status) else 200
        found.append((code, headers, bodies[number]))
    return found[::-1]


def target(data: bytes) -> None:
    """Pull an image from such a registry, or push one to it."""
    if data.startswith(b"push\n"):
        _push(answers(data[5:]))
    else:
        _pull(answers(data))


def _pull(given: list[tuple[int, dict[str, str], bytes]]) -> None:
    registries = Registries(environ=ENVIRONMENT, progress=lambda _: None, cancelled=Hasty())
    registries._transport = Scripted(given)
    with (
        closing(registries),
        tempfile.TemporaryDirectory() as folder,
        suppress(VariantsError),
    ):
        found = registries.image(WHERE, "linux/amd64")
        blobs = registries.blobs(WHERE)
        for number, layer in enumerate(found.layers[:5]):
            blobs.fetch(layer, Path(folder, str(number)))


def _push(given: list[tuple[int, dict[str, str], bytes]]) -> None:
    pusher = Pusher(
        "registry.example.com",
        insecure=False,
        environ=ENVIRONMENT,
        progress=lambda _: None,
        cancelled=Hasty(),
    )
    pusher._transport = pusher._login._transport = Scripted(given)
    layer = b"a layer"
    blob = Descriptor(media_type="", digest=sha256_bytes(layer), size=len(layer))
    with closing(pusher), suppress(VariantsError):
        pusher.tells(WHERE, "team/app", "1", blob.digest)
        for repository in ("team/app", "team/other"):
            pusher.blob(WHERE, repository, blob, lambda: io.BytesIO(layer))
        pusher.manifest(WHERE, "team/app", "1", b"{}")
