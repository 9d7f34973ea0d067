"""Files that appear when they are complete, and not at all otherwise."""

from __future__ import annotations

import os
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def whole_file(file: Path) -> Iterator[IO[bytes]]:
    """Open a draft that takes the file's place at the end, readable for everybody.

    Raises:
        OSError: It cannot be written; what was there before is as it was.
    """
    with tempfile.NamedTemporaryFile(
        dir=file.parent, prefix=f".{file.name}.", delete=False
    ) as draft:
        try:
            yield draft
            draft.flush()
            os.fchmod(draft.fileno(), 0o644)
            Path(draft.name).replace(file)
        except BaseException:
            Path(draft.name).unlink(missing_ok=True)
            with suppress(OSError):  # on a full disk `with` tries to write once more, and fails
                draft.close()
            raise
