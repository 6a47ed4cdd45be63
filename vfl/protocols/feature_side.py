"""What a feature party does alike in clear and in encrypted training: its columns and its bottom model."""

import numpy as np
import torch
from numpy.typing import NDArray

from vfl.errors import Diverged, InvalidBottom
from vfl.models.polynomial import make_optimiser, save_tensors
from vfl.models.tabular import build
from vfl.scaling import Scaling
from vfl.setup import Setup
from vfl.training_spec import Bottom, TrainingSpec

Floats = NDArray[np.float64]

EMBEDDING_BOUND = 16.0
"""Embeddings beyond this would let sums leave the range of the agreed parameters; named bottoms stay below 1 or grow
only as their weights do."""


class FeatureSide:
    """Layout features: the embedding is the bounded columns. Layout embeddings: what the bottom model makes of them.

    Raises InvalidBottom for a module that cannot be made or has another width, Diverged for one that explodes.
    """

    def __init__(self, setup: Setup[TrainingSpec]) -> None:
        spec = setup.spec
        self._me, self._width = setup.me, spec.embedding_width(setup.me)
        self._scaling = Scaling.fit(setup.table.columns[setup.training_rows])
        self._columns = self._scaling.apply(setup.table.columns)
        self._bottom: torch.nn.Module | None = None
        self._sent: list[torch.Tensor] = []
        self._returned: list[float] = []
        if spec.model.bottom is not None:
            self._bottom = self._build(setup, spec.model.bottom)
            parameters = list(self._bottom.parameters())
            self._optimiser = make_optimiser(parameters, spec.train.optimiser) if parameters else None
            self.embed(setup.training_rows[:8])

    def _build(self, setup: Setup[TrainingSpec], bottom: Bottom) -> torch.nn.Module:
        if bottom.kind == "private" and setup.bottom is None:
            raise InvalidBottom(
                f"the job wants a private bottom model and {setup.me} names none",
                fix='Name it in party.toml: [bottom] module = "file.py:function".',
            )
        factory = setup.bottom if bottom.kind == "private" else None
        try:
            return build(bottom, self._columns.shape[1], setup.private_seed, factory)
        except Exception as error:
            raise InvalidBottom(
                f"the bottom model of {setup.me} cannot be made: {type(error).__name__}: {error}"
            ) from error

    def embed(self, rows: NDArray[np.int64]) -> Floats:
        """Embeddings of these rows, rows x width, not kept for learning."""
        if self._bottom is None:
            return self._columns[rows]
        with torch.no_grad():
            return self._checked(self._bottom(torch.from_numpy(self._columns[rows])), len(rows))

    def forward(self, rows: NDArray[np.int64]) -> Floats:
        """Embeddings of one block of a step, kept until `backward` has seen their cut error."""
        if self._bottom is None:
            return self._columns[rows]
        output = self._bottom(torch.from_numpy(self._columns[rows]))
        embedding = self._checked(output.detach(), len(rows))
        self._sent.append(output)
        return embedding

    def backward(self, cut_errors: list[Floats]) -> None:
        """One step of the bottom model on the cut errors of a step's blocks: each rows x width, of the summed loss."""
        sent, self._sent = self._sent, []
        rows = sum(map(len, cut_errors))
        self._returned += [float(np.square(errors).mean()) for errors in cut_errors]
        if self._optimiser is None:
            return
        self._optimiser.zero_grad()
        for output, errors in zip(sent, cut_errors, strict=True):
            torch.autograd.backward(output, torch.from_numpy(errors / rows))
        self._optimiser.step()

    def measures(self) -> dict[str, float]:
        """Root mean square of the cut errors since the last time this was asked; nothing in layout features."""
        squares, self._returned = self._returned, []
        return {"cut_error": float(np.sqrt(np.mean(squares)))} if squares else {}

    def state(self) -> bytes:
        """The feature party's half of the model: bottom weights and what scales its columns."""
        bottom = {} if self._bottom is None else self._bottom.state_dict()
        return save_tensors(
            {
                **{f"bottom.{name}": tensor.numpy() for name, tensor in bottom.items()},
                "scaling.mean": self._scaling.mean,
                "scaling.deviation": self._scaling.deviation,
            }
        )

    def _checked(self, output: torch.Tensor, rows: int) -> Floats:
        if output.shape != (rows, self._width):
            raise InvalidBottom(
                f"the bottom model of {self._me} gives {tuple(output.shape)} for {rows} rows, "
                f"the job says {self._width} columns",
                fix="Make model.bottom.out and the module's width equal.",
            )
        embedding: Floats = output.numpy()
        largest = np.abs(embedding).max(initial=0.0)
        if not largest <= EMBEDDING_BOUND:
            raise Diverged(
                f"the bottom model of {self._me} exploded: an embedding reaches {largest:.3g}, "
                f"the bound is {EMBEDDING_BOUND:g}",
                safe="The states of completed epochs are kept.",
            )
        return embedding
