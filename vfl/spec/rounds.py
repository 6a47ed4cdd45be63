"""The agreement of a job of horizontal rounds: an aggregator and clients whose rows carry labels (rounds.md).

What cannot work is refused when it is built: `vfl.spec.conflicts` compares what its settings need and hide.
"""

import base64
from collections.abc import Mapping
from typing import Self

import msgspec

from vfl.errors import NotAvailable
from vfl.spec import conflicts
from vfl.spec.job import JobSpec
from vfl.spec.network_names import block_names, widths_of
from vfl.spec.rounds_settings import (
    BackboneDecoder,
    CompressedSync,
    ModelInversion,
    Rounds,
    RoundsData,
    RoundsModel,
    RoundsRoster,
    RoundsTrain,
    SharedData,
)
from vfl.spec.sections import PartyId, Role, TableUse, check_optimiser, require, require_amount

PARTS = ("compressed_sync", "model_inversion", "shared_data", "backbone_decoder")
"""In the default order of their adjustments: what is carried back comes last (R0.2)."""

LABELLED = ("test", "validation", "shared", "first")

KEY_BYTES = 32
"""Of an identity key."""

SCALABLE = ("auto", "rotation", "uniform", "block", "grid")
"""Codecs of 1 to 8 bits."""


class RoundsRole(Role):
    AGGREGATOR = "aggregator"
    CLIENT = "client"


