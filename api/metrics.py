"""Metrics as a person reads them: each with both ends of its interval, kept as `NAME_low` and `NAME_high`."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple


class Measured(NamedTuple):
    name: str
    value: float
    interval: str
    """0.9870 to 0.9991, of 95 %; empty where there is none."""

    @property
    def counts(self) -> bool:
        """Whether it is a number of ids or rows."""
        return self.name.endswith(("_ids", "_rows")) or self.name.startswith("ids_")

    def __str__(self) -> str:
        if self.counts:
            return f"{self.value:,.0f}"
        return f"{self.value:.4f}" + (f" ({self.interval}, 95 % interval)" if self.interval else "")


def measured(metrics: Mapping[str, float]) -> Iterator[Measured]:
    for name, value in metrics.items():
        if not (name.endswith(("_low", "_high")) and name.rpartition("_")[0] in metrics):
            yield Measured(name, value, interval_of(name, metrics))


def interval_of(name: str, metrics: Mapping[str, float]) -> str:
    low, high = metrics.get(f"{name}_low"), metrics.get(f"{name}_high")
    return "" if low is None or high is None else f"{low:.4f} to {high:.4f}"
