"""What `vfl demo` prints for people: a head line, a table of models, and the facts worth knowing."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from api.cli.text import Facts
from api.metrics import interval_of
from api.sizes import readable_bytes

if TYPE_CHECKING:
    from rich.console import RenderableType


def training_screen(data: dict[str, Any]) -> "RenderableType":
    """Of a label party and a feature party."""
    from api.demo.training.report import (  # noqa: PLC0415 - only for text
        METRIC_NAMES,
        metric_of,
        metric_rows,
        new_score_rows,
        score_heading,
    )

    over = " over embeddings" if data["layout"] == "embeddings" else ""
    model = f"scheme {data['scheme']}, {data['top']} model{over}, {data['epochs']} epochs"
    head = f"{data['dataset']}: {data['rows']:,} rows at both parties, {model}"
    key, _ = metric_of(data)
    tables = [_table(("model", f"{METRIC_NAMES[key]} (95 % interval)"), metric_rows(data))]
    if data["new_rows"]:
        tables.append(_table(("new row", score_heading(data), "both halves in clear"), new_score_rows(data)))
    return _screen(head, tables, _training_facts(data))


def rounds_screen(data: dict[str, Any]) -> "RenderableType":
    """Of an aggregator and its clients."""
    from api.demo.rounds.report import accuracy_rows  # noqa: PLC0415

    head = f"{data['dataset']}, {data['mode']}: {data['rows']:,} rows at 4 parties, {data['rounds']} rounds"
    return _screen(head, [_table(("model", "accuracy (95 % interval)"), accuracy_rows(data))], _rounds_facts(data))


def _screen(head: str, tables: "Iterable[RenderableType]", facts: Iterable[tuple[str, str]]) -> "RenderableType":
    from rich.console import Group  # noqa: PLC0415

    return Group(head, "", *(part for table in tables for part in (table, "")), Facts(facts))


def _table(heads: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> "RenderableType":
    """The first column names what the numbers in the others are of."""
    from rich.table import Table  # noqa: PLC0415

    first, *others = heads
    table = Table(first, box=None, pad_edge=False)
    for name in others:
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(*row)
    return table


def _training_facts(data: dict[str, Any]) -> Iterator[tuple[str, str]]:
    from api.demo.training.report import files_line, notices_by_party  # noqa: PLC0415 - only for text

    yield "known rows", files_line(data["alignment"])
    if new := data["new_rows"]:
        yield "new rows", files_line(new["alignment"])
        yield "", f"joint scores and both halves in clear differ by {new['largest_difference']:.5f} at most"
    seconds, sizes = data["seconds"], data["bytes"]
    speed = f"{data['samples_per_second']:,.0f} samples per second"
    yield "time", f"{seconds['total']:.1f} s, training {seconds['training']:.1f} s, {speed}"
    theirs, ours = (readable_bytes(sizes[party]) for party in ("feature_party_sent", "label_party_sent"))
    yield "sent", f"feature party {theirs}, label party {ours}"
    for line in data["reveals"]:
        if line["values"] and line["grain"] != "whole table":
            yield "revealed", f"to {line['receiver']}: {line['values']:,} values, {line['learns']}"
    for party, notice in notices_by_party(data):
        yield notice["kind"], f"{party}: {notice['text']}"
    for limit in data["relaxed_limits"]:
        yield "relaxed limit", f"{limit['name']} from {limit['usual']:g} to {limit['relaxed']:g}"
    yield from _last_facts(data)


def _rounds_facts(data: dict[str, Any]) -> Iterator[tuple[str, str]]:
    from api.demo.rounds.part_facts import part_facts  # noqa: PLC0415
    from api.demo.rounds.report import kept, revealed, saving  # noqa: PLC0415

    seconds, sizes = data["seconds"], data["bytes"]
    yield "time", f"{seconds['total']:.1f} s, training {seconds['training']:.1f} s, {data['processes']} processes"
    ours, theirs = (readable_bytes(sizes[side]) for side in ("aggregator_sent", "clients_sent"))
    yield "sent", f"aggregator {ours}, clients {theirs}, in the last round {readable_bytes(sizes['per_round'][-1])}"
    whole, less = readable_bytes(sizes["whole_model"]), saving(data)
    yield (
        "",
        f"{less + ' times less than' if less else 'as much as averaging'} the whole model at full precision ({whole})",
    )
    if kept(data):
        yield "stored", f"{kept(data)} of parameters at each client between rounds"
    if "auc" in data["metrics"]:
        area = f"{data['metrics']['auc']:.4f} ({interval_of('auc', data['metrics'])})"
        yield "AUC", f"{area} of the model that travels, mean over digits, each against the rest"
    yield from part_facts(data)
    for line in revealed(data):
        if line["grain"] != "nothing":
            yield "revealed", f"to {line['receiver']}: {line['values']:,} messages, {line['learns']}"
    for limit in data["relaxed_limits"]:
        yield "relaxed limit", f"{limit['party']}: {limit['name']} from {limit['usual']:g} to {limit['relaxed']:g}"
    yield from _last_facts(data)


def _last_facts(data: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield "audit", data["audit"]["line"]
    for text in data["not_protected"]:
        yield "not protected", text
    yield "report", f"{data['folder']}/report.html"
