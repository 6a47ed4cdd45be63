"""Networks of horizontal rounds: a flat chain of named blocks, and its parameters as a plain dictionary.

The last block is `head`, the one before it `features`: cutting there gives backbone and decoder. Blocks
of equal width in a row map a space into itself, so some of them can be left out (R1.1 `layers`).
"""

import math
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from vfl.errors import ImpossibleJob
from vfl.planning.model_size import LARGE_SIDE, SMALLEST_SIDE
from vfl.spec.network_names import block_names, widths_of

Parameters: TypeAlias = dict[str, torch.Tensor]
"""Every tensor of a model's state by name, buffers included, in the order of the state."""

BatchNorm: TypeAlias = nn.BatchNorm1d | nn.BatchNorm2d


class NormStatistics(NamedTuple):
    """Names of the two buffers that are pooled together: mean and variance of the rows seen (R0.3)."""

    mean: str
    variance: str


class Residual(nn.Sequential):
    """x + block(x): leaving it out, or damping it, keeps what the blocks after it expect."""

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        change = rows
        for layer in self:
            change = layer(change)
        return rows + change


def _no_norm(_: int) -> None:
    return None


NORMS: dict[str, dict[str, Callable[[int], nn.Module | None]]] = {
    "linear": {"none": _no_norm, "batch": nn.BatchNorm1d, "group": lambda width: nn.GroupNorm(1, width)},
    "conv": {"none": _no_norm, "batch": nn.BatchNorm2d, "group": lambda width: nn.GroupNorm(math.gcd(width, 4), width)},
}
"""Normalisation of one layer's output by width. Over one group a group norm of neurons is a layer norm."""


def build(
    network: str,
    input_shape: tuple[int, ...],
    outputs: int,
    *,
    hidden: tuple[int, ...],
    norm: str,
    generator: torch.Generator | None,
) -> nn.Sequential:
    """A network of `NETWORKS` for rows of `input_shape`, float32, all its first weights drawn from `generator`.

    Without one its memory is taken and not written: for weights that will be loaded.

    `small_cnn` takes (channels, height, width); `mlp` takes any shape and flattens it. `hidden` is one width per block
    but the head, empty for the network's own. Raises ImpossibleJob.
    """
    widths, names = widths_of(network, hidden), block_names(network, hidden)
    if outputs < 1 or not input_shape or min(input_shape) < 1:
        raise ImpossibleJob(
            f"no network maps rows of shape {input_shape} to {outputs} outputs",
            fix="Bring at least one input column; a classifier has one output per class, a regression one.",
        )
    if norm not in NORMS["linear"]:
        raise ImpossibleJob(f"there is no normalisation {norm!r}", fix=f"Choose among {', '.join(NORMS['linear'])}.")
    # Constructors of torch draw weights from its global generator; on the meta device there is nothing to draw.
    with torch.device("meta"):
        blocks = BLOCKS[network](input_shape, widths, norm)
        head = nn.Linear(widths[-1], outputs)
        module = nn.Sequential(OrderedDict(zip(names, (*blocks, head), strict=True)))
    module.to_empty(device="cpu")
    if generator is not None:
        _initialise(module, generator)
    return module


def _mlp(input_shape: tuple[int, ...], widths: tuple[int, ...], norm: str) -> list[nn.Module]:
    inputs, blocks = math.prod(input_shape), list[nn.Module]()
    for width in widths:
        flatten = nn.Flatten() if not blocks and len(input_shape) > 1 else None
        blocks.append(_chain(nn.Sequential, flatten=flatten, **_neurons(inputs, width, norm)))
        inputs = width
    return blocks


