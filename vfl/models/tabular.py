"""Bottom models for tables: private to the feature party, in clear, of any kind torch can differentiate."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vfl.models.optimisers import Descent, ModuleSteps
from vfl.spec.sections import Optimiser
from vfl.spec.training import Bottom

Floats = NDArray[np.float64]

BottomFactory = Callable[[int, int], torch.nn.Module]
"""(columns, embedding width) -> module: how a party's own module is made."""

ACTIVATIONS: dict[str, Callable[[], torch.nn.Module]] = {"tanh": torch.nn.Tanh, "relu": torch.nn.ReLU}


def build(bottom: Bottom, columns: int, private_seed: bytes, factory: BottomFactory | None) -> torch.nn.Module:
    """The bottom model of a specification, float64, its first weights from the owner's private seed.

    `factory` makes a model of kind `private`. Named ones end in the activation too, which bounds what is encrypted.
    """
    # Modules draw their first weights from torch's global generator; the fork gives that back as it was.
    with torch.random.fork_rng(devices=[]):
        torch.random.manual_seed(int.from_bytes(private_seed[:7], "big"))
        if factory is not None:
            return factory(columns, bottom.out).double()
        layers: list[torch.nn.Module] = []
        for width in (*bottom.hidden, bottom.out):
            layers += [torch.nn.Linear(columns, width), ACTIVATIONS[bottom.activation]()]
            columns = width
        return torch.nn.Sequential(*layers).double()


class BottomModel:
    """A module that learns from the errors of what it gave for the blocks of a step."""

    def __init__(self, module: torch.nn.Module, optimiser: Optimiser) -> None:
        self._module = module
        self._steps = ModuleSteps(dict(module.named_parameters()), Descent(optimiser))
        self._outputs: list[torch.Tensor] = []

    def embed(self, columns: Floats) -> Floats:
        """The module's output, rows x width, not kept for learning."""
        with torch.no_grad():
            output: Floats = self._module(torch.from_numpy(columns)).numpy()
        return output

    def forward(self, columns: Floats) -> Floats:
        """The same, kept until `backward`."""
        output = self._module(torch.from_numpy(columns))
        self._outputs.append(output)
        embedding: Floats = output.detach().numpy()
        return embedding

    def largest_kept(self) -> float:
        """Of all values that are kept."""
        return max(float(output.detach().abs().max()) for output in self._outputs)

    def backward(self, errors: Sequence[Floats]) -> None:
        """One step on the errors of what was kept, block by block; nothing is kept after it."""
        outputs, self._outputs = self._outputs, []
        self._steps.zero_grad()
        for output, error in zip(outputs, errors, strict=True):
            if output.requires_grad:
                torch.autograd.backward(output, torch.from_numpy(error))
        self._steps.step()

    def checkpoint(self) -> dict[str, Any]:
        """Between two steps; `go_on_from` takes it."""
        tensors = {name: tensor.copy() for name, tensor in self.tensors().items()}
        return {"module": tensors, "descent": self._steps.descent.checkpoint()}

    def go_on_from(self, state: Mapping[str, Any]) -> None:
        self.restore(state["module"])
        self._steps.descent.restore(state["descent"])

    def restore(self, tensors: Mapping[str, Floats]) -> None:
        """Go back to weights as `tensors` gave them."""
        self._module.load_state_dict({name: torch.from_numpy(np.array(at)) for name, at in tensors.items()})

    def tensors(self) -> dict[str, Floats]:
        return {name: tensor.numpy() for name, tensor in self._module.state_dict().items()}
