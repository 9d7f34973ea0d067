"""Debian packages and repositories of the tests' own."""

from __future__ import annotations

import hashlib
import os
import subprocess
import threading
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

FILE = 0o644
LONGEST = 30.0
"""Seconds that a download is held up at most, should a test fail to let it go on."""


class Repository:
    """A folder with packages and their list, without a signature.

    Args:
        folder: The folder; it is made.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        self._time = 1_600_000_000

    def add(
        self,
        name: str,
        files: Mapping[str, tuple[str | bytes, int]] | None = None,
        *,
        version: str = "1.0",
        folders: Mapping[str, int] | None = None,
        links: Mapping[str, str] | None = None,
        **fields: str,
    ) -> Path:
        """Build a package of files, folders and links, and list it; returns the package."""
        work = self.folder.with_name(f"{self.folder.name}-{name}-{version.replace(':', '-')}")
        (work / "DEBIAN").mkdir(parents=True)
        control = {"Package": name, "Version": version, "Architecture": "all"}
        control |= {"Maintainer": "Nobody <nobody@example.org>", "Description": name} | fields
        (work / "DEBIAN" / "control").write_text(
            "".join(f"{key}: {value}\n" for key, value in control.items()), encoding="utf-8"
        )
        for path, target in (links or {}).items():
            (work / path).parent.mkdir(parents=True, exist_ok=True)
            (work / path).symlink_to(target)
        for path, mode in (folders or {}).items():
            (work / path).mkdir(parents=True, exist_ok=True)
            (work / path).chmod(mode)
        for path, (text, mode) in (files or {}).items():
            (work / path).parent.mkdir(parents=True, exist_ok=True)
            (work / path).write_bytes(text.encode() if isinstance(text, str) else text)
            (work / path).chmod(mode)
        package = self.folder / f"{name}_{version.rpartition(':')[2]}_all.deb"
        subprocess.run(
            ["dpkg-deb", "--root-owner-group", "-Znone", "--build", str(work), str(package)],
            check=True,
            capture_output=True,
        )
        self.index()
        return package

    def index(self) -> None:
        """Write the list of the packages that are there."""
        blocks = []
        for package in sorted(self.folder.glob("*.deb")):
            command = ["dpkg-deb", "--field", str(package)]
            fields = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            data = package.read_bytes()
            digest = hashlib.sha256(data).hexdigest()
            blocks.append(
                f"{fields}Filename: ./{package.name}\nSize: {len(data)}\nSHA256: {digest}\n\n"
            )
        file = self.folder / "Packages"
        file.write_text("".join(blocks), encoding="utf-8")
        self._time += 60  # HTTP tells seconds apart, tests are faster
        os.utime(file, (self._time, self._time))

    def local(self, options: str = "[trusted=yes]") -> str:
        """Return the line of a sources.list that names the folder itself."""
        return f"deb {options} file:{self.folder} ./\n"

    @contextmanager
    def served(self) -> Iterator[Mirror]:
        """Serve the folder over HTTP."""
        mirror = Mirror(self.folder)
        try:
            yield mirror
        finally:
            mirror.stop()


class Mirror:
    """A web server for a repository.

    Attributes:
        requests: Names of the files that were asked for, in order.
        go_on: Packages stop half-way until this is set.
    """

    def __init__(self, folder: Path) -> None:
        self.requests: list[str] = []
        self.go_on = threading.Event()
        self.go_on.set()
        mirror = self

        class Handler(SimpleHTTPRequestHandler):
            def __init__(self, *args: object) -> None:
                super().__init__(*args, directory=str(folder))  # type: ignore[arg-type]

            def log_message(self, *_: object) -> None:
                mirror.requests.append(self.path.removeprefix("/./"))

            def copyfile(self, source: object, outputfile: object) -> None:
                data: bytes = source.read()  # type: ignore[attr-defined]
                half = len(data) // 2
                outputfile.write(data[:half])  # type: ignore[attr-defined]
                if self.path.endswith(".deb"):
                    mirror.go_on.wait(LONGEST)
                outputfile.write(data[half:])  # type: ignore[attr-defined]

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.handle_error = lambda *_: None  # type: ignore[method-assign]
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def line(self, options: str = "[trusted=yes]") -> str:
        """Return the line of a sources.list that names this server."""
        return f"deb {options} http://127.0.0.1:{self._server.server_port}/ ./\n"

    def packages(self) -> list[str]:
        """Return the names of the packages that were asked for."""
        return [name for name in self.requests if name.endswith(".deb")]

    def stop(self) -> None:
        """End it."""
        self.go_on.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