def _small_cnn(input_shape: tuple[int, ...], widths: tuple[int, ...], norm: str) -> list[nn.Module]:
    if len(input_shape) != 3 or min(input_shape[1:]) < SMALLEST_SIDE:
        raise ImpossibleJob(
            f"network small_cnn cannot read rows of shape {input_shape}",
            fix="It takes images, (channels, height, width), of at least "
            f"{SMALLEST_SIDE} x {SMALLEST_SIDE} pixels; for other rows choose network mlp.",
        )
    channels, *side = input_shape
    blocks = list[nn.Module]()

    def pooled(least: int) -> nn.Module | None:
        if min(side) < least:
            return None
        side[:] = [pixels // 2 for pixels in side]
        return nn.MaxPool2d(2)

    for width in widths[:-1]:
        conv = nn.Conv2d(channels, width, 3, padding=1, bias=norm == "none")
        layers = {"conv": conv, "norm": NORMS["conv"][norm](width), "activation": nn.ReLU()}
        if blocks and width == channels:
            blocks.append(_chain(Residual, **layers))
        else:
            blocks.append(_chain(nn.Sequential, **layers, pool=pooled(SMALLEST_SIDE if blocks else LARGE_SIDE)))
        channels = width
    pool = pooled(SMALLEST_SIDE + 1)
    neurons = _neurons(channels * math.prod(side), widths[-1], norm)
    return [*blocks, _chain(nn.Sequential, pool=pool, flatten=nn.Flatten(), **neurons)]


BLOCKS: dict[str, Callable[[tuple[int, ...], tuple[int, ...], str], list[nn.Module]]] = {
    "mlp": _mlp,
    "small_cnn": _small_cnn,
}
"""(input shape, widths, norm) -> all blocks but the head."""


def _neurons(inputs: int, width: int, norm: str) -> dict[str, nn.Module | None]:
    linear = nn.Linear(inputs, width, bias=norm == "none")  # a norm has its own offset
    return {"linear": linear, "norm": NORMS["linear"][norm](width), "activation": nn.ReLU()}


def _chain(kind: type[nn.Sequential], **layers: nn.Module | None) -> nn.Sequential:
    return kind(OrderedDict((name, layer) for name, layer in layers.items() if layer is not None))


def _initialise(module: nn.Module, generator: torch.Generator) -> None:
    """Weights before a ReLU by He et al. 2015, the head's uniform within 1 / sqrt(inputs); offsets 0, scales 1."""
    for name, layer in module.named_modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            if name == "head":
                bound = layer.weight.shape[1] ** -0.5
                nn.init.uniform_(layer.weight, -bound, bound, generator=generator)
            else:
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=generator)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, BatchNorm | nn.GroupNorm):
            layer.reset_parameters()


def parameters_of(module: nn.Module) -> Parameters:
    """A copy of the state that shares nothing with the module."""
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}


OBSERVED = "observed_running_"
"""In the names of statistics that are kept beside a model: it answers the same without them."""


def load_parameters(module: nn.Module, parameters: Parameters) -> None:
    """Overwrite the module's state in place. Raises ValueError, naming a tensor, unless names and shapes are equal.

    Observed statistics may be missing on either side.
    """
    own, theirs = shapes_of(module), {name: tuple(tensor.shape) for name, tensor in parameters.items()}
    for name in sorted(own.keys() | theirs.keys()):
        spare = OBSERVED in name and not (name in own and name in theirs)
        if own.get(name) != theirs.get(name) and not spare:
            raise ValueError(
                f"parameters do not fit the model: {name} is {own.get(name, 'absent')} in the model "
                f"and {theirs.get(name, 'absent')} in the parameters"
            )
    module.load_state_dict({name: tensor for name, tensor in parameters.items() if name in own}, strict=False)


def shapes_of(module: nn.Module) -> dict[str, tuple[int, ...]]:
    """Shape of each tensor of the state, in its order."""
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


def to_arrays(parameters: Parameters) -> dict[str, NDArray[Any]]:
    """The same values as arrays; they share the tensors' memory."""
    return {name: tensor.numpy() for name, tensor in parameters.items()}


def from_arrays(arrays: dict[str, NDArray[Any]]) -> Parameters:
    """The inverse of `to_arrays`, in memory of its own: arrays read from a message cannot be written to."""
    return {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}


def batch_norm_layers(module: nn.Module) -> dict[str, BatchNorm]:
    """Layers with running statistics by their name in the module, in the order a row meets them."""
    return {name: layer for name, layer in module.named_modules() if isinstance(layer, BatchNorm)}


def norm_statistics_names(names: Iterable[str]) -> tuple[NormStatistics, ...]:
    """The pairs of buffers among a state's names that are pooled, not averaged (R0.3).

    With shares p_k: mean = sum p_k mean_k, variance = sum p_k (variance_k + mean_k^2) - mean^2. Integer buffers, such
    as the count of batches seen, are in no pair; combining takes their maximum.
    """
    present = set(names)
    prefixes = sorted(name.removesuffix("running_mean") for name in present if name.endswith("running_mean"))
    return tuple(
        NormStatistics(f"{prefix}running_mean", f"{prefix}running_var")
        for prefix in prefixes
        if f"{prefix}running_var" in present
    )
