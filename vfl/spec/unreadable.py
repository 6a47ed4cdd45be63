"""What a person is told of a specification that does not have its type: where, and which keys or values there are."""

import difflib
import re
from collections.abc import Iterable, Iterator
from typing import Any, Literal, get_args, get_origin

import msgspec

from vfl.errors import SpecError

WORDS = {
    "int": "a whole number",
    "float": "a decimal number",
    "str": "text",
    "bool": "true or false",
    "array": "a list",
}
"""For what msgspec calls types; an object is a table."""


def unreadable(
    error: msgspec.DecodeError, specification: Any, others: Iterable[Any] = (), document: str = ""
) -> SpecError:
    """`specification` is the type it should have had, `others` are those of other kinds of job; `document` is the TOML
    text, if there is one."""
    text = str(error)
    position = re.search(r" - at `(?:key in )?\$\.?(.*)`$", text)
    path = position[1] if position else ""
    message = text.replace("Object ", "table ").replace(" - at `$.", " - at `").replace(" - at `$`", "")
    message = re.sub(r"^Expected `([^`]+)`, got `([^`]+)`", _expected, message)
    unknown = re.search(r"unknown field `(.+?)`", text)
    where = _where(".".join(filter(None, [path, unknown[1] if unknown else ""])), document)
    return SpecError(f"job specification: {message}{where}", fix=_fix(text, path, specification, tuple(others)))


def placed(error: SpecError, document: str) -> SpecError:
    """An error about a value that cannot be, with the line of the key that its message begins with."""
    key = re.match(r"job specification: (\w+(?:\.\w+)+) ", str(error))
    where = _where(key[1], document) if key else ""
    return type(error)(f"{error}{where}", fix=error.fix, safe=error.safe)


def _where(path: str, document: str) -> str:
    line = _line_of(path, document)
    return f" (line {line})" if line else ""


def _expected(types: re.Match[str]) -> str:
    wanted, there = (
        " or ".join(WORDS.get(name, "a table" if name == "object" else name) for name in group.split(" | "))
        for group in types.groups()
    )
    return f"Expected {wanted} and found {there}"


def _line_of(path: str, document: str) -> int:
    """Where a key stands, or the table that it stands in on one line; 0 where more than one may be meant, or none."""
    pattern = re.escape(path).replace(re.escape("[...]"), r"\.[\w-]+")
    table, keys = "", list[tuple[str, int]]()
    for number, line in enumerate(document.splitlines(), 1):
        if header := re.match(r"\s*\[{1,2}([^\[\]]+)\]", line):
            table = re.sub(r"[\s\"']", "", header[1])
            keys.append((table, number))
        elif key := re.match(r"\s*([\w.\"'-]+)\s*=", line):
            name = re.sub(r"[\"']", "", key[1])
            keys.append((f"{table}.{name}" if table else name, number))
    while pattern:
        if lines := {number for name, number in keys if re.fullmatch(pattern, name)}:
            return lines.pop() if len(lines) == 1 else 0
        pattern = pattern.rpartition(r"\.")[0]
    return 0


def _fix(text: str, path: str, specification: Any, others: tuple[Any, ...]) -> str:
    if unknown := re.search(r"unknown field `(.+?)`", text):
        keys = [key for table in _types_at(path, specification) for key in _keys(table)]
        elsewhere = {key for kind in (specification, *others) for table in _tables(kind) for key in _keys(table)}
        return _fix_of_key(unknown[1], keys, elsewhere)
    if missing := re.search(r"missing required field `(.+?)`", text):
        return f"Add `{missing[1]}`. `vfl demo` leaves a whole specification, `job.toml`, in its folder."
    if "Invalid enum value" in text or "Invalid value" in text:
        return f"Use one of {', '.join(allowed)}." if (allowed := _values_at(path, specification)) else ""
    return ""


def _fix_of_key(unknown: str, keys: list[str], elsewhere: set[str]) -> str:
    if unknown in keys:  # of another form of this table
        return f"Leave `{unknown}` out: it belongs to another encryption scheme, or to another kind of this table."
    if near := difflib.get_close_matches(unknown, keys, n=1):
        return f"Did you mean `{near[0]}`?"
    here = f"The keys here are {', '.join(dict.fromkeys(keys))}." if keys else ""
    if unknown in elsewhere:
        return f"Leave `{unknown}` out: it belongs to another table, or to another encryption scheme. {here}".strip()
    return here


def _values_at(path: str, specification: Any) -> list[str]:
    """Of a key that takes some words alone, or says which keys stand beside it, as `encryption.scheme` does."""
    table, _, key = path.rpartition(".")
    tags = [one.__struct_config__ for one in _types_at(table, specification) if _is_table(one)]
    words = [str(config.tag) for config in tags if config.tag_field == key]
    return words or [str(word) for one in _types_at(path, specification) for word in _words(one)]


def _types_at(path: str, specification: Any) -> list[Any]:
    """Of what may stand at a path such as `data[...].label`."""
    types = [specification]
    for step in re.findall(r"\w+|\[\.\.\.\]", path):
        types = [inner for one in types for inner in _inside(one, step)]
    return types


def _inside(one: Any, step: str) -> Iterator[Any]:
    if step == "[...]":
        yield from _each(get_args(one)[-1] if get_origin(one) is dict else next(iter(get_args(one)), None))
    elif _is_table(one):
        for field in msgspec.structs.fields(one):
            if field.name == step:
                yield from _each(field.type)


def _each(one: Any) -> list[Any]:
    """The members of a union."""
    if get_origin(one) in {dict, tuple, list, Literal} or isinstance(one, type):
        return [one]
    return [inner for member in get_args(one) for inner in _each(member)]


def _words(one: Any) -> tuple[Any, ...]:
    return get_args(one) if get_origin(one) is Literal else ()


def _is_table(one: Any) -> bool:
    return isinstance(one, type) and issubclass(one, msgspec.Struct)


def _keys(one: Any) -> list[str]:
    if not _is_table(one):
        return []
    tag = one.__struct_config__.tag_field
    return [*([tag] if tag else []), *one.__struct_fields__]


def _tables(one: Any) -> Iterator[Any]:
    """A table and those inside it."""
    if _is_table(one):
        yield one
        for field in msgspec.structs.fields(one):
            for part in _each(field.type):
                yield from _tables(get_args(part)[-1] if get_origin(part) in {dict, tuple} else part)
