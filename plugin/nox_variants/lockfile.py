"""``variants.lock``: the baseline as a file that people commit, read and merge."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from nox_variants import recordfile
from nox_variants.baseline import NAME, Baseline, Pin, Row
from nox_variants.errors import UsageError
from nox_variants.limits import Measure
from nox_variants.model import Cause, Digest, SourceKind, Verdict
from nox_variants.results import Sizes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

_Size = Annotated[int, Field(ge=0)]


class _Form(BaseModel):
    model_config = ConfigDict(extra="forbid", defer_build=True)


class PinForm(_Form):
    """An image as it was measured with; `--locked` uses exactly this one."""

    digest: str = Field(pattern=r"^sha256:[0-9a-f]{64}$", description="Of its content.")
    reference: str = Field(
        "",
        description="Registry reference with the digest to pull, archive path, or the apt packages"
        " asked for.",
    )


class RowForm(_Form):
    """What was measured of a variant."""

    verdict: Verdict = Field(description="Whether it works.")
    cause: Cause | None = Field(None, description="Why it fails.")
    binary: _Size | None = Field(None, description="Bytes of the artifact.")
    content: _Size | None = Field(None, description="Bytes of regular files over all layers.")
    above_base: _Size | None = Field(None, description="The same without the base's layers.")
    transfer: _Size | None = Field(None, description="Bytes of compressed layers.")
    ratchet: dict[Measure, float] = Field(
        {}, description="The least ever measured, for measures with a ratchet."
    )


class PlatformForm(_Form):
    """What is agreed on for a platform."""

    images: dict[str, dict[SourceKind, PinForm]] = Field(
        {}, description="Images by name and by where they came from."
    )
    variants: dict[str, dict[str, RowForm]] = Field(
        {}, description="Variants by where their images came from, and by id."
    )


class LockForm(_Form):
    """The baseline that runs are held against: made by `nox -s matrix -- --update-baseline`."""

    version: Literal[1] = Field(description="The version of this form.")
    platforms: dict[str, PlatformForm] = Field({}, description="By platform: `linux/amd64`.")


def exists(folder: Path) -> bool:
    """Tell whether a project has a baseline."""
    return (folder / NAME).is_file()


def read(folder: Path, platform: str) -> Baseline:
    """Return a project's baseline for a platform; an empty one where there is none.

    Raises:
        UsageError: The file cannot be read, or is not of the form of ``lock.schema.json``.
    """
    form = _read(folder / NAME).platforms.get(platform, PlatformForm())
    return Baseline(
        images={
            (name, kind): Pin(digest=Digest(pin.digest), reference=pin.reference)
            for name, kinds in form.images.items()
            for kind, pin in kinds.items()
        },
        rows={
            (source, name): _row(row)
            for source, rows in form.variants.items()
            for name, row in rows.items()
        },
    )


def update(folder: Path, platform: str, change: Callable[[Baseline], Baseline]) -> None:
    """Change a project's baseline, one process at a time; other platforms stay as they are.

    Raises:
        UsageError: The file cannot be read or written.
    """
    from filelock import FileLock  # noqa: PLC0415  # few runs write it

    file = folder / NAME
    with FileLock(folder / ".variants" / f"{NAME}.lock"):
        form = _read(file)
        form.platforms[platform] = _form(change(read(folder, platform)))
        recordfile.write(file, _text(form), what="--update-baseline")


def _read(file: Path) -> LockForm:
    try:
        text = file.read_text("utf-8")
    except FileNotFoundError:
        return LockForm(version=1)
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{file}: cannot be read: {error}") from error
    try:
        return LockForm.model_validate_json(text)
    except ValidationError as error:
        detail = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(map(str, detail["loc"]))
        raise UsageError(
            f"{file}: {f'{where}: ' if where else ''}{detail['msg']}",
            hint="Restore it from version control, or delete it and run"
            " `nox -s matrix -- --update-baseline`.",
        ) from error


def _row(form: RowForm) -> Row:
    sizes = None
    if form.binary is not None and form.content is not None and form.above_base is not None:
        sizes = Sizes(
            binary=form.binary,
            content=form.content,
            above_base=form.above_base,
            transfer=form.transfer,
        )
    return Row(
        verdict=form.verdict,
        cause=form.cause,
        sizes=sizes,
        ratchet=tuple(form.ratchet.items()),
    )


def _form(baseline: Baseline) -> PlatformForm:
    form = PlatformForm()
    for (name, kind), pin in sorted(baseline.images.items()):
        form.images.setdefault(name, {})[kind] = PinForm(digest=pin.digest, reference=pin.reference)
    for (source, name), row in sorted(baseline.rows.items()):
        sizes = row.sizes
        form.variants.setdefault(source, {})[name] = RowForm(
            verdict=row.verdict,
            cause=row.cause,
            binary=sizes.binary if sizes else None,
            content=sizes.content if sizes else None,
            above_base=sizes.above_base if sizes else None,
            transfer=sizes.transfer if sizes else None,
            ratchet=dict(row.ratchet),
        )
    return form


def _text(form: LockForm) -> str:
    """Return the file's text: an image or a variant is a line, so that a diff says what changed."""
    values = form.model_dump(mode="json", exclude_defaults=True)
    return "".join(_lines({"version": 1, **values}, "")) + "\n"


def _lines(value: Any, indent: str) -> Iterable[str]:
    nested = isinstance(value, dict) and any(isinstance(each, dict) for each in value.values())
    if not nested or "verdict" in value or "digest" in value:
        yield json.dumps(value, ensure_ascii=False)
        return
    inner = f"{indent} "
    yield "{"
    for number, (key, each) in enumerate(value.items()):
        yield f"{',' if number else ''}\n{inner}{json.dumps(key, ensure_ascii=False)}: "
        yield from _lines(each, inner)
    yield f"\n{indent}}}"


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of the file."""
    return LockForm.model_json_schema()
