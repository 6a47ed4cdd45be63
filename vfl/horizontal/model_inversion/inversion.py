"""Rows out of a trained classifier: what its weights and statistics tell of its training (model_inversion.md).

Two ways, one loss. Optimisation in the space of inputs moves noise until the model gives it the wanted label and it has
the statistics that the model keeps (DeepInversion, Yin et al. 2020). A generator does the same through weights of its
own, and can look for rows on which a student disagrees with the model (DENSE, Zhang et al. 2022).

Statistics are those of batch normalisation; `observe` gives a model without it buffers that serve as well. The same
code attacks: whoever holds a model can do this with it.
"""

import hashlib
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple

import torch
from torch import nn
from torch.nn import functional

from vfl.models.local_training import features, one_thread
from vfl.models.networks import OBSERVED, build
from vfl.models.optimisers import Descent
from vfl.spec.sections import Optimiser

MOMENTUM = 0.1
"""Of observed statistics, as of batch normalisation."""
LATENT, GENERATOR_HIDDEN = 64, (128, 256)
"""Widths of a generator: of the noise it reads, and of its blocks."""


@dataclass(frozen=True)
class Space:
    """Where rows are sought: the inputs of a model, or of the decoder behind its backbone."""

    shape: tuple[int, ...]
    """Of one row."""
    low: float = 0.0
    high: float = 1.0
    """Public range of a value; infinite where it has no end."""

    @property
    def is_image(self) -> bool:
        """Rows are (channels, height, width): neighbouring values belong together."""
        return len(self.shape) == 3


@dataclass(frozen=True)
class Search:
    """How rows are sought."""

    kind: Literal["inputs", "generator"] = "inputs"
    steps: int = 200
    """For all rows at once; of a generator, for each batch."""
    rate: float = 0.1
    """Of Adam with betas (0.5, 0.9). Of `inputs` it falls to 0 along a half cosine."""
    statistics: float = 1.0
    """Weight of the distance of statistics, see `_distance`."""
    variation: float = 1e-2
    """Weight of an image's total variation."""
    squares: float = 1e-3
    """Weight of a row's squared length."""
    competition: float = 0.0
    """Of a generator: weight of KL(student || model) on rows where the two disagree, taken off the loss."""
    batch_rows: int = 64
    """Of a generator."""
    confidence: float = 0.9
    """A row is kept if the model gives its label at least this probability (R2.6)."""


GENERATOR = Search(kind="generator", steps=100, rate=1e-3, competition=1.0)
"""After 30 steps the filter keeps six rows in ten of a network on digits."""


class Inverted(NamedTuple):
    """Rows as they were found, whether or not the model takes them for what they should be."""

    inputs: torch.Tensor
    """(rows, ...) float32."""
    labels: torch.Tensor
    """(rows,) int64: as they were asked for."""
    is_confident: torch.Tensor
    """(rows,) bool: the model gives this label with confidence."""

    @property
    def confident_share(self) -> float:
        return float(self.is_confident.float().mean()) if len(self.is_confident) else 0.0

    def filtered(self) -> "Inverted":
        return Inverted(
            self.inputs[self.is_confident], self.labels[self.is_confident], self.is_confident[self.is_confident]
        )


@one_thread()
def invert(
    module: nn.Module,
    labels: torch.Tensor,
    space: Space,
    search: Search,
    seed: bytes,
    student: nn.Module | None = None,
) -> Inverted:
    """One row for each label (rows,) int64. The module comes back as it was, in evaluation mode.

    The result follows from the arguments. A model that keeps no statistics is inverted from its scores alone, which
    gives rows of little use.
    """
    module.eval()
    draws = torch.Generator().manual_seed(int.from_bytes(hashlib.sha256(seed).digest()[:7], "big"))
    if not len(labels):
        return Inverted(torch.zeros(0, *space.shape), labels, torch.zeros(0, dtype=torch.bool))
    with _distances(module) as distances:
        match = _Match(module, distances, space, search, student)
        find = _by_generator if search.kind == "generator" else _by_optimisation
        inputs = find(match, labels, draws)
    scores = features(module, inputs).softmax(1)
    confidence, answers = scores.max(1)
    return Inverted(inputs, labels, (answers == labels) & (confidence >= search.confidence))