class RoundsSpec(JobSpec, frozen=True, kw_only=True):
    """The aggregator coordinates. Raises SpecError, SpecConflict or NotAvailable when built."""

    roster: RoundsRoster
    data: dict[PartyId, RoundsData]
    model: RoundsModel
    train: RoundsTrain
    rounds: Rounds

    def __post_init__(self) -> None:
        require(self.job.protocol == "rounds", "job.protocol is rounds for a roster of an aggregator and clients")
        require(bool(self.roster.clients), "roster.clients names nobody")
        self._check_job()
        self._check_keys()
        require(self.job.task != "multiclass" or self.job.classes >= 3, "job.classes is missing: rounds must know it")
        self._check_data()
        self._check_model()
        self._check_rounds()
        self._check_compressed_sync()
        self._check_shared_data()
        self._check_model_inversion()
        conflicts.check(self.rounds, self._facts())
        if self.backbone_decoder is not None:
            self.backbone_decoder.check(self.model, self.job.task)
        if self.rounds.privacy.epsilon > 0:
            raise NotAvailable("rounds.privacy.epsilon is not available yet", fix="Set epsilon = 0.")
        if self.evaluates_at_clients:
            self._check_evaluation()

    def _check_keys(self) -> None:
        for party, key in self.roster.keys.items():
            require(party in self.parties, f"roster.keys names {party!r}, which is no party of the roster")
            try:
                size = len(base64.b64decode(key, validate=True))
            except ValueError:
                size = 0
            require(size == KEY_BYTES, f"roster.keys.{party} must be base64 of an identity key, {KEY_BYTES} bytes")

    def _check_data(self) -> None:
        aggregator = self.roster.aggregator
        require(
            set(self.data) | {aggregator} == set(self.parties),
            f"[data.*] must name every client of the roster and nobody outside it: {', '.join(self.parties)}",
        )
        for party, own in self.data.items():
            others = (own.validation, own.public, own.shared, own.first)
            if party == aggregator:
                require(not own.dataset, f"data.{party}.dataset is a client's; the aggregator names test ...")
            else:
                require(bool(own.dataset), f"data.{party}.dataset is missing: a client brings rows")
                require(
                    not any(others), f"data.{party} names tables of the aggregator: a client brings dataset and test"
                )

    def _check_evaluation(self) -> None:
        """Without test rows at the aggregator the clients' are summed (R0.9)."""
        require(
            all(self.data[client].test for client in self.roster.clients),
            f"no test rows: name them once, [data.{self.roster.aggregator}] test, or at every client, "
            "and only sums over clients are read",
        )
        require(self.cohort >= 3, "without test rows at the aggregator at least three clients are chosen per round")

    def _check_model(self) -> None:
        model = self.model
        model.check_ranges()
        require(bool(model.label), "model.label names no column")
        require(model.label not in model.columns, "model.label is among model.columns")
        require(len(set(model.columns)) == len(model.columns), "model.columns names a column twice")
        require(all(size >= 1 for size in model.input_shape), "model.input_shape: every size is at least 1")
        require(all(width >= 1 for width in model.hidden), "model.hidden: a block has at least one neuron")
        require(
            not model.columns or len(model.columns) == self.inputs,
            f"model.columns names {len(model.columns)} columns, input_shape holds {self.inputs}",
        )
        require(model.first_epochs >= 1, "model.first_epochs must be at least 1")
        first = self.data.get(self.roster.aggregator, RoundsData()).first
        require(not (model.first_model and first), "model.first_model and the aggregator's first rows: name one")
        require(self.train.batch_rows >= 1, "train.batch_rows must be at least 1")
        require_amount(self.train.proximal, "train.proximal")
        check_optimiser(self.train.optimiser)

    def _check_rounds(self) -> None:
        rounds, clients = self.rounds, len(self.roster.clients)
        require(rounds.rounds >= 1, "rounds.rounds must be at least 1")
        require(rounds.local_epochs >= 1, "rounds.local_epochs must be at least 1")
        require(0 <= rounds.clients_per_round <= clients, f"rounds.clients_per_round: the roster has {clients} clients")
        require(
            1 <= rounds.min_clients <= self.cohort,
            f"rounds.min_clients is {rounds.min_clients}, a cohort has {self.cohort} clients",
        )
        require(0.0 < rounds.quorum <= 1.0, "rounds.quorum must lie in (0, 1]")
        require_amount(rounds.deadline_seconds, "rounds.deadline_seconds", above_zero=True)
        require(0.0 < rounds.rate_decay <= 1.0, "rounds.rate_decay must lie in (0, 1]")
        require_amount(rounds.privacy.epsilon, "rounds.privacy.epsilon")
        require_amount(rounds.reply_norm_limit, "rounds.reply_norm_limit")
        server = rounds.server_optimiser
        require_amount(server.rate, "rounds.server_optimiser.rate", above_zero=True)
        require(0.0 <= server.momentum < 1.0, "rounds.server_optimiser.momentum must lie in [0, 1)")
        require(server.name == "momentum" or not server.momentum, "rounds.server_optimiser.momentum is for momentum")
        require(server.name != "average" or server.rate == 1.0, "rounds.server_optimiser.rate is for momentum and adam")
        stop = rounds.stop
        for key in stop.__struct_fields__:
            require_amount(getattr(stop, key), f"rounds.stop.{key}")
        require(len(set(rounds.parts)) == len(rounds.parts), "rounds.parts names a part twice")
        for part in rounds.parts:
            require(part in PARTS, f"rounds.parts: {part!r} is no part; there are {', '.join(PARTS)}")
        for part in PARTS:
            is_set = getattr(rounds, part) is not None
            require(not is_set or part in rounds.parts, f"[rounds.{part}] is set, but rounds.parts does not name it")

    def _check_compressed_sync(self) -> None:
        terms = self.compressed_sync
        if terms is None:
            return
        table, optimiser = "rounds.compressed_sync", self.train.optimiser
        widths = {
            "stored_bits": terms.stored_bits,
            "reply_bits": terms.reply_bits,
            "backbone_bits": terms.backbone_bits,
            **{f"tensor_bits of {name}": bits for name, bits in terms.tensor_bits.items()},
        }
        for name, bits in widths.items():
            require(1 <= bits <= 8, f"{table}.{name} must be 1 to 8, not {bits}")
        require(0.0 < terms.kept_share <= 1.0, f"{table}.kept_share must lie in (0, 1]")
        require_amount(terms.link_seconds, f"{table}.link_seconds", above_zero=True)
        require(0 <= terms.word_bits <= conflicts.LARGEST_WORD_BITS, f"{table}.word_bits must be 0 to 32")
        require(
            terms.codec != "sparse" or terms.reply == "difference",
            f'{table}.codec = "sparse" sends the largest changes: set reply = "difference"',
        )
        require(
            not terms.keep_optimiser or (optimiser.name == "sgd" and optimiser.momentum > 0),
            f"{table}.keep_optimiser keeps the momentum of sgd, and train.optimiser has none",
        )
        require(
            terms.bits_from == "terms" or (terms.reply == "difference" and terms.codec in SCALABLE),
            f"{table}.bits_from = {terms.bits_from!r} needs differences in a codec with bits: {', '.join(SCALABLE)}",
        )
        require(
            terms.bits_from != "budget" or self.rounds.stop.gigabytes > 0,
            f'{table}.bits_from = "budget" spends rounds.stop.gigabytes, which is not set',
        )

    def _check_shared_data(self) -> None:
        terms = self.shared_data
        if terms is None:
            return
        table = "rounds.shared_data"
        require(terms.epochs >= 1, f"{table}.epochs must be at least 1")
        require(terms.batch_rows >= 1, f"{table}.batch_rows must be at least 1")
        require_amount(terms.scale, f"{table}.scale", above_zero=True)
        require(0.0 < terms.decay <= 1.0, f"{table}.decay must lie in (0, 1]")
        require(0.0 < terms.hold_out < 1.0, f"{table}.hold_out must lie between 0 and 1")
        require(0.0 <= terms.step <= 1.0, f"{table}.step must lie in [0, 1]")
        require(0.0 <= terms.momentum < 1.0, f"{table}.momentum must lie in [0, 1)")
        estimated = terms.counts == "estimate"
        require(
            not estimated or (terms.divergence == "cohort" and self.job.task != "regression"),
            f'{table}.counts = "estimate" is for divergence = "cohort" and for classes',
        )

    def _check_model_inversion(self) -> None:
        terms = self.model_inversion
        if terms is None:
            return
        table, cuts = "rounds.model_inversion", block_names(self.model.network, self.model.hidden)[:-1]
        require(0.0 < terms.balance <= 1.0, f"{table}.balance must lie in (0, 1]")
        require(terms.rows_per_class >= 1, f"{table}.rows_per_class must be at least 1")
        require_amount(terms.max_ratio, f"{table}.max_ratio")
        require(0.0 < terms.weight <= 1.0, f"{table}.weight must lie in (0, 1]")
        require(terms.server_rows >= 1, f"{table}.server_rows must be at least 1")
        require(terms.server_epochs >= 1, f"{table}.server_epochs must be at least 1")
        require_amount(terms.server_rate, f"{table}.server_rate", above_zero=True)
        require(terms.warm_up >= 1, f"{table}.warm_up must be at least 1: rounds count from 1")
        require(terms.refresh >= 1, f"{table}.refresh must be at least 1")
        require(0.0 <= terms.confidence < 1.0, f"{table}.confidence must lie in [0, 1)")
        require(min(terms.steps, terms.server_steps) >= 0, f"{table}: steps and server_steps must not be negative")
        require_amount(terms.statistics, f"{table}.statistics")
        require(0.0 <= terms.leak_rows <= 0.5, f"{table}.leak_rows must lie in [0, 0.5]")
        require(
            terms.space == "inputs" or terms.cut in cuts, f"{table}.cut: {terms.cut!r} is none of {', '.join(cuts)}"
        )

    def _facts(self) -> conflicts.Facts:
        model = self.model
        return conflicts.Facts(
            cohort=self.cohort,
            clients=len(self.roster.clients),
            pools_columns=self.pools_columns,
            batch_norm=model.norm == "batch",
            regression=self.job.task == "regression",
            shared_rows=bool(self.data.get(self.roster.aggregator, RoundsData()).shared),
            public_rows=bool(self.data.get(self.roster.aggregator, RoundsData()).public),
            blocks=block_names(model.network, model.hidden),
            widths=widths_of(model.network, model.hidden),
            client_optimiser=self.train.optimiser,
        )

    @property
    def backbone_decoder(self) -> BackboneDecoder | None:
        """The part's terms where it is on, with its defaults where its table is left out."""
        return (self.rounds.backbone_decoder or BackboneDecoder()) if "backbone_decoder" in self.rounds.parts else None

    @property
    def compressed_sync(self) -> CompressedSync | None:
        return (self.rounds.compressed_sync or CompressedSync()) if "compressed_sync" in self.rounds.parts else None

    @property
    def model_inversion(self) -> ModelInversion | None:
        return (self.rounds.model_inversion or ModelInversion()) if "model_inversion" in self.rounds.parts else None

    @property
    def shared_data(self) -> SharedData | None:
        return (self.rounds.shared_data or SharedData()) if "shared_data" in self.rounds.parts else None

    @property
    def evaluates_at_clients(self) -> bool:
        """Whether the aggregator has no test rows, and models are measured on the clients'."""
        return not self.data.get(self.roster.aggregator, RoundsData()).test

    @property
    def pools_columns(self) -> bool:
        """Whether means and deviations of columns are pooled, because no range of theirs is agreed."""
        return not self.model.ranges

    @property
    def pools(self) -> bool:
        """Whether clients are asked for numbers of which only sums are read."""
        shared = self.shared_data
        return (
            self.rounds.secure_sum
            or self.pools_columns
            or self.evaluates_at_clients
            or (shared is not None and shared.rule == "feddu" and shared.counts == "pooled")
        )

    @property
    def hands_on(self) -> bool:
        """Clients believe each other's keys of a secure sum, and talk to the aggregator alone."""
        return self.pools

    @property
    def identity_keys(self) -> dict[PartyId, bytes]:
        return {party: base64.b64decode(key) for party, key in self.roster.keys.items()}

    def with_identity_keys(self, keys: Mapping[PartyId, bytes]) -> Self:
        named = {party: base64.b64encode(keys[party]).decode() for party in self.parties}
        return msgspec.structs.replace(self, roster=msgspec.structs.replace(self.roster, keys=named))

    def rate_of(self, round_number: int) -> float:
        """The clients' rate in a round, from 1."""
        return self.train.optimiser.rate * self.rounds.rate_decay ** (round_number - 1)

    @property
    def inputs(self) -> int:
        """Columns of one row."""
        product = 1
        for size in self.model.input_shape:
            product *= size
        return product

    @property
    def outputs(self) -> int:
        """Width of the last layer: one score per class, two of a binary job, one of a regression."""
        return {"binary": 2, "multiclass": self.job.classes, "regression": 1}[self.job.task]

    @property
    def cohort(self) -> int:
        """Clients of one round."""
        return self.rounds.clients_per_round or len(self.roster.clients)

    @property
    def parts(self) -> tuple[str, ...]:
        return self.rounds.parts

    @property
    def waived(self) -> tuple[str, ...]:
        return self.rounds.allow

    @property
    def parties(self) -> tuple[PartyId, ...]:
        return (self.roster.aggregator, *self.roster.clients)

    def role_of(self, party: PartyId) -> RoundsRole:
        return RoundsRole.AGGREGATOR if party == self.roster.aggregator else RoundsRole.CLIENT

    @property
    def required_parties(self) -> frozenset[PartyId]:
        """A client may leave and come back."""
        return frozenset({self.roster.aggregator})

    @property
    def minimum_parties(self) -> int:
        return 1 + self.rounds.min_clients

    @property
    def join_timeout_seconds(self) -> float:
        return self.rounds.deadline_seconds

    @property
    def first_model(self) -> str:
        return self.model.first_model

    @property
    def checkpoints(self) -> int:
        """One for each round."""
        return self.rounds.rounds

    @property
    def disclosure(self) -> str:
        """The aggregator reads each client's update, or sums of them only."""
        return "sums" if self.rounds.secure_sum else "updates"

    def tables_of(self, party: PartyId) -> dict[str, TableUse]:
        data = self.data.get(party, RoundsData())
        named = {
            "rows": data.dataset,
            "test": data.test,
            "validation": data.validation,
            "public": data.public,
            "shared": data.shared,
            "first": data.first,
        }
        return {
            use: TableUse(
                dataset=dataset,
                columns=self.model.columns,
                every_column=not self.model.columns,
                label=self.model.label if use in {"rows", *LABELLED} else "",
                label_ignored=self.model.label,
                some_classes=True,
                width=self.inputs,
                leaves=use == "shared" and self.shared_data is not None and self.shared_data.rule == "share",
            )
            for use, dataset in named.items()
            if dataset
        }

    def steps_on(self, rows: int) -> int:
        """Of a client that is chosen in every round."""
        return max(1, rows // self.train.batch_rows) * self.rounds.rounds * self.rounds.local_epochs
