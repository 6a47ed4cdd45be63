"""Bottom models for tables: private to the feature party, in clear, of any kind torch can differentiate."""

from collections.abc import Callable

import torch

from vfl.spec.training import Bottom

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