def observe(module: nn.Sequential, *, first: bool) -> nn.Sequential:
    """The same module, whose layers also keep mean and variance of what they read, as batch normalisation does (R2.4).

    Buffers `<layer>.observed_running_mean` and `_var` join its state, travel with it, and are pooled as those of norms
    are. `first` observes the first layer too: for a decoder, which reads features. The first layer of a whole network
    reads rows, and the mean of a client's rows is nothing it should send.
    """
    for position, layer in enumerate(_weighted(module)):
        if position or first:
            width = layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels
            layer.register_buffer(f"{OBSERVED}mean", torch.zeros(width))
            layer.register_buffer(f"{OBSERVED}var", torch.ones(width))
            layer.register_forward_pre_hook(_keep_statistics)
    return module


def _weighted(module: nn.Module) -> Iterator[nn.Linear | nn.Conv2d]:
    return (layer for layer in module.modules() if isinstance(layer, nn.Linear | nn.Conv2d))


def _keep_statistics(layer: nn.Module, read: tuple[torch.Tensor, ...]) -> None:
    if layer.training:
        mean, variance = _statistics(read[0].detach())
        layer.get_buffer(f"{OBSERVED}mean").lerp_(mean, MOMENTUM)
        layer.get_buffer(f"{OBSERVED}var").lerp_(variance, MOMENTUM)


