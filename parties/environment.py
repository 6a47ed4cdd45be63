"""The variables VFL_* of the environment, which take precedence over party.toml: each must name a setting."""

import difflib
import os
from collections.abc import Iterator
from typing import Any, get_args, get_origin

from pydantic import BaseModel

from parties.errors import SettingsError

PREFIX, NO_SETTINGS = "VFL_", frozenset({"VFL_DEBUG"})


def check_environment(settings: type[BaseModel]) -> None:
    """Raises SettingsError for a variable that begins like a setting and is none: it would have no effect."""
    names = {key.upper() for key in _keys(settings)}
    for variable in sorted(os.environ):
        name = variable.upper()
        if not name.startswith(PREFIX) or name in NO_SETTINGS:
            continue
        words = name.removeprefix(PREFIX).split("__")
        if words[0] == "DATASETS" and len(words) > 1:
            words[1] = "<NAME>"
        if (key := "__".join(words)) not in names:
            near = difflib.get_close_matches(key, names, n=1)
            raise SettingsError(
                f"the environment variable {variable} names no setting",
                fix=f"Did you mean `{PREFIX}{near[0]}`?"
                if near
                else "Remove it: names that begin with VFL_ are settings.",
            )


def _keys(table: type[BaseModel], before: str = "") -> Iterator[str]:
    """Every setting as a variable names it, tables as a whole too; a data set of any name as <name>."""
    for name, field in table.model_fields.items():
        yield f"{before}{name}"
        inner = [kind for kind in (field.annotation, *get_args(field.annotation)) if _is_table(kind)]
        if inner and get_origin(field.annotation) is tuple:
            continue  # a list of tables is one value, as JSON
        if inner and get_origin(field.annotation) is dict:
            yield f"{before}{name}__<name>"
            yield from _keys(inner[0], f"{before}{name}__<name>__")
        elif inner:
            yield from _keys(inner[0], f"{before}{name}__")


def _is_table(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)
