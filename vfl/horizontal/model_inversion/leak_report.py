"""What a client can tell of how much it gave away: the leak meter on its own rows, which nobody else has (R2.7)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from vfl.horizontal.hooks import Examples
from vfl.horizontal.model_inversion.leak_meter import FLAGGED_BELOW, membership_auc, nearness
from vfl.models.local_training import features
from vfl.notices import Notice

NAMES = {"pool": "the rows inverted here", "reply": "rows anybody could invert from a reply of this client"}


@dataclass(frozen=True)
class LeakReport:
    metrics: dict[str, float] = field(default_factory=dict)
    notices: tuple[Notice, ...] = ()


def leak_report(
    own: Examples,
    held_out: Examples,
    inverted_rows: Mapping[str, torch.Tensor],
    models: Mapping[str, nn.Module],
    embed: Callable[[torch.Tensor], torch.Tensor],
) -> LeakReport:
    """Nearness of inverted rows, by where they were found, and the membership attack on models that trained on `own`.

    `embed` takes own rows to where found rows live. Held-out rows may be none: then nearness compares own rows with
    each other, and there is no attack to measure.
    """
    metrics, notices = dict[str, float](), list[Notice]()
    for where, rows in inverted_rows.items():
        if not len(rows):
            continue
        training, others = embed(own.inputs).numpy(), embed(held_out.inputs).numpy() if held_out.rows else None
        near = nearness(rows.numpy(), training, others)
        metrics |= {f"leak_{where}_lowest": near.lowest, f"leak_{where}_median": near.median}
        text = (
            f"leak meter: {NAMES[where]} lie {near.median:.2f} times as far from the nearest training row as is usual "
            f"(median; 5th percentile {near.lowest:.2f})"
            + (f": below {FLAGGED_BELOW}, some are close to copies" if near.flagged else "")
        )
        notices.append(Notice("warning" if near.flagged else "note", "leak_meter", text))
    if not held_out.rows:
        text = "leak meter: no membership attack is measured; rounds.model_inversion.leak_rows holds rows out"
        return LeakReport(metrics, (*notices, Notice("note", "leak_meter", text)))
    for name, model in models.items():
        metrics[f"membership_auc_{name}"] = membership_auc(_losses(model, own), _losses(model, held_out))
    attacks = ", ".join(f"{name} {metrics[f'membership_auc_{name}']:.3f}" for name in models)
    text = f"leak meter: AUC of a membership attack by loss (0.5 is guessing): {attacks}"
    return LeakReport(metrics, (*notices, Notice("note", "leak_meter", text)))


def _losses(model: nn.Module, rows: Examples) -> NDArray[np.floating[Any]]:
    labels = rows.labels
    if labels is None:
        raise ValueError("a client's rows need labels")
    losses: NDArray[np.floating[Any]] = functional.cross_entropy(
        features(model, rows.inputs), labels, reduction="none"
    ).numpy()
    return losses
