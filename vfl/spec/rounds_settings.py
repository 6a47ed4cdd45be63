"""Settings of horizontal rounds and of each part a round can be made of: no torch (rounds.md)."""

from math import isfinite
from typing import Literal

import msgspec

from vfl.spec.network_names import block_names, square_blocks
from vfl.spec.sections import Optimiser, PartyId, Section, require, require_amount

DEVIATIONS = 3.0
"""Pooled columns are clipped so many deviations from their mean."""


class RoundsRoster(Section, frozen=True, kw_only=True):
    aggregator: PartyId
    clients: tuple[PartyId, ...]
    keys: dict[PartyId, str] = msgspec.field(default_factory=dict)
    """Base64 of the identity key by which each party's word is believed that the aggregator hands on."""


class RoundsData(Section, frozen=True, kw_only=True):
    """Registered data sets: `dataset` at a client, the others at the aggregator and all optional."""

    dataset: str = ""
    test: str = ""
    """Held-out rows of global test accuracy (R0.9)."""
    validation: str = ""
    """Rows that choose between ways to carry back (R1.6)."""
    public: str = ""
    """Rows without labels, for alignment and distillation."""
    shared: str = ""
    """Labelled rows on which each round's mean is adjusted."""
    first: str = ""
    """Labelled rows on which the aggregator trains the first model before round 1."""


class RoundsModel(Section, frozen=True, kw_only=True):
    """The network all parties train, and how a row becomes its input."""

    network: Literal["mlp", "small_cnn"]
    hidden: tuple[int, ...] = ()
    """Widths of the hidden blocks; empty takes the network's own."""
    norm: Literal["none", "batch", "group"] = "none"
    input_shape: tuple[int, ...]
    input_range: tuple[float, float] | dict[str, tuple[float, float]] | None = None
    """Public range of every input, or of each column by its name: rows are clipped to it and mapped to [0, 1].

    Left out, each column is standardised by its mean and deviation over all clients' rows, pooled by a secure sum.
    """
    label: str
    """Name of the label column at every party."""
    columns: tuple[str, ...] = ()
    """Input columns; empty takes all but id and label, in the order of the file."""
    first_model: str = ""
    """Digest of a model in the aggregator's registry to start from; empty starts from fresh weights."""
    first_epochs: int = 10
    """Epochs on the aggregator's `first` rows."""

    @property
    def ranges(self) -> tuple[tuple[float, float], ...]:
        """The agreed ranges: one for all columns, or one for each in their order; empty where columns are pooled."""
        if isinstance(self.input_range, dict):
            return tuple(self.input_range[column] for column in self.columns)
        return () if self.input_range is None else (self.input_range,)

    def check_ranges(self) -> None:
        """Raises SpecError."""
        if isinstance(self.input_range, dict):
            require(
                bool(self.columns) and set(self.input_range) == set(self.columns),
                "model.input_range as a table gives every column of model.columns a range, and no other",
            )
        require(
            all(isfinite(low) and isfinite(high) and low < high for low, high in self.ranges),
            "model.input_range: both numbers are finite, and the first is below the second",
        )
        require(
            bool(self.ranges) or len(self.input_shape) == 1,
            "model.input_range is missing: images have an agreed one, such as [0.0, 255.0]; only columns of a "
            "table are scaled by pooled means and deviations",
        )

    @property
    def input_bounds(self) -> tuple[float, float]:
        """Between which numbers lies what the network reads."""
        return (0.0, 1.0) if self.ranges else (-DEVIATIONS, DEVIATIONS)


class RoundsTrain(Section, frozen=True, kw_only=True):
    batch_rows: int
    optimiser: Optimiser = Optimiser()
    """Of the clients; momentum starts anew each round (R3.7)."""
    proximal: float = 0.0
    """FedProx: mu of mu/2 times the squared distance from the received weights (Li et al. 2020)."""


class Stop(Section, frozen=True, kw_only=True):
    """The first condition to hold ends the job; 0 switches one off (R0.6)."""

    target: float = 0.0
    """Global test accuracy reached."""
    plateau: int = 0
    """So many evaluations without a gain of more than `gain`."""
    gain: float = 0.0
    gigabytes: float = 0.0
    """Payload sent by all parties together, 10^9 bytes."""


class ServerOptimiser(Section, frozen=True, kw_only=True):
    """What the aggregator does with the mean: takes it, or steps towards it (Reddi et al. 2021)."""

    name: Literal["average", "momentum", "adam"] = "average"
    rate: float = 1.0
    momentum: float = 0.0


class Privacy(Section, frozen=True, kw_only=True):
    epsilon: float = 0.0
    delta: float = 1e-6


