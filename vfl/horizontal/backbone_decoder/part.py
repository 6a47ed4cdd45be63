"""Backbone-decoder: clients hold a second model's backbone and train its decoder alone (US20260087416A1).

aggregator                                              client k
derive    second model from the first (R1.1, R1.2)
dispatch  backbone, unless k's last message names its
          digest (R1.3); decoder every round            receive  rebuild and keep the frozen backbone
                                                        prepare  embed own rows, once (R1.4)
                                                        train    the decoder on them; amend it
adjust    de-bias the mean
finish    carry back into the first model (R1.6)
"""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cached_property

import msgspec
import numpy as np
import torch
from torch import nn

from vfl.codecs import InvalidBody
from vfl.errors import RemoteProtocolError
from vfl.horizontal.backbone_decoder import second_backbone as second
from vfl.horizontal.backbone_decoder.carry_back import Decoders, Rows, carried, rules_of
from vfl.horizontal.backbone_decoder.derivation import SecondModel, derive
from vfl.horizontal.backbone_decoder.report import (
    Scores,
    bytes_of_training,
    carried_notice,
    count_parameters,
    kept_parameters,
    multiply_adds,
    sizes_notice,
)
from vfl.horizontal.evaluation import SCORE, measured
from vfl.horizontal.hooks import AggregatorHooks, ClientHooks, Examples, Finished, Part, SharedModule
from vfl.horizontal.network import network_of
from vfl.horizontal.rows import derived, examples_of
from vfl.horizontal.update_encoding import digest, write
from vfl.messages import Published, RoundTask
from vfl.models.local_training import features, one_thread
from vfl.models.networks import Parameters, load_parameters, parameters_of
from vfl.models.split import ModelSplit, cut
from vfl.setup import Setup
from vfl.spec.rounds import RoundsSpec
from vfl.spec.sections import PartyId

WEIGHT, OFFSET = "head.weight", "head.bias"
"""Of the last layer, which has one row per class."""
LABELLED = ("test", "validation")


class _Embedding:
    """Features of the rows it was last asked for: the same rows are embedded once (R1.4)."""

    def __init__(self, backbone: nn.Sequential) -> None:
        self._backbone = backbone
        self._rows: torch.Tensor | None = None
        self._features = torch.empty(0)

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        if rows is not self._rows:
            self._rows, self._features = rows, features(self._backbone, rows)
        return self._features


@dataclass(frozen=True)
class _CarriedBack:
    rule: str
    """Empty: no rule does better on the validation rows, and the old decoder stays."""
    decoder: Parameters
    decoders: dict[str, Parameters]
    """By every rule that was tried."""


