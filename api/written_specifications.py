"""Specifications that the program writes for its user: of an alignment and of a prediction."""

import json
from collections.abc import Mapping, Sequence
from typing import Any


def toml(value: Any) -> str:
    """Strings, numbers and lists of them are alike in TOML and in JSON."""
    return json.dumps(value, ensure_ascii=False)


def alignment_specification(
    brought: Mapping[str, tuple[str, Sequence[str]]], rules: Mapping[str, Any], purpose: str
) -> str:
    """`brought` is (data set, id columns) by party, the first of which proposes; `rules` are those of [align]."""
    dataset, _ = next(iter(brought.values()))
    lines = ["[job]", f"name = {toml(f'align-{dataset}')}", 'protocol = "alignment"']
    lines += [f"purpose = {toml(purpose)}", "[roster]", f"parties = {toml([*brought])}"]
    for name, (dataset, columns) in brought.items():
        lines += [f"[data.{name}]", f"dataset = {toml(dataset)}", f"id = {toml([*columns])}"]
    lines += ["[align]", *(f"{key} = {toml(value)}" for key, value in rules.items())]
    return "\n".join(lines) + "\n"


def prediction_specification(
    model: str,
    roster: Mapping[str, Any],
    brought: Mapping[str, str],
    *,
    alignment: str = "",
    decimals: int = 4,
    purpose: str = "",
) -> str:
    """`model` is the id of the training, `roster` is its roster, `brought` names a data set by party."""
    lines = ["[job]", f"name = {toml(f'predict-{next(iter(brought.values()))}')}", 'protocol = "prediction"']
    lines += [f"purpose = {toml(purpose)}", "[roster]", *(f"{key} = {toml(value)}" for key, value in roster.items())]
    lines += ["[model]", f"training = {toml(model)}"]
    lines += ["[rows]", f"alignment = {toml(alignment)}"] if alignment else []
    lines += ["[scores]", f"decimals = {decimals}"]
    for name, dataset in brought.items():
        lines += [f"[data.{name}]", f"dataset = {toml(dataset)}"]
    return "\n".join(lines) + "\n"
