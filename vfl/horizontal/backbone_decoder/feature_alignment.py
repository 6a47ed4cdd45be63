"""Making a second backbone give the first one's features, on public rows without labels (R1.2).

    L = sum |T(B2 x) - B1 x|^2 / sum |B1 x|^2

The translator T has a closed form; a backbone with weights of its own is trained first. Where features are images, T
maps the channels of each pixel.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from vfl.errors import Diverged
from vfl.models.local_training import one_thread
from vfl.models.optimisers import Descent, ModuleSteps
from vfl.schedule import batches
from vfl.spec.sections import Optimiser

RIDGE = 1e-3
"""lambda of the closed form, as a share of the mean squared feature."""
BATCH_ROWS = 64


def alignment_error(own: torch.Tensor, targets: torch.Tensor) -> float:
    """L of features (rows, ...); 0 is equal, 1 what a backbone of zeros gives."""
    return float(((own.double() - targets.double()) ** 2).sum() / _energy(targets))


@one_thread()
def fit_translator(translator: nn.Module, own: torch.Tensor, target_features: torch.Tensor) -> None:
    """Load T = (F'F + lambda I)^-1 F'G, F the given features with a 1 appended, G the wanted ones, lambda
    = 10^-3 tr(F'F) / width."""
    features, targets = _flat(own), _flat(target_features)
    features = torch.cat([features, torch.ones(len(features), 1, dtype=features.dtype)], dim=1)
    gram = features.T @ features
    ridge = RIDGE * float(gram.trace()) / (features.shape[1] - 1)
    solution = torch.linalg.solve(gram + ridge * torch.eye(len(gram), dtype=gram.dtype), features.T @ targets)
    weight, offset = translator.get_parameter("weight"), translator.get_parameter("bias")
    with torch.no_grad():
        weight.copy_(solution[:-1].T.reshape(weight.shape))
        offset.copy_(solution[-1])


@one_thread()
def train_aligned(
    module: nn.Module,
    inputs: torch.Tensor,
    targets: torch.Tensor,
    *,
    epochs: int,
    rate: float,
    seed: bytes,
    statistics: bool,
    after_step: Callable[[], None] = lambda: None,
) -> None:
    """Adam on L, in place. `statistics`: norm layers take theirs from these rows. Raises Diverged."""
    module.train(statistics)
    steps = ModuleSteps(dict(module.named_parameters()), Descent(Optimiser(name="adam", rate=rate)))
    scale = len(targets) / _energy(targets)
    for batch in batches(seed, np.arange(len(inputs)), epochs, BATCH_ROWS):
        rows = torch.from_numpy(batch.rows)
        loss = functional.mse_loss(module(inputs[rows]), targets[rows], reduction="sum") * (scale / len(rows))
        if not torch.isfinite(loss):
            raise Diverged("the second backbone's alignment diverged", fix="Lower rounds.backbone_decoder.align_rate.")
        steps.zero_grad()
        torch.autograd.backward(loss)
        steps.step()
        after_step()
    module.eval()


def _energy(targets: torch.Tensor) -> float:
    return max(float((targets.double() ** 2).sum()), 1e-30)


def _flat(features: torch.Tensor) -> torch.Tensor:
    """(rows, width) as it is; (rows, channels, height, width) as one row per pixel."""
    return features.double().movedim(1, -1).flatten(0, -2)