class _Deriving(AggregatorHooks):
    """The aggregator's side: both models, and what it may say of them."""

    def __init__(self, setup: Setup[RoundsSpec], saved: Mapping[str, torch.Tensor]) -> None:
        self._setup, self._spec, self._saved = setup, setup.spec, saved
        self._terms = second.terms_of(setup.spec)
        self._seed = derived(setup.joint_seed, "backbone-decoder")
        self._measures: dict[str, float] = {}

    def derive(self, shared: SharedModule) -> SharedModule:
        """What travels is the second decoder, behind the backbone as clients rebuild it."""
        saved, module = dict(self._saved), shared.module
        if saved:
            module = network_of(self._spec, None)
            load_parameters(module, {name: saved[f"first/{name}"] for name in parameters_of(module)})
        self._first: ModelSplit = cut(module, self._terms.cut)
        made = self._taken_back(saved) if saved else derive(self._spec, self._first, self._public, self._seed)
        self._body, self._alignment_error, decoder = made.body, made.alignment_error, made.decoder
        self._digest, self._started = digest(self._body), parameters_of(decoder)
        self._backbone = second.rebuild(self._spec, self._body)
        self._second = SharedModule(deepcopy(decoder), _Embedding(self._backbone))
        return replace(self._second, module=decoder)

    def saved(self) -> Parameters:
        """Both models as they were before round 1; all else follows from them, or travels."""
        body = torch.from_numpy(np.frombuffer(self._body, np.uint8).copy())
        error = [] if self._alignment_error is None else [self._alignment_error]
        first = {f"first/{name}": values for name, values in parameters_of(self._first.whole()).items()}
        decoder = {f"decoder/{name}": values for name, values in self._started.items()}
        return first | decoder | {"backbone": body, "alignment_error": torch.tensor(error, dtype=torch.float64)}

    def _taken_back(self, saved: Parameters) -> SecondModel:
        decoder = second.blank_decoder(self._spec, deepcopy(self._first.whole()))
        load_parameters(decoder, {name: saved[f"decoder/{name}"] for name in parameters_of(decoder)})
        error = saved["alignment_error"].tolist()
        return SecondModel(saved["backbone"].numpy().tobytes(), decoder, error[0] if error else None)

    # Every round

    def dispatch(self, client: PartyId, backbone_digest: bytes, task: RoundTask) -> RoundTask:
        return msgspec.structs.replace(task, backbone=self._owed(backbone_digest), backbone_digest=self._digest)

    def publish(self, backbone_digest: bytes, message: Published) -> Published:
        return msgspec.structs.replace(message, backbone=self._owed(backbone_digest), backbone_digest=self._digest)

    def adjust(self, round_number: int, shared: SharedModule, before: Parameters, mean: Parameters) -> Parameters:
        after = mean
        if self._terms.debias:
            after = after | {WEIGHT: without_class_mean(after[WEIGHT])}
        if self._terms.carry_each_round and "test" in self._embedded:
            decoder = self._carry_back(self._own(after)).decoder
            self._measures = {"first_model_accuracy": self._measured("test", decoder)[0]}
        return after

    def measures(self) -> dict[str, float]:
        return self._measures

    def _own(self, parameters: Parameters) -> Parameters:
        """The decoder's, without statistics that another part keeps beside them."""
        return {name: parameters[name] for name in self._started}

    def _owed(self, backbone_digest: bytes) -> bytes:
        return b"" if backbone_digest == self._digest else self._body

    # The end

    def finish(self, shared: SharedModule, parameters: Parameters) -> Finished:
        """The first model with the decoder it is given back, and, where there are test rows, the three-way report."""
        trained = self._own(parameters)
        carried_back, sizes = self._carry_back(trained), self._sizes()
        scores = self._scores(trained, carried_back) if "test" in self._embedded else None
        return Finished(
            parameters=parameters_of(self._first.whole()) | carried_back.decoder,
            metrics=sizes | (scores.metrics() if scores is not None else {}),
            notices=(
                sizes_notice(self._terms.derive, sizes),
                *([scores.notice()] if scores is not None else []),
                carried_notice(carried_back.rule),
            ),
        )

    def _scores(self, trained: Parameters, carried_back: _CarriedBack) -> Scores:
        tests = examples_of(self._spec, self._setup.tables["test"], "test", self._setup.scaling)
        second_model = []
        for decoder in (self._started, trained):
            load_parameters(self._second.module, decoder)
            second_model.append(measured(self._spec, self._second, tests)[SCORE[self._spec.job.task]])
        return Scores(
            first_before=self._measured("test", parameters_of(self._first.decoder))[0],
            second_before=second_model[0],
            second_after=second_model[1],
            first_after=self._measured("test", carried_back.decoder)[0],
            by_rule={rule: self._measured("test", decoder)[0] for rule, decoder in carried_back.decoders.items()},
        )

    def _carry_back(self, trained: Parameters) -> _CarriedBack:
        old = parameters_of(self._first.decoder)
        compared = self._terms.carry_back == "best" and "validation" in self._embedded
        decoders = carried(
            rules_of(self._terms, public=self._public is not None, validation=compared),
            self._terms,
            Decoders(
                old,
                self._started,
                trained,
                lambda: deepcopy(self._first.decoder),
                lambda: deepcopy(self._second.module),
            ),
            self._public_features,
            self._seed,
            regression=self._spec.job.task == "regression",
        )
        rule = next(iter(decoders))
        if compared:
            reached = {name: self._measured("validation", decoder) for name, decoder in decoders.items()}
            rule = max(reached, key=lambda name: reached[name])
            if reached[rule][0] <= self._measured("validation", old)[0]:
                return _CarriedBack("", old, decoders)
        return _CarriedBack(rule, decoders[rule], decoders)

    def _measured(self, use: str, decoder: Parameters) -> tuple[float, float]:
        """Score and negative loss of the first model with this decoder: the larger pair is the better one."""
        module = deepcopy(self._first.decoder)
        load_parameters(module, decoder)
        scores = measured(self._spec, SharedModule(module), self._embedded[use])
        return scores[SCORE[self._spec.job.task]], -scores["loss"]

    @cached_property
    def _embedded(self) -> dict[str, Examples]:
        """Labelled rows as the first backbone embeds them."""
        examples = {
            use: examples_of(self._spec, table, use, self._setup.scaling)
            for use, table in self._setup.tables.items()
            if use in LABELLED
        }
        return {
            use: replace(rows, inputs=features(self._first.backbone, rows.inputs)) for use, rows in examples.items()
        }

    @cached_property
    def _public(self) -> torch.Tensor | None:
        table = self._setup.tables.get("public")
        return None if table is None else examples_of(self._spec, table, "public", self._setup.scaling).inputs

    @cached_property
    def _public_features(self) -> Rows | None:
        if self._public is None:
            return None
        return Rows(features(self._first.backbone, self._public), features(self._backbone, self._public))

    def _sizes(self) -> dict[str, float]:
        """R1.1: both backbones; the first one's alignment error is 0 by definition."""
        shape, first = self._spec.model.input_shape, self._first.backbone
        sizes = {
            "first_backbone_parameters": float(count_parameters(first)),
            "second_backbone_parameters": float(kept_parameters(self._terms, self._backbone)),
            "first_backbone_bytes": float(len(write(parameters_of(first)))),
            "second_backbone_bytes": float(len(self._body)),
            "first_backbone_multiply_adds": float(multiply_adds(first, shape)),
            "second_backbone_multiply_adds": float(multiply_adds(self._backbone, shape)),
            "decoder_parameters": float(count_parameters(self._second.module)),
            "client_bytes": float(bytes_of_training(self._second.module, self._backbone)),
            "whole_model_bytes": float(bytes_of_training(self._first.whole())),
        }
        if self._alignment_error is not None:
            sizes |= {
                "first_backbone_alignment_error": 0.0,
                "second_backbone_alignment_error": self._alignment_error,
            }
        return sizes


