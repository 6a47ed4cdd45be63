"""The agreement two parties run under: a frozen JobSpec, equal to the byte on both sides or nothing runs.

Operators write it as TOML (product.md 7); parties exchange its canonical bytes, MessagePack of the frozen struct in
declaration order. The SHA-256 of those bytes is the job's digest and stands in every envelope.
"""

import difflib
import enum
import hashlib
import re
from typing import Literal, TypeAlias

import msgspec

from vfl.errors import SpecError

PartyId: TypeAlias = str
"""The name a party goes by in specs and envelopes: lower-case letters, digits and hyphens."""

PARTY_ID = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,62}[a-z0-9])?")


class Role(enum.Enum):
    """What a party plays in one job. The next job may give it another."""

    LABEL = "label"
    FEATURE = "feature"


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A table of the specification; unknown keys are refused by name."""


class Job(Section, frozen=True, kw_only=True):
    name: str
    protocol: Literal["training"] = "training"
    task: Literal["binary", "multiclass", "regression"]
    classes: int = 0
    """Number of classes of a multiclass job; filled by the label party when it proposes."""
    purpose: str = ""
    seed: Literal["joint"] | int = "joint"
    """`joint` is drawn by both sides; an integer needs both policies' consent."""
    deadline_seconds: int = 86_400


class Roster(Section, frozen=True, kw_only=True):
    label: PartyId
    features: tuple[PartyId, ...]


class Columns(Section, frozen=True, kw_only=True):
    """What one party brings: a registered data set and the columns of it that enter the job."""

    dataset: str
    columns: tuple[str, ...] = ()
    label: str = ""
    scaling: Literal["clip"] = "clip"
    """By the owner, on its own training rows: standardised and clipped to three standard deviations."""


class Split(Section, frozen=True, kw_only=True):
    test: float = 0.2


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


class CutNoise(Section, frozen=True, kw_only=True):
    method: Literal["none", "isotropic"]
    scale: float = 0.0
    """Standard deviation, in units of the cut error, of the noise on each of its coordinates."""


class Protection(Section, frozen=True, kw_only=True):
    """What is done to the label-bearing errors of layout `embeddings` before they leave the label party."""

    cut_noise: CutNoise


class Optimiser(Section, frozen=True, kw_only=True):
    name: Literal["sgd", "adam"] = "sgd"
    rate: float = 0.1
    momentum: float = 0.0
    """Of sgd."""
    weight_decay: float = 0.0


class Train(Section, frozen=True, kw_only=True):
    epochs: int
    batch_rows: int
    optimiser: Optimiser = Optimiser()


class Encryption(Section, frozen=True, kw_only=True):
    scheme: Literal["none", "ckks"] = "ckks"
    preset: str = "auto"
    """Resolved from (top model, loss error) before the proposal is sent."""
    loss_error: Literal["linear", "cubic"] = "linear"
    """Error of the logistic loss: u/4 + 1/2 - y, or its cubic approximation on |u| <= 8. Regression uses u - y."""
    labels: Literal["clear", "ciphertext"] = "clear"
    """Subtracted at the label party in clear, or encrypted there first under the feature party's key; same result."""
    values_per_key: int = 0
    """Values opened under one key; 0 takes the preset's cap, which holds against a label party that deviates."""


class JobSpec(Section, frozen=True, kw_only=True):
    """The whole agreement. Raises SpecError when built from something that contradicts itself."""

    spec_version: Literal[1] = 1
    job: Job
    roster: Roster
    data: dict[PartyId, Columns]
    split: Split = Split()
    model: Model = Model()
    train: Train
    encryption: Encryption = Encryption()
    protection: Protection | None = None

    def __post_init__(self) -> None:
        parties = (self.roster.label, *self.roster.features)
        _require(bool(self.job.name), "job.name is empty")
        _require(bool(self.roster.features), "roster.features names nobody")
        _require(len(set(parties)) == len(parties), "roster names a party twice")
        for party in parties:
            _require(PARTY_ID.fullmatch(party) is not None, f"roster: {party!r} is not a party name (a-z, 0-9, hyphen)")
        _require(
            set(self.data) == set(parties),
            f"[data.*] must name exactly the parties of the roster: {', '.join(parties)}",
        )
        for party, brought in self.data.items():
            at = f"data.{party}"
            _require(len(set(brought.columns)) == len(brought.columns), f"{at}.columns names a column twice")
            if party == self.roster.label:
                _require(bool(brought.label), f"{at}.label is missing: {party} is the label party")
                _require(brought.label not in brought.columns, f"{at}: the label is among the columns")
            else:
                _require(not brought.label, f"{at}.label is set, but {party} is a feature party")
                _require(bool(brought.columns), f"{at}.columns is empty: a feature party brings at least one")
        _require(0.0 < self.split.test < 1.0, "split.test must lie between 0 and 1")
        _require(self.train.epochs >= 1, "train.epochs must be at least 1")
        _require(self.train.batch_rows >= 1, "train.batch_rows must be at least 1")
        _require(0.0 < self.train.optimiser.rate < float("inf"), "train.optimiser.rate must be positive")
        _require(0.0 <= self.train.optimiser.momentum < 1.0, "train.optimiser.momentum must lie in [0, 1)")
        _require(self.encryption.values_per_key >= 0, "encryption.values_per_key must not be negative")
        _require(self.job.deadline_seconds >= 1, "job.deadline_seconds must be at least 1")
        multiclass = self.job.task == "multiclass"
        _require(
            self.job.classes == 0 or (multiclass and self.job.classes >= 3),
            "job.classes is for multiclass jobs and at least 3",
        )
        self._check_model()
        if self.encryption.scheme == "ckks":
            _require(
                len(self.roster.features) == 1, "scheme ckks takes one feature party: sums under two keys do not add"
            )
        if self.job.task == "regression":
            _require(
                self.encryption.loss_error == "linear", "encryption.loss_error: a regression job uses squared error"
            )

    def _check_model(self) -> None:
        model, optimiser = self.model, self.train.optimiser
        _require(optimiser.weight_decay >= 0, "train.optimiser.weight_decay must not be negative")
        _require(optimiser.name == "sgd" or not optimiser.momentum, "train.optimiser.momentum is for sgd")
        _require(
            bool(model.top.hidden) == (model.top.kind == "mlp"), "model.top.hidden lists the hidden layers of kind mlp"
        )
        _require(all(width >= 1 for width in model.top.hidden), "model.top.hidden: a layer has at least one neuron")
        if model.layout == "features":
            _require(model.bottom is None, "model.bottom is for layout embeddings")
            _require(self.protection is None, "[protection] is for layout embeddings: layout features sends no error")
            return
        if model.bottom is None:
            raise SpecError("job specification: model.bottom is missing: layout embeddings has one")
        widths = (*model.bottom.hidden, model.bottom.out)
        _require(all(width >= 1 for width in widths), "model.bottom: a layer has at least one neuron")
        private = model.bottom.kind == "private"
        _require(not private or not model.bottom.hidden, "model.bottom of kind private states its width only")
        if self.protection is None:
            raise SpecError(
                "job specification: protection.cut_noise is missing: layout embeddings sends label-bearing errors back",
                fix='Name a protection, or say plainly cut_noise = { method = "none" }.',
            )
        noise = self.protection.cut_noise
        _require((noise.method == "none") == (noise.scale == 0), "protection.cut_noise: scale goes with isotropic")
        _require(0 <= noise.scale < float("inf"), "protection.cut_noise.scale must be positive")

    def embedding_width(self, feature: PartyId) -> int:
        """Coordinates that a feature party brings to the cut."""
        return len(self.data[feature].columns) if self.model.bottom is None else self.model.bottom.out

    @property
    def entry(self) -> str:
        """The protocol that runs this job: a key of `vfl.protocols.PROTOCOLS` and `vfl.routes.ROUTES`."""
        return {"none": "split_training", "ckks": "ckks_training"}[self.encryption.scheme]

    @property
    def parties(self) -> tuple[PartyId, ...]:
        return (self.roster.label, *self.roster.features)

    @property
    def outputs(self) -> int:
        """Width of the top model's output: K one-vs-rest scores, else one."""
        return self.job.classes if self.job.task == "multiclass" else 1

    @property
    def hidden(self) -> int:
        """Width of the top model's first hidden layer; 0 for a linear one."""
        return self.model.top.hidden[0] if self.model.top.hidden else 0

    def role_of(self, party: PartyId) -> Role:
        return Role.LABEL if party == self.roster.label else Role.FEATURE

    def peers_of(self, party: PartyId) -> tuple[PartyId, ...]:
        """Whom a party exchanges messages with: pairwise links between label party and feature parties."""
        return self.roster.features if party == self.roster.label else (self.roster.label,)

    def encoded(self) -> bytes:
        return msgspec.msgpack.encode(self)

    def digest(self) -> bytes:
        """SHA-256 of the canonical bytes, 32 bytes."""
        return hashlib.sha256(self.encoded()).digest()


def decode_spec(data: bytes) -> JobSpec:
    """A peer's bytes as a JobSpec; refused unless they are the canonical encoding of what they say (trust.md 8)."""
    try:
        spec = msgspec.msgpack.decode(data, type=JobSpec)
    except UnicodeDecodeError as error:
        raise SpecError("the proposed specification holds text that is not UTF-8") from error
    except msgspec.DecodeError as error:
        raise _readable(error) from error
    if spec.encoded() != data:
        raise SpecError("the proposed specification is not in canonical form")
    return spec


def read_spec(text: str) -> JobSpec:
    """A TOML document as a JobSpec. Raises SpecError with the key and, for a typing slip, the nearest known one."""
    try:
        return msgspec.toml.decode(text, type=JobSpec)
    except msgspec.DecodeError as error:
        raise _readable(error) from error


_KNOWN_KEYS = sorted(
    {
        field
        for section in (
            Job,
            Roster,
            Columns,
            Split,
            Bottom,
            Top,
            Model,
            CutNoise,
            Protection,
            Optimiser,
            Train,
            Encryption,
            JobSpec,
        )
        for field in section.__struct_fields__
    }
)


def _readable(error: msgspec.DecodeError) -> SpecError:
    text = str(error).replace("Object ", "table ").replace(" - at `$.", " - at `").replace(" - at `$`", "")
    unknown = re.search(r"unknown field `(.+?)`", text)
    near = difflib.get_close_matches(unknown[1], _KNOWN_KEYS, n=1) if unknown else []
    return SpecError(f"job specification: {text}", fix=f"Did you mean `{near[0]}`?" if near else "")


def _require(holds: bool, message: str) -> None:  # noqa: FBT001
    if not holds:
        raise SpecError(f"job specification: {message}")