class BackboneDecoder(Section, frozen=True, kw_only=True):
    """The aggregator derives a second model; only its decoder travels after a client's first round."""

    cut: str = ""
    """The block after which the decoder starts."""
    derive: Literal["identity", "student", "layers", "prune", "quantise", "low_rank"] = "student"
    student_hidden: tuple[int, ...] = ()
    """Widths of the student's blocks up to the cut; empty narrows the first model's to an eighth of its parameters."""
    layers: int = 1
    """How many of the blocks as wide as the one before `layers` keeps."""
    share: float = 0.1
    """Share of weights that `prune` keeps."""
    bits: int = 4
    """Bits per weight of `quantise`, 2 to 8."""
    rank: int = 16
    """Rank of `low_rank`."""
    translator: bool = True
    """A linear map behind the second backbone, fitted on public rows, where widths differ or it helps."""
    align_epochs: int = 20
    """On the public rows; 0 leaves the second backbone as it was derived, but for the translator."""
    align_rate: float = 1e-3
    carry_back: Literal["copy", "delta", "distil", "best"] = "best"
    """`best` keeps what does best on the aggregator's validation rows, the old decoder included."""
    carry_each_round: bool = False
    """The first model's accuracy is measured after every round too, as if it were carried back then."""
    delta_scale: float = 1.0
    distil_epochs: int = 20
    preserve: bool = False
    """A client keeps the received decoder rows of classes it has no rows of."""
    debias: bool = False
    """The mean over classes is taken off the last layer's weight rows."""

    def check(self, model: RoundsModel, task: str) -> None:
        """Raises SpecError for what cannot be derived from this network, which is cut at one of its blocks."""
        table, names = "rounds.backbone_decoder", block_names(model.network, model.hidden)
        behind = names.index(self.cut) + 1
        require(all(width >= 1 for width in self.student_hidden), f"{table}.student_hidden: every width is at least 1")
        if model.network == "small_cnn" and self.derive == "student":
            widths = len(self.student_hidden)
            require(
                self.cut == "features" or widths in {0, behind},
                f"{table}.student_hidden gives {widths} widths; a student cut after {self.cut!r} has {behind}",
            )
            require(widths != 1 or self.cut != "features", f"{table}.student_hidden: give the stem and the features")
            require(
                self.translator or self.cut == "features",
                f'{table}.translator = false needs cut = "features" in a small_cnn',
            )
        if self.derive == "layers":
            most = len([name for name in square_blocks(model.network, model.hidden) if name in names[:behind]])
            require(
                1 <= self.layers <= most,
                f"{table}.layers is {self.layers}, and {most} blocks up to the cut are as wide as the one before",
            )
        require(0.0 < self.share <= 1.0, f"{table}.share must lie in (0, 1]")
        require(2 <= self.bits <= 8, f"{table}.bits must be 2 to 8")
        require(self.rank >= 1, f"{table}.rank must be at least 1")
        require(self.align_epochs >= 0, f"{table}.align_epochs must not be negative")
        require(self.distil_epochs >= 1, f"{table}.distil_epochs must be at least 1")
        require_amount(self.align_rate, f"{table}.align_rate", above_zero=True)
        require_amount(self.delta_scale, f"{table}.delta_scale", above_zero=True)
        require(
            task != "regression" or not (self.preserve or self.debias),
            f"{table}: preserve and debias are about classes, and a regression has none",
        )


class CompressedSync(Section, frozen=True, kw_only=True):
    """Parameters at rest and on the wire as packed codes."""

    codec: Literal["auto", "none", "half", "uniform", "block", "rotation", "sparse", "grid"] = "auto"
    """Of what is sent both ways; `auto` is rotation, `sparse` is of replies only."""
    stored_bits: int = 4
    """Of what clients receive and keep, 1 to 8."""
    reply: Literal["difference", "parameters"] = "difference"
    """What a client answers: what its training changed, or all its parameters, then at `stored_bits`."""
    reply_bits: int = 4
    """Of a difference, 1 to 8."""
    feedback: bool = True
    """The aggregator adds what compression dropped to what it sends next."""
    storage: Literal["model", "layers"] = "model"
    """What a client decompresses: the model while it trains, or one layer at a time."""
    rounding: Literal["stochastic", "nearest"] = "stochastic"
    """Of storage `layers`, after every step."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Of the products of training, and of what is not compressed."""
    tensor_bits: dict[str, int] = msgspec.field(default_factory=dict)
    """Bits of single tensors by name, instead of `stored_bits` and `reply_bits`."""
    kept_share: float = 0.1
    """Share of values that codec `sparse` sends, the largest."""
    backbone_bits: int = 8
    """Of a backbone, which is sent once."""
    keep_optimiser: bool = False
    """Momentum is kept between steps and rounds, at 8 bits per value."""
    bits_from: Literal["terms", "link", "budget"] = "terms"
    """Who says how many bits a reply has: these terms, the measured link, or what `stop.gigabytes` leaves."""
    link_seconds: float = 1.0
    """With `link`: how long one reply may travel."""
    word_bits: int = 0
    """Of codec `grid`: width of a word of the sum; 0 takes the smallest that fits."""


