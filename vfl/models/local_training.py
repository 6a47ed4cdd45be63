"""What a client does between two messages: E epochs on its own rows, and measuring a model on rows."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from vfl.errors import Diverged, ImpossibleJob
from vfl.models.networks import Parameters, batch_norm_layers
from vfl.models.optimisers import Descent, ModuleSteps
from vfl.schedule import batch_sizes, batches
from vfl.spec.sections import Optimiser

ROWS_AT_ONCE = 1024
"""Rows of one forward pass outside training."""


class Evaluation(NamedTuple):
    correct: float
    """Rows whose largest score is the label's; for a regression, minus the sum of squared errors. It adds up."""
    rows: int
    loss: float
    """Mean over rows."""
    scores: torch.Tensor
    """What the module gives, (rows, outputs)."""


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch computes on one thread: it sums in another order on more, and results may not depend on cores (R0.5)."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@one_thread()
def train(
    module: nn.Module,
    inputs: torch.Tensor,
    labels: torch.Tensor,
    *,
    epochs: int,
    batch_rows: int,
    optimiser: Optimiser,
    seed: bytes,
    regression: bool,
    proximal: float = 0.0,
    anchor: Parameters | None = None,
    weights: torch.Tensor | None = None,
    steps: ModuleSteps | None = None,
    on_step: Callable[[int], None] | None = None,
) -> float:
    """Train the module in place and return the mean loss of the rows as they were met, without the proximal term.

    Inputs are (rows, ...), labels (rows,) whole numbers, (rows, classes) probabilities, or numbers for a regression.
    Batches follow from `seed` alone, and the result from the arguments: on one kind of processor, with the same
    libraries and numeric variables in the environment, bit for bit.
    The optimiser starts afresh (R3.7), unless `steps` is given, which goes on where it stands. `proximal` mu adds mu/2
    ||w - anchor||^2 over trained parameters (FedProx, Li et al. 2020); at 0 it is absent. `weights` (rows,) weigh rows
    in each batch's mean. `on_step` is told each step done, from 1. Raises ImpossibleJob where batches are too small,
    Diverged where the loss is no longer a number.
    """
    _check_batches(module, len(inputs), batch_rows)
    trained = {name: p for name, p in module.named_parameters() if p.requires_grad}
    if proximal and anchor is None:
        raise ValueError("a proximal term needs the parameters that training stays close to")
    steps = steps or ModuleSteps(trained, Descent(optimiser))
    module.train()
    total = 0.0
    for batch in batches(seed, np.arange(len(inputs)), epochs, batch_rows):
        rows = torch.from_numpy(batch.rows)
        losses = _losses(module(inputs[rows]), labels[rows], regression=regression)
        loss = losses.mean() if weights is None else (losses * weights[rows]).sum() / weights[rows].sum()
        steps.zero_grad()
        torch.autograd.backward(loss)
        if proximal and anchor is not None:
            _pull(trained, anchor, proximal)
        steps.step()
        total += loss.item() * len(rows)
        if not np.isfinite(total):
            raise Diverged(f"local training diverged: the loss of step {batch.step} of {batch.steps} is not a number")
        if on_step is not None:
            on_step(batch.step)
    return total / (epochs * len(inputs)) if epochs else 0.0


@one_thread()
def evaluate(module: nn.Module, inputs: torch.Tensor, labels: torch.Tensor, *, regression: bool) -> Evaluation:
    """How good the module is on rows, in evaluation mode."""
    module.eval()
    correct, total, all_scores = 0.0, 0.0, list[torch.Tensor]()
    with torch.no_grad():
        for rows in _slices(len(inputs)):
            scores, truth = module(inputs[rows]), labels[rows]
            all_scores.append(scores)
            losses = _losses(scores, truth, regression=regression).sum().item()
            total += losses
            correct += -losses if regression else float((scores.argmax(1) == truth).sum())
    return Evaluation(correct, len(inputs), total / max(len(inputs), 1), torch.cat(all_scores))


@one_thread()
def features(module: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    """What the module gives for rows, in evaluation mode and without gradients: the embedding of a backbone (R1.4)."""
    module.eval()
    with torch.no_grad():
        return torch.cat([module(inputs[rows]) for rows in _slices(len(inputs))])


def _losses(scores: torch.Tensor, labels: torch.Tensor, *, regression: bool) -> torch.Tensor:
    """One loss per row: squared error of the only output, or cross-entropy over all."""
    if regression:
        return (scores[:, 0] - labels) ** 2
    return functional.cross_entropy(scores, labels, reduction="none")


def _pull(trained: dict[str, nn.Parameter], anchor: Parameters, proximal: float) -> None:
    """Add the gradient of the proximal term, mu (w - anchor): exact, and nothing is kept for backward."""
    with torch.no_grad():
        for name, parameter in trained.items():
            if parameter.grad is not None:
                parameter.grad.add_(parameter - anchor[name], alpha=proximal)


def _check_batches(module: nn.Module, rows: int, batch_rows: int) -> None:
    if rows < 1:
        raise ImpossibleJob("a client has no rows to train on", fix="Leave it out, or deal rows so that each has some.")
    if batch_norm_layers(module) and min(batch_sizes(rows, batch_rows)) < 2:
        raise ImpossibleJob(
            f"batches of {batch_rows} of {rows} rows leave one row alone, and batch normalisation needs two",
            fix='Use batch_rows of 3 or more and bring at least 2 rows, or choose norm = "group".',
        )


def _slices(rows: int) -> Iterator[slice]:
    return (slice(start, start + ROWS_AT_ONCE) for start in range(0, max(rows, 1), ROWS_AT_ONCE))
