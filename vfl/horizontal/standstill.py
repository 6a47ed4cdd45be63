"""Whether rounds have taught anything: the loss after the last one, beside the first one's and that of guessing."""

import torch

from vfl.horizontal.hooks import Examples
from vfl.notices import Notice

FEWEST_ROUNDS = 3
"""After fewer a loss need not have moved."""
NO_GAIN = 0.98
"""Of the other loss: what is above it is no better."""
WAYS_OUT = "look at how columns are scaled (model.input_range), train.optimiser.rate and the number of rounds"


def loss_of_guessing(examples: Examples) -> float:
    """Of always answering how often each class occurs, or the mean label of a regression."""
    labels = examples.labels
    if labels is None:
        raise ValueError("the loss of guessing needs rows with labels")
    if labels.is_floating_point():
        return float(labels.double().var(unbiased=False))
    shares = torch.bincount(labels).double() / len(labels)
    return float(-torch.special.xlogy(shares, shares).sum())


def on_test_rows(losses: list[float], tests: Examples | None) -> list[Notice]:
    """The aggregator's warning; where clients measure, there is nothing to guess from but the first loss."""
    if len(losses) < FEWEST_ROUNDS:
        return []
    first, last = losses[0], losses[-1]
    if tests is None:
        text = f"the test loss has not fallen: {first:.4g} after the first measured round, {last:.4g} after the last"
        return [] if last < NO_GAIN * first else [Notice("warning", "loss_standstill", f"{text}; {WAYS_OUT}")]
    guessing = loss_of_guessing(tests)
    text = f"the model has learned next to nothing: its test loss is {last:.4g}, and that of guessing {guessing:.4g}"
    return [] if last < NO_GAIN * guessing else [Notice("warning", "loss_standstill", f"{text}; {WAYS_OUT}")]


def on_own_rows(losses: list[float], own: Examples) -> list[Notice]:
    """A client's warning: its loss is flat as well, since guessing is always right on rows of one class."""
    if len(losses) < FEWEST_ROUNDS:
        return []
    first, last = losses[0], losses[-1]
    if last < NO_GAIN * first or last < NO_GAIN * loss_of_guessing(own):
        return []
    text = f"the training loss on rows here has not fallen: {first:.4g} in its first round, {last:.4g} in its last"
    return [Notice("warning", "loss_standstill", f"{text}; {WAYS_OUT}")]
