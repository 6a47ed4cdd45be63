"""Results of benchmarks/rounds.py as one HTML page with plots: accuracy by round, and the spread over clients."""

import html
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

WIDTH, HEIGHT = 8.0, 4.2
"""Inches of one plot."""
STYLE: Any = {"font.size": 9, "svg.hashsalt": "rounds", "axes.spines.top": False, "axes.spines.right": False}
PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>
<style>body{{font:15px/1.5 sans-serif;max-width:56rem;margin:2rem auto;padding:0 1rem}}svg{{width:100%;height:auto}}
td,th{{text-align:right;padding:.15rem .6rem}}td:first-child,th:first-child{{text-align:left}}</style>
<h1>{title}</h1><p>{machine}</p>{body}</html>"""


def write(path: Path, title: str, machine: str, results: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> None:
    """`results` as `--format json` prints them. The page needs nothing else and opens offline."""
    with mpl.rc_context(STYLE):
        body = "".join(_setting(name, rows) for name, rows in results.items())
    path.write_text(PAGE.format(title=html.escape(title), machine=html.escape(machine), body=body), encoding="utf-8")


def _setting(name: str, rows: Mapping[str, Mapping[str, Any]]) -> str:
    plots = _svg(lambda axes: _accuracy(axes, rows))
    if all("client_std" in row for row in rows.values()):
        plots += _svg(lambda axes: _spread(axes, rows))
    return f"<h2>{html.escape(name)}</h2>{_table(rows)}{plots}"


def _accuracy(axes: Axes, rows: Mapping[str, Mapping[str, Any]]) -> None:
    for name, row in rows.items():
        by_round = row["accuracy_by_round"]
        axes.plot(range(1, len(by_round) + 1), by_round, label=name, linewidth=1.3)
    axes.set(xlabel="round", ylabel="global test accuracy, mean over seeds")
    axes.legend(fontsize=7, ncols=2, frameon=False)
    axes.grid(visible=True, alpha=0.3)


def _spread(axes: Axes, rows: Mapping[str, Mapping[str, Any]]) -> None:
    names, at = list(rows), range(len(rows))
    means = [rows[name]["accuracy_mean"] for name in names]
    axes.bar(at, means, yerr=[rows[name]["client_std"] for name in names], capsize=4, color="#9ab8d6")
    axes.scatter(at, [rows[name]["client_worst"] for name in names], color="#b5422c", zorder=3, label="worst client")
    axes.set_xticks(at, names, rotation=20, ha="right")
    axes.set(ylabel="accuracy; bars: deviation over clients", ylim=(0, 1))
    axes.legend(frameon=False)


def _table(rows: Mapping[str, Mapping[str, Any]]) -> str:
    columns = ("accuracy_mean", "accuracy_std", "client_std", "client_worst", "rounds_to_fedavg_final", "client_steps")
    shown = [column for column in columns if any(column in row for row in rows.values())]
    head = "".join(f"<th>{column.replace('_', ' ')}</th>" for column in ("row", *shown))
    lines = (
        f"<tr><td>{html.escape(name)}</td>"
        + "".join(f"<td>{row.get(column, 0):.4g}</td>" for column in shown)
        + "</tr>"
        for name, row in rows.items()
    )
    return f"<table><tr>{head}</tr>{''.join(f'{line}</tr>' for line in lines)}</table>"


def _svg(draw: Any) -> str:
    figure = Figure(figsize=(WIDTH, HEIGHT), layout="constrained")
    draw(figure.subplots())
    drawn = io.StringIO()
    figure.savefig(drawn, format="svg", metadata={"Date": None})
    return "<svg" + drawn.getvalue().partition("<svg")[2]
