"""The exception tree. Imports nothing of the package.

VariantsError
├── ConfigError          the file is wrong; carries every problem found
├── UsageError           the command line is wrong, or names what does not exist
├── EngineUnavailable    the engine cannot work on this machine
├── ImageUnavailable     no source of the image can be used here: the variant is skipped
├── ImageError           a source that should work failed: an `error`, never a verdict
├── SourceError          the source folder cannot be taken as it is
├── BuildFailed          the program does not compile or made no artifact: `fails`
├── SandboxError         the sandbox itself failed, not the program in it
├── StoreError           the store cannot be read or written
├── LayoutError          an image layout or layer is malformed or hostile
└── HistoryError         the record database cannot be read or written
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return `` Did you mean 'alpine'?`` when something known is close, else nothing."""
    import difflib  # noqa: PLC0415  # only a mistake needs it

    close = difflib.get_close_matches(word, list(map(str, known)), n=1, cutoff=0.6)
    return f" Did you mean {close[0]!r}?" if close else ""


class VariantsError(Exception):
    """An error that is explained to the user without a traceback.

    Args:
        message: Where and what, with the offending value in ``repr``.
        hint: What to do about it, as a sentence; empty when there is nothing to say.
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message.rstrip('.')}. {self.hint}" if self.hint else self.message


class ConfigError(VariantsError):
    """The configuration file is wrong.

    Args:
        problems: One line per problem, each ``file:line:column: path: what. hint``.
    """

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class UsageError(VariantsError):
    """The command line is wrong, or names something that does not exist."""


class EngineUnavailable(VariantsError):  # noqa: N818  # a state, in Docker's own words
    """The engine cannot work on this machine; the hint says what would change that."""


class ImageUnavailable(VariantsError):  # noqa: N818
    """No source of the image can be used here. The variants that need it are skipped."""


class ImageError(VariantsError):
    """A source that should have worked failed: a mirror, a package, a setup command, a disk."""


class SourceError(VariantsError):
    """The source folder cannot be read, leads out of itself, or holds what no image can."""


class BuildFailed(VariantsError):  # noqa: N818
    """The program does not compile, or the build made no artifact.

    Args:
        message: Which command failed and how.
        log: The end of the build's output, bounded.
        seconds: Wall time the failed build took.
    """

    def __init__(self, message: str, *, log: str = "", seconds: float = 0.0) -> None:
        super().__init__(message)
        self.log = log
        self.seconds = seconds


class SandboxError(VariantsError):
    """The sandbox could not be set up. Says nothing about the program."""


class StoreError(VariantsError):
    """The store under ``NOX_VARIANTS_HOME`` cannot be read or written."""


class LayoutError(VariantsError):
    """An image layout, archive or layer is malformed or hostile."""


class HistoryError(VariantsError):
    """The record database cannot be read or written."""
