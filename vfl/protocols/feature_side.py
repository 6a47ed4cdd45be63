"""What a feature party does alike in clear and in encrypted training: its columns and its bottom model."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vfl.errors import Diverged, InvalidBottom, ModelUnfit, RemoteProtocolError
from vfl.flow import Flow, receive, report
from vfl.messages import EpochJudged
from vfl.models.halves import OF_BOTTOM, PREPARATION, preparation_in
from vfl.models.polynomial import largest_cut_error
from vfl.models.tensors import load_tensors, save_tensors
from vfl.models.validation import ended_early
from vfl.notices import Notice
from vfl.planning.training import INPUT_BOUND, loss_of
from vfl.protocols.prepared_columns import PreparedColumns
from vfl.reports import EpochDone, Outcome
from vfl.setup import Setup
from vfl.spec.training import Bottom, TrainingSpec

if TYPE_CHECKING:
    from vfl.models.tabular import BottomModel

Floats = NDArray[np.float64]

EMBEDDING_BOUND = 16.0
"""Embeddings beyond this would let sums leave the range of the agreed parameters; named bottoms stay below 1 or grow
only as their weights do."""


NO_ERROR = 1e-6
"""A cut error below this is none; what is left of zeros on ciphertexts is far below."""

NOISE_DEVIATIONS = 10.0
"""Gaussian noise on a cut error stays below so many standard deviations."""


class FeatureSide:
    """Layout features: the embedding is the bounded columns. Layout embeddings: what the bottom model makes of them.

    Raises InvalidBottom for a module that cannot be made or has another width, Diverged for one that explodes.
    """

    def __init__(self, setup: Setup[TrainingSpec]) -> None:
        spec = setup.spec
        self._setup, self._label = setup, spec.roster.label
        self._me, self._width = setup.me, spec.embedding_width(setup.me)
        start = load_tensors(setup.model) if setup.model else {}
        self._prepared = PreparedColumns(setup, preparation_in(spec, setup.me, start) if start else None)
        self._bottom: BottomModel | None = None
        self._returned: list[float] = []
        self._best, self._judged = dict[str, Floats](), (0, 0)
        self._largest_error: dict[int, float] = {}
        """By epoch."""
        if spec.model.bottom is not None:
            self._bottom = self._build(setup, spec.model.bottom)
            self._start(self._bottom, start)
            self.embed(setup.training_rows[:8])

    def _build(self, setup: Setup[TrainingSpec], bottom: Bottom) -> "BottomModel":
        # Here and not above: a party whose columns are the embedding starts without torch.
        from vfl.models.tabular import BottomModel, build  # noqa: PLC0415

        if bottom.kind == "private" and setup.bottom is None:
            raise InvalidBottom(
                f"the job wants a private bottom model and {setup.me} names none",
                fix='Name it in party.toml: [bottom] module = "file.py:function".',
            )
        factory = setup.bottom if bottom.kind == "private" else None
        try:
            module = build(bottom, setup.spec.data[self._me].prepared_width, setup.private_seed, factory)
            return BottomModel(module, setup.spec.train.optimiser)
        except Exception as error:
            raise InvalidBottom(
                f"the bottom model of {setup.me} cannot be made: {type(error).__name__}: {error}"
            ) from error

    def _start(self, bottom: "BottomModel", start: Mapping[str, Floats]) -> None:
        """From the weights of a model that the job starts from. Raises ModelUnfit."""
        weights = {name.removeprefix(OF_BOTTOM): at for name, at in start.items() if name.startswith(OF_BOTTOM)}
        if not start:
            return
        try:
            bottom.restore(weights)
        except RuntimeError as error:
            raise ModelUnfit(f"the weights of {self._me} do not fit its bottom model: {error}") from error

    def embed(self, rows: NDArray[np.int64]) -> Floats:
        """Embeddings of these rows, rows x width, not kept for learning."""
        if self._bottom is None:
            return self._prepared.rows(rows)
        return self._checked(self._bottom.embed(self._prepared.rows(rows)), len(rows))

    def forward(self, rows: NDArray[np.int64]) -> Floats:
        """Embeddings of one block of a step, kept until `backward` has seen their cut error."""
        if self._bottom is None:
            return self._prepared.rows(rows)
        return self._checked(self._bottom.forward(self._prepared.rows(rows)), len(rows))

    def backward(self, cut_errors: list[Floats], epoch: int) -> None:
        """One step of the bottom model on the cut errors of a step's blocks: each rows x width, of the summed loss.

        Raises RemoteProtocolError for an error that weights within the agreed limit cannot give.
        """
        if self._bottom is None:
            raise RemoteProtocolError(f"{self._label} sent a cut error, and in layout features nothing learns from one")
        largest, bound = max(np.abs(errors).max() for errors in cut_errors), self._error_bound(self._bottom)
        if not largest <= bound:
            raise RemoteProtocolError(
                f"{self._label} sent a cut error of {largest:.3g}; with train.weight_limit = "
                f"{self._setup.spec.train.weight_limit:g} it cannot exceed {bound:.3g}"
            )
        self._largest_error[epoch] = max(self._largest_error.get(epoch, 0.0), float(largest))
        rows = sum(map(len, cut_errors))
        self._returned += [float(np.square(errors).mean()) for errors in cut_errors]
        self._bottom.backward([errors / rows for errors in cut_errors])

    def judged(self, epoch: int, best: int) -> None:
        """The label party says which epoch was best so far: this one, or one before, as it did then.

        Raises RemoteProtocolError.
        """
        if best not in {epoch, self._judged[1]} or not best:
            raise RemoteProtocolError(f"{self._label} says after epoch {epoch} that epoch {best} was best")
        self._judged = epoch, best
        if best == epoch and self._bottom is not None:
            self._best = {name: tensor.copy() for name, tensor in self._bottom.tensors().items()}

    def keep_best(self) -> None:
        """The weights of the best epoch, where early stopping asks for them."""
        if self._best and self._bottom is not None:
            self._bottom.restore(self._best)

    def checkpoint(self) -> dict[str, Any]:
        """All that the next steps and the result hang on; `go_on_from` takes it."""
        return {
            "bottom": None if self._bottom is None else self._bottom.checkpoint(),
            "returned": list(self._returned),
            "best": self._best,
            "judged": list(self._judged),
            "largest_error": dict(self._largest_error),
        }

    def go_on_from(self, state: Mapping[str, Any]) -> None:
        if self._bottom is not None:
            self._bottom.go_on_from(state["bottom"])
        self._returned, self._best = list(state["returned"]), dict(state["best"])
        epoch, best = state["judged"]
        self._judged, self._largest_error = (epoch, best), dict(state["largest_error"])

    def measures(self) -> dict[str, float]:
        """Root mean square of the cut errors since the last time this was asked; nothing in layout features."""
        squares, self._returned = self._returned, []
        return {"cut_error": float(np.sqrt(np.mean(squares)))} if squares else {}

    def _error_bound(self, bottom: "BottomModel") -> float:
        """What an honest cut error of these embeddings stays below, with the noise the job agreed on."""
        spec = self._setup.spec
        # Another feature party's embedding is not known here, only its bound.
        others = EMBEDDING_BOUND if len(spec.roster.features) > 1 else INPUT_BOUND
        noise = spec.protection.cut_noise.scale if spec.protection else 0.0
        return NOISE_DEVIATIONS * noise + largest_cut_error(
            loss_of(spec),
            spec.train.weight_limit,
            hidden=bool(spec.hidden),
            outputs=spec.outputs,
            largest_input=max(others, bottom.largest_kept()),
        )

    def outcome(self, operations: dict[str, int]) -> Outcome:
        """The result, with what this party's operator should know of its bottom model."""
        notices, largest = [*self._prepared.notices], self._largest_error
        (epoch, best), epochs = self._judged, self._setup.spec.train.epochs
        if best and best < epochs:
            notices.append(ended_early(epoch, epochs, best))
        if silent := sum(error < NO_ERROR for error in largest.values()):
            text = (
                f"every cut error from {self._label} was zero in {silent} of {len(largest)} epochs: the bottom model "
                f"learned nothing in them. Whether {self._label} means it cannot be told from here"
            )
            notices.append(Notice("warning", "no_cut_error", text))
        if self._bottom is not None and len(self._setup.test_rows) > 1:
            spread = self.embed(self._setup.test_rows).std(axis=0)
            if spread.max() < NO_ERROR:
                text = (
                    f"the bottom model of {self._me} gives every held-out row the same embedding: it has collapsed. "
                    "Lower train.optimiser.rate or check the columns"
                )
                notices.append(Notice("warning", "bottom_collapsed", text))
        return Outcome(self.state(), {}, operations, notices=notices)

    def state(self) -> bytes:
        """The feature party's half of the model: bottom weights and how its columns are prepared."""
        bottom = {} if self._bottom is None else self._bottom.tensors()
        return save_tensors(
            {
                **{f"{OF_BOTTOM}{name}": tensor for name, tensor in bottom.items()},
                PREPARATION: self._prepared.stored,
            }
        )

    def _checked(self, embedding: Floats, rows: int) -> Floats:
        if embedding.shape != (rows, self._width):
            raise InvalidBottom(
                f"the bottom model of {self._me} gives {embedding.shape} for {rows} rows, "
                f"the job says {self._width} columns",
                fix="Make model.bottom.out and the module's width equal.",
            )
        largest = np.abs(embedding).max(initial=0.0)
        if not largest <= EMBEDDING_BOUND:
            raise Diverged(
                f"the bottom model of {self._me} exploded: an embedding reaches {largest:.3g}, "
                f"the bound is {EMBEDDING_BOUND:g}",
                safe="The states of completed epochs are kept.",
            )
        return embedding


def end_epoch(setup: Setup[TrainingSpec], side: FeatureSide, epoch: int) -> Flow[bool]:
    """Reports the epoch and hears from the label party, where the job may end early, whether training goes on."""
    yield from report(EpochDone(epoch, setup.spec.train.epochs, side.state(), side.measures()))
    if setup.spec.train.stop_early is None or not setup.spec.is_validated(epoch):
        return True
    judged = yield from receive(EpochJudged, setup.spec.roster.label, epoch)
    side.judged(epoch, judged.best)
    return judged.goes_on
