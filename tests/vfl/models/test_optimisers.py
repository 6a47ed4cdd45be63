"""Our steps are those of torch.optim, without what it loads."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from vfl.models.optimisers import SLICE, Descent
from vfl.spec.sections import Optimiser

SETTINGS = {
    "plain": Optimiser(rate=0.1),
    "decayed": Optimiser(rate=0.1, weight_decay=0.01),
    "momentum": Optimiser(rate=0.1, momentum=0.9, weight_decay=0.01),
    "adam": Optimiser(name="adam", rate=0.01, weight_decay=0.01),
}


def of_torch(settings, parameter):
    if settings.name == "adam":
        return torch.optim.Adam([parameter], lr=settings.rate, weight_decay=settings.weight_decay)
    return torch.optim.SGD(
        [parameter], lr=settings.rate, momentum=settings.momentum, weight_decay=settings.weight_decay
    )


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_each_step_is_that_of_torch(settings, kind):
    draws = np.random.default_rng(5)
    ours = draws.normal(size=(3, SLICE // 2)).astype(kind)
    theirs = torch.nn.Parameter(torch.from_numpy(ours.copy()))
    descent, optimiser = Descent(settings), of_torch(settings, theirs)
    for _ in range(5):
        gradient = draws.normal(size=ours.shape).astype(kind)
        descent.move("weights", ours, gradient)
        theirs.grad = torch.from_numpy(gradient)
        optimiser.step()
    # A value near zero is a difference of larger ones.
    np.testing.assert_allclose(ours, theirs.detach().numpy(), rtol=1e-5, atol=16 * np.finfo(kind).eps)


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_steps_that_are_taken_back_leave_no_trace(settings):
    draws = np.random.default_rng(6)
    first, wrong, second = draws.normal(size=(3, 4, 5))
    kept, undone = np.ones((4, 5)), np.ones((4, 5))
    straight, back = Descent(settings), Descent(settings)
    straight.move("weights", kept, first)
    straight.move("weights", kept, second)
    back.move("weights", undone, first)
    take_back = back.saved()
    back.move("weights", undone.copy(), wrong)
    take_back()
    back.move("weights", undone, second)
    assert np.array_equal(kept, undone)


def test_a_linear_model_starts_without_torch():
    """A second of a worker's start instead of six (docs/performance.md)."""
    code = """
import sys
import parties.worker.main, vfl.protocols.ckks_training, vfl.protocols.split_training
print(*{"torch", "sklearn", "sympy"} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == []
