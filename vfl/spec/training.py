"""The agreement of a training job: one network over a label party's and feature parties' columns of the same rows.

Operators write it as TOML (job_specification.md). What can be judged without a table is judged when it is built.
"""

from typing import Literal

from crypto.paillier_parameters import PaillierParameters
from vfl.errors import ImpossibleJob, LocalProtocolError, NotAvailable, SpecError
from vfl.spec.encryption import CkksEncryption, NoEncryption, PaillierEncryption
from vfl.spec.joined_rows import JoinedRowsSpec
from vfl.spec.sections import Optimiser, PartyId, Section, check_optimiser, require, require_amount

CHECKPOINTS = 50
"""Of a training that names no interval: a crash costs a fiftieth of its steps at most."""
LARGEST_RATIO = 100.0
"""Of class weights: a class that counted for less would leave little but noise of what a batch opens."""


class Bottom(Section, frozen=True, kw_only=True):
    """The feature party's part of layout `embeddings`."""

    kind: Literal["mlp", "private"] = "mlp"
    """`private` is a torch module that its owner names in its own party.toml; a peer learns its width only."""
    hidden: tuple[int, ...] = ()
    out: int
    activation: Literal["tanh", "relu"] = "tanh"


class Top(Section, frozen=True, kw_only=True):
    kind: Literal["linear", "mlp"] = "linear"
    hidden: tuple[int, ...] = ()
    """Neurons of each hidden layer, each computing 0.12 a^2 + 0.5 a."""


class Model(Section, frozen=True, kw_only=True):
    layout: Literal["features", "embeddings"] = "features"
    bottom: Bottom | None = None
    top: Top = Top()
    start_from: str = ""
    """Id of a training of the same model: each party begins with its half of that; empty begins anew."""


class CutNoise(Section, frozen=True, kw_only=True):
    method: Literal["none", "isotropic"]
    scale: float = 0.0
    """Standard deviation, in units of the cut error, of the noise on each of its coordinates."""


class Protection(Section, frozen=True, kw_only=True):
    """What is done to the label-bearing errors of layout `embeddings` before they leave the label party."""

    cut_noise: CutNoise


class StopEarly(Section, frozen=True, kw_only=True):
    """The training ends, and the best weights stay, once the loss on validation rows has ceased to fall."""

    patience: int
    """After so many measurements without a gain."""
    gain: float = 0.0
    """By how much the loss must fall below its least so far."""


class Train(Section, frozen=True, kw_only=True):
    epochs: int
    batch_rows: int
    optimiser: Optimiser = Optimiser()
    weight_limit: float = 0.0
    """Largest sum of absolute weights of one output, or one hidden neuron, of the top model; the label party scales
    weights back to it. 0 takes that of the preset for this top model and loss error, which its noise is sized for."""
    validate_every: int = 1
    """Epochs between two measurements of the loss on validation rows."""
    stop_early: StopEarly | None = None
    class_weights: Literal["none", "balanced"] | dict[str, float] = "none"
    """How much the error of a row counts by its class: as much for each class in all, or a number by the label's value;
    `none` counts all rows alike."""
    checkpoint_steps: int = 0
    """After so many steps each party stores a checkpoint, from which the training goes on after a crash; 0 stores about
    `CHECKPOINTS` of them."""

    def checkpoint_interval(self, steps: int) -> int:
        """Steps between two checkpoints of a training of so many steps."""
        return self.checkpoint_steps or -(-steps // CHECKPOINTS)

    def has_checkpoint(self, step: int, steps: int) -> bool:
        return step == steps or step % self.checkpoint_interval(steps) == 0


class TrainingSpec(JoinedRowsSpec, frozen=True, kw_only=True):
    """The label party coordinates. Raises SpecError when built from something that contradicts itself."""

    model: Model = Model()
    train: Train
    encryption: CkksEncryption | PaillierEncryption | NoEncryption = CkksEncryption()
    protection: Protection | None = None

    def __post_init__(self) -> None:
        require(self.job.protocol == "training", "job.protocol is training for a roster of label and feature parties")
        self._check_joined_rows()
        require(self.train.epochs >= 1, "train.epochs must be at least 1")
        require(self.train.batch_rows >= 1, "train.batch_rows must be at least 1")
        require(self.train.checkpoint_steps >= 0, "train.checkpoint_steps must not be negative")
        check_optimiser(self.train.optimiser)
        require_amount(self.train.weight_limit, "train.weight_limit")
        self._check_class_weights()
        self._check_validation()
        self.encryption.check()
        self._check_model()
        if self.encrypted:
            require(
                len(self.roster.features) == 1,
                f"scheme {self.encryption.scheme} takes one feature party: sums under two keys do not add",
            )
        self._check_paillier()
        if self.job.task == "regression":
            require(
                self.encryption.loss_error == "linear", "encryption.loss_error: a regression job uses squared error"
            )

    def _check_validation(self) -> None:
        every, stop = self.train.validate_every, self.train.stop_early
        require(1 <= every <= self.train.epochs, "train.validate_every must lie between 1 and train.epochs")
        require(every == 1 or self.split.validation > 0, "train.validate_every needs rows: set split.validation")
        if stop is not None:
            require(self.split.validation > 0, "train.stop_early needs rows to judge by: set split.validation")
            require(stop.patience >= 1, "train.stop_early.patience must be at least 1")
            require_amount(stop.gain, "train.stop_early.gain")

    def _check_paillier(self) -> None:
        """What this release trains on CKKS ciphertexts, or in clear, alone. Raises NotAvailable."""
        if not isinstance(self.encryption, PaillierEncryption):
            return
        asked = {
            "model.top.kind = mlp": bool(self.model.top.hidden),
            "model.layout = embeddings": self.model.layout == "embeddings",
            "train.class_weights": self.train.class_weights != "none",
            "split.validation": self.split.validation > 0,
        }
        if others := [setting for setting, is_asked in asked.items() if is_asked]:
            raise NotAvailable(
                f"job specification: scheme paillier does not go with {' and '.join(others)}",
                fix="Leave it out, or take encryption.scheme = ckks.",
            )

    def _check_class_weights(self) -> None:
        weights = self.train.class_weights
        require(weights == "none" or self.job.task != "regression", "train.class_weights is for classes")
        if isinstance(weights, dict):
            for value, weight in weights.items():
                require_amount(weight, f"train.class_weights.{value}", above_zero=True)
            ratio = max([1.0, *weights.values()]) / min([1.0, *weights.values()])
            require(
                ratio <= LARGEST_RATIO,
                f"train.class_weights: a row may count {LARGEST_RATIO:g} times as much as another at most, and a class "
                "that is not named counts 1",
            )

    def _check_model(self) -> None:
        model = self.model
        require(
            bool(model.top.hidden) == (model.top.kind == "mlp"), "model.top.hidden lists the hidden layers of kind mlp"
        )
        require(all(width >= 1 for width in model.top.hidden), "model.top.hidden: a layer has at least one neuron")
        if model.layout == "features":
            require(model.bottom is None, "model.bottom is for layout embeddings")
            require(self.protection is None, "[protection] is for layout embeddings: layout features sends no error")
            return
        if model.bottom is None:
            raise SpecError("job specification: model.bottom is missing, and layout embeddings needs it")
        widths = (*model.bottom.hidden, model.bottom.out)
        require(all(width >= 1 for width in widths), "model.bottom: a layer has at least one neuron")
        private = model.bottom.kind == "private"
        require(not private or not model.bottom.hidden, "model.bottom of kind private states its width only")
        if self.protection is None:
            raise SpecError(
                "job specification: protection.cut_noise is missing: layout embeddings sends back "
                "errors that show labels",
                fix='Name a protection, or say plainly cut_noise = { method = "none" }.',
            )
        noise = self.protection.cut_noise
        require((noise.method == "none") == (noise.scale == 0), "protection.cut_noise: scale goes with isotropic")
        require_amount(noise.scale, "protection.cut_noise.scale")

    def embedding_width(self, feature: PartyId) -> int:
        """Coordinates that a feature party brings to the cut."""
        return self.data[feature].prepared_width if self.model.bottom is None else self.model.bottom.out

    @property
    def entry(self) -> str:
        """The protocol that runs this job: a key of `vfl.routes.ROUTES`."""
        return {"none": "split_training", "ckks": "ckks_training", "paillier": "paillier_training"}[
            self.encryption.scheme
        ]

    @property
    def encrypted(self) -> bool:
        return not isinstance(self.encryption, NoEncryption)

    @property
    def ckks(self) -> CkksEncryption:
        """Of a training on CKKS ciphertexts. Raises LocalProtocolError for another."""
        if not isinstance(self.encryption, CkksEncryption):
            raise LocalProtocolError(f"this job is of scheme {self.encryption.scheme}: it has no CKKS keys")
        return self.encryption

    @property
    def paillier(self) -> PaillierParameters:
        """Of a resolved training on Paillier ciphertexts. Raises LocalProtocolError for another."""
        if not isinstance(self.encryption, PaillierEncryption):
            raise LocalProtocolError(f"this job is of scheme {self.encryption.scheme}: it has no Paillier keys")
        bits, fraction_bits = self.encryption.key_bits, self.encryption.fraction_bits
        return PaillierParameters(bits, fraction_bits, self.train.weight_limit, self.train.batch_rows)

    @property
    def hidden(self) -> int:
        """Width of the top model's first hidden layer; 0 for a linear one."""
        return self.model.top.hidden[0] if self.model.top.hidden else 0

    @property
    def private_bottom(self) -> bool:
        return self.model.bottom is not None and self.model.bottom.kind == "private"

    @property
    def resumes(self) -> bool:
        """Of Paillier, the label party holds ciphertexts of every row, under a key that no checkpoint may hold."""
        return not isinstance(self.encryption, PaillierEncryption)

    @property
    def checkpoints(self) -> int:
        """One for each epoch."""
        return self.train.epochs

    @property
    def applied_model(self) -> str:
        return self.model.start_from

    def check_start(self, trained: "TrainingSpec") -> None:
        """Raises ImpossibleJob where the model of that training is another one than this job trains."""

        def model_of(spec: TrainingSpec) -> dict[str, object]:
            own = {
                f"data.{party}.{key}": getattr(columns, key)
                for party, columns in spec.data.items()
                for key in ("columns", "prepare", "label", "positive")
            }
            whole = {"job.task": spec.job.task, "roster": spec.roster, "model.layout": spec.model.layout}
            return own | whole | {"model.bottom": spec.model.bottom, "model.top": spec.model.top}

        here, there = model_of(self), model_of(trained)
        others = [key for key in sorted(here.keys() | there.keys()) if here.get(key) != there.get(key)]
        if others:
            raise ImpossibleJob(
                f"model.start_from: the training {self.model.start_from} is of another model, by {', '.join(others)}",
                fix="Take these from that training's specification (`vfl job show`), or leave model.start_from out.",
            )

    @property
    def validations(self) -> int:
        """How many times the loss on validation rows is measured, if no training ends early."""
        return self.train.epochs // self.train.validate_every if self.split.validation else 0

    def is_validated(self, epoch: int) -> bool:
        """Whether the loss on validation rows is measured after this epoch, from 1."""
        return bool(self.split.validation) and epoch % self.train.validate_every == 0

    @property
    def disclosure(self) -> str:
        """The encryption scheme."""
        return self.encryption.scheme

    def _class_values(self) -> tuple[str, ...]:
        weights = self.train.class_weights
        return tuple(weights) if isinstance(weights, dict) else ()

    def steps_on(self, rows: int) -> int:
        return max(1, rows // self.train.batch_rows) * self.train.epochs