def _aggregator(setup: Setup[RoundsSpec], saved: Mapping[str, torch.Tensor]) -> AggregatorHooks:
    return _Deriving(setup, saved)


class _Holding(ClientHooks):
    """A client's side: the backbone it was sent, and its rows behind it."""

    def __init__(self, setup: Setup[RoundsSpec]) -> None:
        self._spec, self._terms = setup.spec, second.terms_of(setup.spec)
        self.amends = self._terms.preserve or self._terms.debias
        self._digest = b""
        self._backbone = nn.Sequential()
        self._embedding = _Embedding(self._backbone)
        labels = setup.table.labels if self._terms.preserve else None
        classes = set() if labels is None else {int(label) for label in np.unique(labels)}
        self._absent = [label for label in range(setup.spec.outputs) if label not in classes]

    def receive(self, message: RoundTask | Published) -> bool:
        """Take a backbone in. False: the message needs one that is not here. Raises RemoteProtocolError."""
        if message.backbone:
            if digest(message.backbone) != message.backbone_digest:
                raise RemoteProtocolError("the backbone does not have the digest that its message names")
            try:
                self._backbone = second.rebuild(self._spec, message.backbone)
            except InvalidBody as error:
                raise RemoteProtocolError(f"the backbone cannot be read: {error}") from error
            self._digest, self._embedding = message.backbone_digest, _Embedding(self._backbone)
        return bool(self._digest) and self._digest == message.backbone_digest

    def backbone_digest(self) -> bytes:
        return self._digest

    def trained(self, module: nn.Sequential) -> nn.Sequential:
        return second.blank_decoder(self._spec, module)

    def embed(self, rows: torch.Tensor) -> torch.Tensor:
        """Rows that are measured, not trained on: not kept."""
        if not self._digest:
            raise RemoteProtocolError("the aggregator asks to evaluate a decoder whose backbone it has not sent")
        return features(self._backbone, rows)

    def prepare(self, task: RoundTask, rows: Examples) -> Examples:
        return replace(rows, inputs=self._embedding(rows.inputs))

    def amend(self, module: nn.Sequential, received: Parameters) -> None:
        """Keep what was received for classes without rows here, then take the mean over classes off (2.5)."""
        with torch.no_grad():
            if self._terms.preserve:
                for name in (WEIGHT, OFFSET):
                    module.get_parameter(name)[self._absent] = received[name][self._absent]
            if self._terms.debias:
                weight = module.get_parameter(WEIGHT)
                weight.copy_(without_class_mean(weight))

    def complete(self, parameters: Parameters) -> Parameters:
        """The whole second model: what a client can predict with."""
        return parameters_of(self._backbone) | parameters


@one_thread()
def without_class_mean(weight: torch.Tensor) -> torch.Tensor:
    return weight - weight.mean(dim=0)


def _client(setup: Setup[RoundsSpec]) -> ClientHooks:
    return _Holding(setup)


PART = Part("backbone_decoder", _aggregator, _client)
