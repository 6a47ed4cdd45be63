"""How weights move: gradient descent with momentum, and Adam, on arrays of numpy.

The formulas are those of `torch.optim`, and a test compares them step by step. torch's own are not used, because the
first of them that a process makes loads torch's compiler, which nothing here needs: it took 2.1 of the 7 seconds of
processor time that a worker needed to start. A linear model needs nothing else of torch, and starts without it.
"""

import copy
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vfl.spec.sections import Optimiser

if TYPE_CHECKING:
    import torch

Weights = NDArray[Any]

SLICE = 1 << 18
"""Values that are moved at a time: what lies between the formulas stays in the processor's cache."""


class Descent:
    """Moves named arrays, each with what its steps so far have left: momentum, or Adam's two means."""

    def __init__(self, settings: Optimiser, epsilon: float = 1e-8, betas: tuple[float, float] = (0.9, 0.999)) -> None:
        """`epsilon` and `betas` are Adam's."""
        self.rate = settings.rate
        self.momenta: dict[str, Weights] = {}
        """Of gradient descent with momentum, by the name of what moves."""
        self._settings, self._epsilon, self._betas = settings, epsilon, betas
        self._means: dict[str, tuple[Weights, Weights]] = {}
        self._counts: dict[str, int] = {}

    def move(self, name: str, values: Weights, gradient: Weights) -> None:
        """One step of `values`, in place. Both have one shape and one kind of float; `values` is contiguous."""
        step = self._adam(name, values) if self._settings.name == "adam" else self._gradient_descent(name, values)
        flat, slopes = values.reshape(-1), np.ascontiguousarray(gradient).reshape(-1)
        for start in range(0, len(flat), SLICE):
            here = slice(start, start + SLICE)
            decay = self._settings.weight_decay
            step(here, flat[here], slopes[here] + decay * flat[here] if decay else slopes[here])

    def saved(self) -> Callable[[], None]:
        """What takes back all steps from here on, but for what they did to the values."""
        state = copy.deepcopy((self.momenta, self._means, self._counts))

        def take_back() -> None:
            self.momenta, self._means, self._counts = state

        return take_back

    def checkpoint(self) -> dict[str, Any]:
        """All that its next step hangs on; `restore` takes it."""
        return copy.deepcopy({"momenta": self.momenta, "means": self._means, "counts": self._counts})

    def restore(self, state: Mapping[str, Any]) -> None:
        self.momenta, self._counts = dict(state["momenta"]), dict(state["counts"])
        self._means = {name: (first, second) for name, (first, second) in state["means"].items()}

    def _gradient_descent(self, name: str, values: Weights) -> Callable[[slice, Weights, Weights], None]:
        if not self._settings.momentum:
            return self._plain_step
        if name not in self.momenta:
            self.momenta[name] = np.zeros_like(values)
        momentum = self.momenta[name].reshape(-1)

        def step(here: slice, values: Weights, slopes: Weights) -> None:
            momentum[here] *= self._settings.momentum
            momentum[here] += slopes
            values -= self.rate * momentum[here]

        return step

    def _plain_step(self, _here: slice, values: Weights, slopes: Weights) -> None:
        values -= self.rate * slopes

    def _adam(self, name: str, values: Weights) -> Callable[[slice, Weights, Weights], None]:
        """Kingma and Ba, arXiv:1412.6980, algorithm 1; weight decay enters the gradient."""
        if name not in self._means:
            self._means[name] = np.zeros_like(values), np.zeros_like(values)
        first, second = (mean.reshape(-1) for mean in self._means[name])
        count = self._counts[name] = self._counts.get(name, 0) + 1
        of_first, of_second = self._betas
        length = self.rate / (1 - of_first**count)
        spread = float(np.sqrt(1 - of_second**count))

        def step(here: slice, values: Weights, slopes: Weights) -> None:
            first[here] += (1 - of_first) * (slopes - first[here])
            second[here] *= of_second
            second[here] += (1 - of_second) * np.square(slopes)
            values -= length * first[here] / (np.sqrt(second[here]) / spread + self._epsilon)

        return step


class ModuleSteps:
    """Moves the parameters of a module of torch by the gradients that they hold."""

    def __init__(self, parameters: Mapping[str, "torch.Tensor"], descent: Descent) -> None:
        self._parameters, self.descent = dict(parameters), descent

    def zero_grad(self) -> None:
        for parameter in self._parameters.values():
            parameter.grad = None

    def step(self) -> None:
        """A parameter without a gradient stays where it is."""
        for name, parameter in self._parameters.items():
            if parameter.grad is not None:
                self.descent.move(name, parameter.detach().numpy(), parameter.grad.numpy())