class SharedData(Section, frozen=True, kw_only=True):
    """Each round's mean is adjusted on rows the aggregator holds and all agreed to."""

    rule: Literal["none", "fixed", "feddu", "hybrid", "share"] = "feddu"
    """`share` hands the rows to the clients once: the aggregator's party.toml must allow that."""
    scale: float = 1.0
    """C of the rule feddu."""
    decay: float = 0.999
    """Of feddu's step, by round."""
    epochs: int = 5
    """On the shared rows, each round."""
    batch_rows: int = 10
    hold_out: float = 0.2
    """Share of the shared rows on which the step is judged and never trained."""
    step: float = 1.0
    """Of the rule fixed: 0 keeps the mean, 1 takes the copy trained on shared rows."""
    divergence: Literal["cohort", "clients"] = "cohort"
    """`cohort` is the published rule, 0 where every client is chosen; `clients` takes the mean over its clients."""
    counts: Literal["pooled", "estimate"] = "pooled"
    """Class counts by secure sum, or estimated from the mean model's answers on the shared rows."""
    undo: bool = True
    """A step that harms, or rows whose labels teach nothing, are left out."""
    momentum: float = 0.0
    """FedDUM's, on the mean and on the step; 0 is off."""


class ModelInversion(Section, frozen=True, kw_only=True):
    """Rows are found again in models, and balance what clients lack and what the aggregator never sees."""

    where: Literal["none", "clients", "aggregator", "both"] = "both"
    """Clients invert what they receive and train on it beside their own rows; the aggregator inverts each reply and
    trains the mean on all it finds."""
    kind: Literal["inputs", "generator"] = "inputs"
    """Rows are sought one by one, or by a generator that is trained to give them."""
    space: Literal["inputs", "features"] = "inputs"
    """Rows of the job, or what stands behind a backbone."""
    cut: str = "features"
    """Of space `features` without backbone_decoder: the block behind which rows are sought."""
    classes: Literal["scarce", "all"] = "scarce"
    """At clients: those of which it has fewer rows than `balance` asks for, or all."""
    balance: float = 1.0
    """Rows of every class a client trains on, as a share of its largest class."""
    rows_per_class: int = 32
    """Distinct rows that a client finds of a class; more are drawn from them."""
    max_ratio: float = 0.0
    """At most so many inverted rows for each of its own; 0 sets no limit."""
    weight: float = 0.5
    """Of an inverted row in a client's loss; its own weigh 1."""
    server_rows: int = 64
    """That the aggregator finds in each client's model."""
    server_epochs: int = 1
    server_rate: float = 0.1
    """Of the aggregator's training, as a share of the clients' rate."""
    labels: Literal["hard", "soft"] = "hard"
    """At the aggregator: what each row was asked to be, or what the model in which it was found answers."""
    warm_up: int = 3
    """No inversion before this round: an untrained model holds noise."""
    refresh: int = 5
    """After so many rounds rows are found anew; 1 is every round."""
    confidence: float = 0.9
    """A row is kept if the model gives its label at least this probability."""
    steps: int = 0
    """Of the search at clients; 0 takes 200, of a generator 100 for each batch."""
    server_steps: int = 0
    """At the aggregator; 0 takes 100."""
    statistics: float = 1.0
    """Weight of the distance of statistics."""
    leak_meter: bool = True
    """Each client measures at the end how near found rows come to its own."""
    leak_rows: float = 0.0
    """Share of its own rows that a client never trains on, to measure a membership attack on the rest."""


class Rounds(Section, frozen=True, kw_only=True):
    rounds: int
    local_epochs: int = 1
    clients_per_round: int = 0
    """0 is all."""
    min_clients: int = 3
    """Fewer replies, and the round is repeated; three times at most."""
    quorum: float = 0.8
    """Share of the cohort that must have replied when the deadline passes; before it all are awaited."""
    deadline_seconds: float = 600.0
    rate_decay: float = 1.0
    """The clients' rate is multiplied by it after every round."""
    stop: Stop = Stop()
    server_optimiser: ServerOptimiser = ServerOptimiser()
    reply_norm_limit: float = 0.0
    """A reply farther than this from what was sent is refused by name; 0 is off."""
    secure_sum: bool = False
    privacy: Privacy = Privacy()
    allow: tuple[str, ...] = ()
    """Refusals waived by name, for ablations; the report prints them."""
    parts: tuple[str, ...] = ()
    backbone_decoder: BackboneDecoder | None = None
    compressed_sync: CompressedSync | None = None
    shared_data: SharedData | None = None
    model_inversion: ModelInversion | None = None
