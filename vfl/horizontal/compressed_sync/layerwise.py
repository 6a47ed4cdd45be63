"""Training on packed weights, one layer at a time (R3.1, storage "layers").

A compressed weight is decoded when its layer runs forward and again when it runs backward; there it takes its step at
once and becomes codes again. Between two layers nothing of it is left but codes. Rounding after every step is random,
because to the nearest every change below half a step would be lost (R3.6).
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from vfl.codecs import CODECS
from vfl.horizontal.compressed_sync.momentum import pack, unpack
from vfl.horizontal.rows import derived
from vfl.models.optimisers import Descent
from vfl.spec.sections import Optimiser

WEIGHT = "weight"
"""Its name among what moves."""


@dataclass(frozen=True)
class Packing:
    """How weights are held while they are trained, and how they move."""

    codec: str
    stochastic: bool
    optimiser: Optimiser
    keep_optimiser: bool
    """Momentum is held at 8 bits; otherwise, if there is any, as it is."""
    proximal: float
    products: torch.dtype
    """Of the products forward and backward."""


class PackedWeight:
    """One weight between two uses: its codes, and nothing of it at full precision."""

    def __init__(
        self,
        received: Callable[[], torch.Tensor],
        bits: int,
        packing: Packing,
        seed: bytes,
        momentum: bytes = b"",
    ) -> None:
        """`received` decodes the weight as it was received, each time it is called."""
        self._received, self._bits, self._packing, self._seed = received, bits, packing, seed
        self.momentum = momentum
        self._changes = 0
        self._shape = torch.Size()
        self._codes = b""
        self._descent = Descent(packing.optimiser)
        self._keep(received())

    def value(self) -> torch.Tensor:
        values = CODECS[self._packing.codec].decode(self._codes, self._shape.numel(), self._bits, self._current_seed())
        return torch.from_numpy(values).reshape(self._shape)

    def change(self) -> torch.Tensor:
        """Since it was received."""
        return self.value() - self._received()

    def step(self, gradient: torch.Tensor) -> None:
        """One step of the optimiser. Raises Diverged where a value is no longer finite."""
        weight, momenta = self.value(), self._descent.momenta
        if self._packing.proximal:
            gradient = gradient.add(weight - self._received(), alpha=self._packing.proximal)
        if self.momentum:
            momenta[WEIGHT] = unpack(self.momentum, self._shape)
        self._descent.move(WEIGHT, weight.numpy(), gradient.numpy())
        if self._packing.keep_optimiser:
            self.momentum = pack(momenta.pop(WEIGHT), derived(self._seed, "momentum", self._changes))
        self._keep(weight)

    def _keep(self, values: torch.Tensor) -> None:
        self._changes += 1
        self._shape = values.shape
        codec, flat = CODECS[self._packing.codec], values.reshape(-1).numpy()
        self._codes = codec.encode(flat, self._bits, self._current_seed(), unbiased=self._packing.stochastic)

    def _current_seed(self) -> bytes:
        return derived(self._seed, "codes", self._changes)


@contextmanager
def packed(module: nn.Module, weights: Mapping[str, PackedWeight], products: torch.dtype) -> Iterator[None]:
    """Inside, the named weights of the module are decoded for each use, and a backward pass steps each of them.

    The module no longer has them, inside and afterwards; `restore` gives them back.
    """
    passes = _Passes(weights, products)
    hooks = [hook for prefix, layer in module.named_modules() for hook in passes.watch(prefix, layer)]
    try:
        with torch.autograd.graph.saved_tensors_hooks(passes.saved, passes.used):
            yield
    finally:
        for hook in hooks:
            hook.remove()


class _Passes:
    """A layer has its weights while it runs; what autograd would save of them is remembered as whose it is."""

    def __init__(self, weights: Mapping[str, PackedWeight], products: torch.dtype) -> None:
        self._weights, self._products = weights, products
        self._running: dict[int, PackedWeight] = {}
        """Weights of the layer that runs, by where their values lie."""
        self._reached = torch.zeros((), requires_grad=True)
        """Gives what is decoded a place in the graph."""

    def watch(self, prefix: str, layer: nn.Module) -> list[RemovableHandle]:
        owned = [own for own, _ in layer.named_parameters(recurse=False) if f"{prefix}.{own}" in self._weights]
        for own in owned:
            delattr(layer, own)
        names = {own: f"{prefix}.{own}" for own in owned}
        if not names:
            return []
        return [
            layer.register_forward_pre_hook(partial(self._bring, names)),
            layer.register_forward_hook(partial(self._take, names)),
        ]

    def _bring(self, names: dict[str, str], layer: nn.Module, _rows: Any) -> None:
        for own, name in names.items():
            weight = self._weights[name]
            value: torch.Tensor = _Decoded.apply(self._reached, weight, self._products)  # type: ignore[no-untyped-call]
            self._running[value.untyped_storage().data_ptr()] = weight
            layer.__dict__[own] = value

    def _take(self, names: dict[str, str], layer: nn.Module, _rows: Any, _outputs: Any) -> None:
        for own in names:
            del layer.__dict__[own]
        self._running.clear()

    def saved(self, tensor: torch.Tensor) -> torch.Tensor | tuple[Any, ...]:
        weight = self._running.get(tensor.untyped_storage().data_ptr())
        return tensor if weight is None else (weight, tensor.size(), tensor.stride(), tensor.storage_offset())

    def used(self, saved: torch.Tensor | tuple[Any, ...]) -> torch.Tensor:
        if isinstance(saved, torch.Tensor):
            return saved
        weight, size, stride, offset = saved
        return torch.as_strided(weight.value().to(self._products), size, stride, offset)


def restore(module: nn.Module, weights: Mapping[str, PackedWeight]) -> None:
    """Give the module all weights again, for a part that looks at them after training."""
    for name, weight in weights.items():
        path, _, own = name.rpartition(".")
        setattr(module.get_submodule(path), own, nn.Parameter(weight.value()))


class _Decoded(torch.autograd.Function):
    """The decoded weight; its gradient is not kept but becomes a step."""

    @staticmethod
    def forward(ctx: Any, _reached: torch.Tensor, weight: PackedWeight, products: torch.dtype) -> torch.Tensor:
        ctx.weight = weight
        return weight.value().to(products)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[None, None, None]:
        ctx.weight.step(gradients[0].float())
        return None, None, None
