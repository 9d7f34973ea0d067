"""The form of a program's budgets, as pydantic models: loaded for files that have some."""

from __future__ import annotations

from typing import Any, ClassVar, Self

from pydantic import Field, model_validator

from nox_variants.filemodel import Form, SelectorForm, ShorthandForm
from nox_variants.filevalues import Bytes, Seconds, SizeGrowth, TimeGrowth


class SizeGrowthForm(ShorthandForm):
    """How much a size may grow, since the baseline and since the last good run: `5%`, `200kB`."""

    shorthand = "fail"
    plain: ClassVar[dict[str, Any]] = {"type": ["string", "integer"]}

    fail: SizeGrowth | None = Field(None, description="More fails the run.")
    warn: SizeGrowth | None = Field(None, description="More is said.")


class TimeGrowthForm(ShorthandForm):
    """How much a time may grow since the last good run: `50%`, `2s`."""

    shorthand = "fail"
    plain: ClassVar[dict[str, Any]] = {"type": ["string", "number"]}

    fail: TimeGrowth | None = Field(None, description="More fails the run.")
    warn: TimeGrowth | None = Field(None, description="More is said.")


class LimitForm(ShorthandForm):
    """What a measure may be; a plain value is what fails the run."""

    shorthand = "fail"

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        fail, warn = getattr(self, "fail", None), getattr(self, "warn", None)
        if fail is not None and warn is not None and warn >= fail:
            raise ValueError("warns where it fails already. Let warn be less than fail.")
        if not self.model_fields_set - {"ratchet"} and not getattr(self, "ratchet", False):
            raise ValueError("limits nothing. Give it fail, warn, growth or ratchet.")
        return self


class SizeLimitForm(LimitForm):
    """What a size may be; a plain value is what fails the run."""

    plain: ClassVar[dict[str, Any]] = {"type": ["string", "integer"], "examples": ["1MB"]}

    fail: Bytes | None = Field(None, description="More fails the run.")
    warn: Bytes | None = Field(None, description="More is said.")
    growth: SizeGrowthForm | None = Field(
        None, description="What it may grow, since the baseline and since the last good run."
    )
    ratchet: bool = Field(
        default=False,
        description="Whether the least that variants.lock ever kept is a limit, too:"
        " `--update-baseline` lowers it, and never raises it.",
    )


class TimeLimitForm(LimitForm):
    """What a time may be; a plain value is what fails the run."""

    plain: ClassVar[dict[str, Any]] = {"type": ["string", "number"], "examples": ["5s"]}

    fail: Seconds | None = Field(None, description="More fails the run.")
    warn: Seconds | None = Field(None, description="More is said.")
    growth: TimeGrowthForm | None = Field(
        None, description="What it may grow since the last good run."
    )


class BudgetForm(Form):
    """What variants that work may measure; of several, the last that matches counts."""

    where: SelectorForm = Field(
        SelectorForm(), description="The variants that it is for; all when left out."
    )
    size: SizeLimitForm | None = Field(
        None, description="Content: regular files over all layers, uncompressed."
    )
    above_base: SizeLimitForm | None = Field(
        None, description="The same without the run image's own layers."
    )
    transfer: SizeLimitForm | None = Field(
        None, description="Compressed layers, as a registry has them."
    )
    binary: SizeLimitForm | None = Field(None, description="The artifact.")
    build: TimeLimitForm | None = Field(None, description="Wall time of the compile.")
    startup: TimeLimitForm | None = Field(
        None, description="From its execution to its end, or to a server's answer."
    )
    memory: SizeLimitForm | None = Field(
        None, description="Peak resident memory, which smoke.repeat: 2 and more measures."
    )

    @model_validator(mode="after")
    def _limits_something(self) -> Self:
        if not self.model_fields_set - {"where"}:
            raise ValueError("limits nothing. Give it a size: {size: 1MB}.")
        return self
