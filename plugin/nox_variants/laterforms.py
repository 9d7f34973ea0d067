"""Forms that few files have: their modules are loaded for those that do."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter
from pydantic_core import core_schema

if TYPE_CHECKING:
    from pydantic import GetJsonSchemaHandler
    from pydantic_core.core_schema import CoreSchema

    from nox_variants.filemodel import Form


class Later:
    """The form of entries that few files have: its module is loaded for those that do.

    What is wrong with an entry is found as if the form stood here.

    Args:
        module: The form's module.
        name: The form's name in it.
        whole: The name there of what holds such entries. Without one it is a list of them, and a
            list of one may be written as its entry.
    """

    def __init__(self, module: str, name: str, whole: str = "") -> None:
        self._module = module
        self._name = name
        self._whole = whole

    @property
    def form(self) -> type[Form]:
        """The form."""
        found: type[Form] = getattr(importlib.import_module(self._module), self._name)
        return found

    def _type(self) -> TypeAdapter[Any]:
        if self._whole:
            return TypeAdapter(getattr(importlib.import_module(self._module), self._whole))
        return TypeAdapter(list[self.form])  # type: ignore[name-defined]  # known at run time

    def _validate(self, value: Any) -> Any:
        alone = not self._whole and isinstance(value, dict)
        return self._type().validate_python([value] if alone else value)

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self._validate)

    def __get_pydantic_json_schema__(
        self, core: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        # A chain of one: what a type says of its own JSON Schema counts inside of others only.
        found = handler(core_schema.chain_schema([self._type().core_schema]))
        return found if self._whole else {"anyOf": [found["items"], found]}
