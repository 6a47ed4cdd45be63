"""The same step written two other ways: naively on TenSEAL's CKKSVector, and in clear torch."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import tenseal
import torch
from numpy.typing import NDArray

from vfl.kinds import read_spec_as
from vfl.models.polynomial import CUBIC_ERROR, LINEAR_ERROR
from vfl.models.scorer import SQUARE_ACTIVATION
from vfl.planning.training import resolve
from vfl.spec.training import TrainingSpec

Floats = NDArray[np.float64]

COLUMNS, BATCH = 16, 4096
ROWS = BATCH * 5 // 4  # a fifth is held out


@dataclass(frozen=True)
class Case:
    """A top model and its loss error."""

    loss: str
    hidden: int = 0

    def text(self, steps: int) -> str:
        names = ", ".join(f'"c{i}"' for i in range(COLUMNS))
        top = f'kind = "mlp", hidden = [{self.hidden}]' if self.hidden else 'kind = "linear"'
        return f"""
        encryption = {{ scheme = "ckks", loss_error = "{self.loss}" }}
        job = {{ name = "step", task = "binary", seed = 0 }}
        roster = {{ label = "label-party", features = ["feature-party"] }}
        train = {{ epochs = {steps}, batch_rows = {BATCH}, optimiser = {{ rate = 0.05 }} }}
        model = {{ top = {{ {top} }} }}
        [data]
        label-party = {{ dataset = "rows", label = "y" }}
        feature-party = {{ dataset = "rows", columns = [{names}] }}
        """

    def specification(self, steps: int) -> TrainingSpec:
        return resolve(read_spec_as(TrainingSpec, self.text(steps)))


CASES = {"linear": Case("linear"), "linear_cubic": Case("cubic"), "mlp": Case("linear", 8)}


def table() -> tuple[Floats, Floats]:
    draws = np.random.Generator(np.random.Philox(0))
    columns = draws.standard_normal((ROWS, COLUMNS))
    labels = (columns[:, 0] + columns[:, 1] + draws.standard_normal(ROWS) > 0).astype(np.float64)
    return columns, labels


def naive_step(case: Case) -> Callable[[], Floats]:
    """The step as a first version would have it: CKKSVector, float masks on slots, whole vectors decrypted."""
    degree, bits, scale = {
        Case("linear"): (8192, [45, 32, 32, 45], 32),
        Case("cubic"): (8192, [45, 30, 30, 30, 30, 45], 30),
        Case("linear", 8): (16384, [50, 36, 36, 36, 36, 36, 36, 36, 50], 36),
    }[case]
    owner = tenseal.context(tenseal.SCHEME_TYPE.CKKS, degree, coeff_mod_bit_sizes=bits, n_threads=1)
    owner.global_scale = 2.0**scale
    public = tenseal.context_from(owner.serialize(save_secret_key=False), n_threads=1)
    columns, labels = (part[:BATCH] for part in table())
    draws = np.random.Generator(np.random.Philox(1))

    def weighted(vectors: list[Any], weights: Floats) -> Any:
        total = vectors[0] * float(weights[0])
        for vector, weight in zip(vectors[1:], weights[1:], strict=True):
            total += vector * float(weight)
        return total

    def products(embedding: list[Any]) -> Iterator[Any]:
        """Gradients of every weight, not yet summed."""
        if not case.hidden:
            weights = draws.standard_normal(COLUMNS) * 0.1
            if case.loss == "linear":
                error = weighted(embedding, weights / 4) + (0.5 - labels).tolist()
            else:
                score = weighted(embedding, weights)
                error = score.polyval([CUBIC_ERROR[0], CUBIC_ERROR[1], 0, CUBIC_ERROR[2]]) - labels.tolist()
            yield from (error * column for column in embedding)
            yield error
            return
        alpha, beta = SQUARE_ACTIVATION
        first = draws.standard_normal((case.hidden, COLUMNS)) / 4
        second = draws.standard_normal(case.hidden) / 3
        hidden = [weighted(embedding, row) for row in first]
        active = [value.polyval([0, beta, alpha]) for value in hidden]
        error = weighted(active, second / 4) + (0.5 - labels).tolist()
        for value, weight in zip(hidden, second, strict=True):
            below = error * (value * float(2 * alpha * weight) + [float(beta * weight)] * BATCH)
            yield from (below * column for column in embedding)
            yield below
        yield from (error * value for value in active)
        yield error

    def step() -> Floats:
        sent = [tenseal.ckks_vector(owner, column.tolist()).serialize() for column in columns.T]
        sums = []
        for product in products([tenseal.ckks_vector_from(public, data) for data in sent]):
            mask = draws.uniform(-(2**8), 2**8, BATCH)
            reply = tenseal.ckks_vector_from(owner, (product + mask.tolist()).serialize()).decrypt()
            sums.append(sum(reply) - mask.sum())
        return np.array(sums)

    return step


def clear_step(case: Case) -> Callable[[], list[torch.Tensor]]:
    columns, labels = (torch.from_numpy(part[:BATCH]) for part in table())
    alpha, beta = SQUARE_ACTIVATION
    hidden = torch.full((case.hidden, COLUMNS), 0.1, dtype=torch.float64)
    weights = torch.full((case.hidden or COLUMNS,), 0.1, dtype=torch.float64)

    def step() -> list[torch.Tensor]:
        below = columns @ hidden.T if case.hidden else columns
        inputs = alpha * below**2 + beta * below if case.hidden else columns
        score = inputs @ weights
        if case.loss == "linear":
            error = LINEAR_ERROR["linear"][0] * score + LINEAR_ERROR["linear"][1] - labels
        else:
            error = CUBIC_ERROR[0] + CUBIC_ERROR[1] * score + CUBIC_ERROR[2] * score**3 - labels
        gradients = [inputs.T @ error, error.sum()]
        if case.hidden:
            errors = error[:, None] * weights * (2 * alpha * below + beta)
            gradients += [errors.T @ columns, errors.sum(0)]
        return gradients

    return step