def _statistics(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and variance by channel, over rows and, of images, over their pixels."""
    over = [axis for axis in range(rows.dim()) if axis != 1]
    mean = rows.mean(over, keepdim=True)
    return mean.flatten(), (rows - mean).square().mean(over)  # torch's variance took a quarter of a search


@contextmanager
def _distances(module: nn.Module) -> Iterator[list[torch.Tensor]]:
    """While open: how far the statistics of the last batch are from the model's, one number for each layer.

    ||mean - running mean|| / ||running deviation|| + ||variance - running variance|| / ||running variance||: in units
    of the layer's own spread. Without them a wide layer would weigh more than the labels, and few rows pass the filter.
    """
    distances: list[torch.Tensor] = []

    def measure(prefix: str, layer: nn.Module, read: tuple[torch.Tensor, ...]) -> None:
        mean, variance = _statistics(read[0])
        running = layer.get_buffer(f"{prefix}var")
        away = (mean - layer.get_buffer(f"{prefix}mean")).norm() / running.sum().sqrt().clamp_min(1e-6)
        distances.append(away + (variance - running).norm() / running.norm().clamp_min(1e-6))

    hooks = [
        layer.register_forward_pre_hook(partial(measure, name.removesuffix("mean")))
        for layer in module.modules()
        for name, _ in layer.named_buffers(recurse=False)
        if name.endswith("running_mean")
    ]
    try:
        yield distances
    finally:
        for hook in hooks:
            hook.remove()


@dataclass(frozen=True)
class _Match:
    """How well rows match labels and a model: the loss of model_inversion.md."""

    module: nn.Module
    distances: list[torch.Tensor]
    space: Space
    search: Search
    student: nn.Module | None

    def loss(self, rows: torch.Tensor, labels: torch.Tensor, looks: float = 1.0) -> torch.Tensor:
        """`looks` weighs all that is not the label: statistics, variation, squares."""
        search = self.search
        self.distances.clear()
        scores: torch.Tensor = self.module(rows)
        unlike = search.squares * (rows**2).sum() / len(rows)
        if self.distances:
            unlike = unlike + search.statistics * torch.stack(self.distances).sum()
        if self.space.is_image and search.variation:
            unlike = unlike + search.variation * _variation(rows)
        loss = functional.cross_entropy(scores, labels) + looks * unlike
        if self.student is not None and search.competition:
            loss = loss - search.competition * _disagreement(self.student(rows), scores)
        return loss


def _by_optimisation(match: _Match, labels: torch.Tensor, draws: torch.Generator) -> torch.Tensor:
    """First what rows look like, then that their label is sure: the weight of looks falls with the rate.

    The mean of few rounds gives no row of its own data much confidence. Weighed alike to the end, few rows of such a
    model pass the filter; with weak looks all do, and teach another model less.
    """
    space, search = match.space, match.search
    rows = _noise(match.module, space, len(labels), draws).requires_grad_()
    adam = _adam(search)
    for step in range(search.steps):
        left = 0.5 * (1 + math.cos(math.pi * step / search.steps))
        adam.rate = search.rate * left
        (gradient,) = torch.autograd.grad(match.loss(rows, labels, left), [rows])
        adam.move("rows", rows.detach().numpy(), gradient.numpy())
        with torch.no_grad():
            rows.clamp_(space.low, space.high)
    return rows.detach()


def _adam(search: Search) -> Descent:
    return Descent(Optimiser(name="adam", rate=search.rate), betas=(0.5, 0.9))


def _noise(module: nn.Module, space: Space, rows: int, draws: torch.Generator) -> torch.Tensor:
    """Where the search starts: uniform in the range, or as the first layer has observed its input to be."""
    if math.isfinite(space.high - space.low):
        return space.low + (space.high - space.low) * torch.rand(rows, *space.shape, generator=draws)
    noise = torch.randn(rows, *space.shape, generator=draws)
    first = dict(next(_weighted(module)).named_buffers(recurse=False))
    if len(first.get(f"{OBSERVED}mean", ())) == space.shape[0]:
        by_channel = (-1, *[1] * (len(space.shape) - 1))
        deviation, mean = first[f"{OBSERVED}var"].sqrt(), first[f"{OBSERVED}mean"]
        noise = noise * deviation.reshape(by_channel) + mean.reshape(by_channel)
    return noise.clamp(space.low, space.high)


def _by_generator(match: _Match, labels: torch.Tensor, draws: torch.Generator) -> torch.Tensor:
    """Each batch is sought for `steps` steps, by weights that go on from batch to batch and noise of its own."""
    space, search = match.space, match.search
    classes = match.module(torch.zeros(1, *space.shape)).shape[1]
    generator = build(
        "mlp", (LATENT + classes,), math.prod(space.shape), hidden=GENERATOR_HIDDEN, norm="batch", generator=draws
    )
    all_rows = torch.empty(len(labels), *space.shape)
    if match.student is not None:
        match.student.eval()
    order = torch.randperm(len(labels), generator=draws)
    for start in range(0, len(labels), search.batch_rows):
        chosen = order[start : start + search.batch_rows]
        chosen = chosen.repeat(2) if len(chosen) == 1 else chosen  # a batch needs two rows for its statistics
        target_labels = labels[chosen]
        latent = torch.randn(len(chosen), LATENT, generator=draws).requires_grad_()
        searched = {"latent": latent, **dict(generator.named_parameters())}
        adam = _adam(search)
        for _ in range(search.steps):
            rows = _generated(generator, latent, target_labels, classes, space)
            gradients = torch.autograd.grad(match.loss(rows, target_labels), list(searched.values()))
            for (name, tensor), gradient in zip(searched.items(), gradients, strict=True):
                adam.move(name, tensor.detach().numpy(), gradient.numpy())
        all_rows[chosen] = _generated(generator, latent, target_labels, classes, space).detach()
    return all_rows


def _generated(
    generator: nn.Module, latent: torch.Tensor, labels: torch.Tensor, classes: int, space: Space
) -> torch.Tensor:
    scores: torch.Tensor = generator(torch.cat([latent, functional.one_hot(labels, classes).float()], 1))
    rows = scores.reshape(-1, *space.shape)
    if math.isfinite(space.high - space.low):
        return space.low + (space.high - space.low) * rows.sigmoid()
    return (functional.softplus(rows) + space.low) if math.isfinite(space.low) else rows


def _variation(rows: torch.Tensor) -> torch.Tensor:
    """Sum of the absolute differences of neighbouring pixels, mean over images."""
    across = (rows[..., 1:] - rows[..., :-1]).abs().sum()
    down = (rows[..., 1:, :] - rows[..., :-1, :]).abs().sum()
    return (across + down) / len(rows)


def _disagreement(student: torch.Tensor, model: torch.Tensor) -> torch.Tensor:
    """KL(student || model), mean over rows, counting those whose largest scores differ."""
    differ = (student.argmax(1) != model.argmax(1)).float()
    return (functional.kl_div(model.log_softmax(1), student.softmax(1), reduction="none").sum(1) * differ).mean()
