"""Plots as inline SVG that follows the page: its font, and its colours in light and dark."""

import io
import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from api.sizes import readable_bytes

# Stand-ins that no plot would use otherwise; each becomes a CSS variable of the page.
INK, QUIET, LINE, FIRST, SECOND = "#010101", "#020202", "#030303", "#040404", "#050505"
PLOT_INCHES, TITLE_INCHES, LABELS_INCHES, LEGEND_LINE_INCHES = 1.92, 0.29, 0.44, 0.165
"""Of a plot with its title, its title alone, the labels below it, and one line of a legend."""
BELOW_INCHES = LABELS_INCHES + 0.06
VARIABLES = {INK: "--ink", QUIET: "--quiet", LINE: "--line", FIRST: "--first", SECOND: "--second"}


def loss_curve(epochs: Sequence[int], training: Sequence[float], held_out: Sequence[float], name: str) -> str:
    """Loss on training and held-out rows after each epoch."""
    figure, axes = _figure(3.4, 2.9)
    _curve(axes, epochs, held_out, SECOND, "held-out rows")
    _curve(axes, epochs, training, FIRST, "training rows", dashed=True)
    axes.set_title(name, loc="left", fontsize=10, color=INK, pad=8)
    _legend(axes)
    return _svg(figure, f"{name} after each epoch, on training and on held-out rows")


def metric_curve(
    values: Sequence[float | None],
    name: str,
    references: Sequence[tuple[str, float]],
    *,
    along: str = "epoch",
    curve: str = "this run",
    beside: tuple[str, Sequence[float]] = ("", ()),
) -> str:
    """The metric on held-out rows after each epoch or round, others as level lines, and a run beside it."""
    figure, axes = _figure(3.4, 2.9)
    for (label, value), dashes in zip(references, ((4, 2), (1, 2)), strict=False):
        axes.axhline(value, color=QUIET, linewidth=1, dashes=dashes, label=label)
    name_beside, values_beside = beside
    if values_beside:
        rounds = list(range(1, len(values_beside) + 1))
        _curve(axes, rounds, values_beside, FIRST, name_beside, dashed=True, along=along)
    _curve(axes, list(range(1, len(values) + 1)), values, SECOND, curve, along=along)
    axes.set_title(name, loc="left", fontsize=10, color=INK, pad=8)
    _legend(axes)
    return _svg(figure, f"{name} on held-out rows after each {along}")


def curve(values: Sequence[float | None], name: str, along: str, *, numbers: Sequence[int] = (), first: int = 1) -> str:
    """One measure of one party, at these numbers of rounds or epochs, or counted from `first`."""
    figure, axes = _figure(3.4, 2.9)
    _curve(axes, list(numbers) or list(range(first, first + len(values))), values, SECOND, name, along=along)
    _title(axes, name[:1].upper() + name[1:])
    return _svg(figure, f"{name} by {along}")


def roc(false_positives: Sequence[float], true_positives: Sequence[float]) -> str:
    """Share of the positive rows found, over the share of the others taken for positive, at every threshold."""
    figure, axes = _figure(3.4, 2.9)
    axes.plot((0, 1), (0, 1), color=QUIET, linewidth=1, dashes=(1, 2))
    axes.plot(false_positives, true_positives, color=SECOND, linewidth=1.8)
    axes.set_xlabel("share of negatives above the threshold", fontsize=9, color=QUIET)
    _title(axes, "Share of positives above it (ROC)")
    return _svg(figure, "receiver operating characteristic")


def calibration(predicted: Sequence[float], observed: Sequence[float], *, shares: bool) -> str:
    """What was found in each bin of predictions; `shares` are of positives, else the points are means of the label."""
    figure, axes = _figure(3.4, 2.9)
    low, high = (0.0, 1.0) if shares else (min(*predicted, *observed), max(*predicted, *observed))
    axes.plot((low, high), (low, high), color=QUIET, linewidth=1, dashes=(1, 2))
    axes.plot(predicted, observed, color=SECOND, linewidth=1.8, marker="o", markersize=4)
    axes.set_xlabel("predicted probability" if shares else "predicted", fontsize=9, color=QUIET)
    _title(axes, "Share of positives found (calibration)" if shares else "Mean found (calibration)")
    return _svg(figure, "calibration")


