"""Specifications that the program writes for its user."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any


def written(document: Mapping[str, Any]) -> str:
    """A document as TOML text: a line for each key, and a heading for each table and for each party's data."""
    return "\n".join(line for name, table in document.items() for line in _lines(name, table)) + "\n"


def toml(value: Any) -> str:
    """Strings, numbers and lists of them are alike in TOML and in JSON."""
    if isinstance(value, Mapping):
        return f"{{ {', '.join(f'{key} = {toml(each)}' for key, each in value.items())} }}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(toml, value))}]"
    return json.dumps(value, ensure_ascii=False)


def alignment_specification(
    brought: Mapping[str, tuple[str, Sequence[str]]], rules: Mapping[str, Any], purpose: str
) -> str:
    """`brought` is (data set, id columns) by party, the first of which proposes; `rules` are those of [align]."""
    dataset, _ = next(iter(brought.values()))
    return written(
        {
            "job": {"name": f"align-{dataset}", "protocol": "alignment", "purpose": purpose},
            "roster": {"parties": [*brought]},
            "data": {name: {"dataset": dataset, "id": [*columns]} for name, (dataset, columns) in brought.items()},
            "align": rules,
        }
    )


def prediction_specification(
    model: str,
    roster: Mapping[str, Any],
    brought: Mapping[str, str],
    *,
    alignment: str = "",
    decimals: int = 4,
    purpose: str = "",
    minutes: float = 0.0,
) -> str:
    """`model` is the id of the training, `roster` is its roster, `brought` names a data set by party; `minutes` are
    those of a session, 0 for none."""
    name = f"predict-{next(iter(brought.values()))}"
    return written(
        {
            "job": {"name": name, "protocol": "prediction", "purpose": purpose},
            "roster": roster,
            "model": {"training": model},
            **({"rows": {"alignment": alignment}} if alignment else {}),
            "scores": {"decimals": decimals},
            **({"session": {"minutes": minutes}} if minutes else {}),
            "data": {name: {"dataset": dataset} for name, dataset in brought.items()},
        }
    )


def _lines(name: str, table: Mapping[str, Any]) -> Iterator[str]:
    if name == "data":
        for party, own in table.items():
            yield from _lines(f"data.{party}", own)
        return
    yield f"[{name}]"
    yield from (f"{key} = {toml(each)}" for key, each in table.items())
