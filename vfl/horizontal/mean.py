"""From replies to the next parameters: a weighted mean with pooled norm statistics, then the aggregator's optimiser."""

from collections.abc import Collection

import torch

from vfl.models.networks import NormStatistics, Parameters
from vfl.spec.rounds_settings import ServerOptimiser

ADAM_SECOND_MOMENTUM, ADAM_EPSILON = 0.99, 1e-3
"""Of FedAdam (Reddi et al. 2021, section 5)."""


class WeightedMean:
    """Running sums over the replies of a round, float64: by themselves never more than one client's model (R0.3)."""

    def __init__(self, pooled: Collection[NormStatistics], *, keep: bool = False) -> None:
        self._keep = keep
        self.singles: list[tuple[Parameters, int]] = []
        """Parameters and rows of each client, where a part must look at them."""
        self._mean_of = {statistics.variance: statistics.mean for statistics in pooled}
        self._sums: Parameters = {}
        self._variances: Parameters = {}
        self._order: list[str] = []
        self.rows = 0
        self.replies = 0

    def add(self, parameters: Parameters, rows: int) -> None:
        """One client's parameters, weighted by its rows. The order of calls is the order of addition."""
        self._order = list(parameters)
        if self._keep:
            self.singles.append((parameters, rows))
        for name, mean in self._mean_of.items():  # before the sums of the means take this client in
            self._variances[name] = self._pooled(name, mean, parameters, rows)
        for name, values in parameters.items():
            if not values.is_floating_point():
                self._sums[name] = torch.maximum(self._sums.get(name, values), values)
            elif name not in self._mean_of:
                total = values.double() * rows
                self._sums[name] = self._sums[name].add_(total) if name in self._sums else total
        self.rows += rows
        self.replies += 1

    def mean(self) -> Parameters:
        """sum n_k w_k / n', variances of the pooled rows, the maximum of integer buffers; float32, in their order."""
        return {name: self._mean_of_one(name) for name in self._order}

    def _mean_of_one(self, name: str) -> torch.Tensor:
        if name in self._variances:
            return self._variances[name].float()
        total = self._sums[name]
        return (total / self.rows).float() if total.is_floating_point() else total

    def _pooled(self, variance: str, mean: str, parameters: Parameters, rows: int) -> torch.Tensor:
        """Variance of the rows so far together with this client's (Chan et al. 1979); the first one's is kept exact."""
        own = parameters[variance].double()
        if not self.rows:
            return own
        share = rows / (self.rows + rows)
        apart = parameters[mean].double() - self._sums[mean] / self.rows
        return (1 - share) * self._variances[variance] + share * own + share * (1 - share) * apart**2


class Stepper:
    """The aggregator's optimiser: takes the mean, or steps towards it. Buffers always take the mean."""

    def __init__(self, optimiser: ServerOptimiser, trained: Collection[str], saved: Parameters) -> None:
        self._optimiser, self._trained = optimiser, set(trained)
        self._first = {name[6:]: values for name, values in saved.items() if name.startswith("first/")}
        self._second = {name[7:]: values for name, values in saved.items() if name.startswith("second/")}

    def step(self, before: Parameters, mean: Parameters) -> Parameters:
        if self._optimiser.name == "average":
            return mean
        return {
            name: self._towards(name, before[name], values) if name in self._trained else values
            for name, values in mean.items()
        }

    def saved(self) -> Parameters:
        return {f"first/{name}": values for name, values in self._first.items()} | {
            f"second/{name}": values for name, values in self._second.items()
        }

    def _towards(self, name: str, before: torch.Tensor, mean: torch.Tensor) -> torch.Tensor:
        optimiser, change = self._optimiser, mean - before
        if optimiser.name == "momentum":
            self._first[name] = optimiser.momentum * self._first.get(name, torch.zeros_like(change)) + change
            return before + optimiser.rate * self._first[name]
        first = 0.9 * self._first.get(name, torch.zeros_like(change)) + 0.1 * change
        second = self._second.get(name, torch.zeros_like(change))
        second = ADAM_SECOND_MOMENTUM * second + (1 - ADAM_SECOND_MOMENTUM) * change**2
        self._first[name], self._second[name] = first, second
        return before + optimiser.rate * first / (second.sqrt() + ADAM_EPSILON)