def bytes_by_round(from_aggregator: Sequence[int], from_clients: Sequence[int], rounds: Sequence[int]) -> str:
    """What the aggregator sent in each round, and what its clients answered on top of it."""
    figure, axes = _figure(3.4, 2.9)
    axes.bar(rounds, from_aggregator, color=SECOND, width=0.72, label="sent by the aggregator")
    axes.bar(rounds, from_clients, bottom=from_aggregator, color=FIRST, width=0.72, label="sent by the clients")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: readable_bytes(int(value))))
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.set_xlabel("round", fontsize=9, color=QUIET)
    axes.set_title("Bytes", loc="left", fontsize=10, color=INK, pad=8)
    _legend(axes, left=0.19)
    return _svg(figure, "bytes sent in each round")


def bytes_by_kind(lines: Sequence[tuple[str, str, int]], first: str) -> str:
    """One bar per (sender, kind, bytes), largest first, on a logarithmic axis; `first` is one of the two senders."""
    ordered = sorted(lines, key=lambda line: line[2])
    figure, axes = _figure(7.0, 0.5 + 0.3 * len(ordered))
    colours = [FIRST if sender == first else SECOND for sender, _, _ in ordered]
    axes.barh(range(len(ordered)), [size for _, _, size in ordered], color=colours, height=0.62)
    axes.set_xscale("log")
    smallest, largest = (max(1, ordered[position][2]) for position in (0, -1))
    axes.set_xlim(min(10, smallest) / 2, largest * 20)
    axes.set_yticks(range(len(ordered)), [kind for _, kind, _ in ordered])
    for position, (_, _, size) in enumerate(ordered):
        axes.annotate(
            readable_bytes(size), (max(1, size), position), (5, 0), textcoords="offset points",
            va="center", fontsize=9, color=INK,
        )  # fmt: skip
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: readable_bytes(int(value))))
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    axes.grid(visible=False)
    axes.spines["left"].set_visible(False)
    axes.minorticks_off()
    figure.subplots_adjust(left=0.2, right=0.98, top=0.99, bottom=0.32 / (0.5 + 0.3 * len(ordered)))
    return _svg(figure, "bytes sent by kind of message")


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height))
    FigureCanvasSVG(figure)
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(LINE)
    axes.tick_params(colors=LINE, labelcolor=QUIET, labelsize=9, length=3)
    axes.grid(axis="y", color=LINE, linewidth=0.5, alpha=0.6)
    axes.set_axisbelow(True)
    return figure, axes


def _curve(
    axes: Axes,
    epochs: Sequence[int],
    values: Sequence[float | None],
    colour: str,
    label: str,
    *,
    dashed: bool = False,
    along: str = "epoch",
) -> None:
    axes.plot(
        epochs,
        [math.nan if value is None else value for value in values],
        color=colour,
        linewidth=1.8,
        linestyle=(0, (4, 2)) if dashed else "solid",
        marker="o" if len(epochs) <= 25 and not dashed else None,
        markersize=3.2,
        label=label,
    )
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.set_xlabel(along, fontsize=9, color=QUIET)


def _title(axes: Axes, name: str) -> None:
    """Of a plot that needs no legend."""
    axes.set_title(name, loc="left", fontsize=10, color=INK, pad=8)
    axes.figure.subplots_adjust(left=0.14, right=0.98, top=0.9, bottom=0.17)


def _legend(axes: Axes, left: float = 0.14) -> None:
    """Below the plot, so that it never covers a curve, this run first; the figure grows with it, the plot does not."""
    handles, labels = axes.get_legend_handles_labels()
    below = BELOW_INCHES + LEGEND_LINE_INCHES * len(labels)
    height = PLOT_INCHES + below
    axes.figure.set_size_inches(axes.figure.get_size_inches()[0], height)  # type: ignore[union-attr]
    top = 1 - TITLE_INCHES / height
    axes.figure.subplots_adjust(left=left, right=0.98, top=top, bottom=below / height)
    axes.legend(
        handles[::-1],
        labels[::-1],
        frameon=False,
        fontsize=9,
        labelcolor=QUIET,
        handlelength=1.8,
        loc="upper left",
        bbox_to_anchor=(-0.02, -LABELS_INCHES / (PLOT_INCHES - TITLE_INCHES)),
        borderaxespad=0,
        labelspacing=0.25,
    )


def _svg(figure: Figure, title: str) -> str:
    import matplotlib as mpl  # noqa: PLC0415 - rc_context alone

    figure.patch.set_alpha(0)
    for axes in figure.axes:
        axes.patch.set_alpha(0)
    buffer = io.StringIO()
    # Text stays text in the page's font; a fixed salt gives the same bytes for the same plot.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": title, "font.family": "sans-serif"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    for stand_in, variable in VARIABLES.items():
        text = text.replace(stand_in, f"var({variable})")
    return text.replace("<svg ", f'<svg role="img" aria-label="{title}" ', 1)
