"""A client's side of model-inversion: classes evened out with rows found in what it receives (R2.2)."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from functools import partial

import msgspec
import torch
from safetensors.torch import load, save
from torch import nn

from vfl.horizontal.hooks import ClientHooks, Examples
from vfl.horizontal.model_inversion.balance import drawn, entropy, missing
from vfl.horizontal.model_inversion.inversion import Inverted, Space, invert
from vfl.horizontal.model_inversion.leak_report import leak_report
from vfl.horizontal.model_inversion.mid_network_inputs import MidNetworkInputs, marked
from vfl.horizontal.model_inversion.search import FEWEST_KEPT, Inverter, every_class, labels_of
from vfl.horizontal.rows import derived, examples_of
from vfl.models.local_training import features, train
from vfl.models.split import cut
from vfl.notices import Notice
from vfl.schedule import permutation
from vfl.setup import Setup
from vfl.spec.rounds import RoundsSpec


class _Pool(msgspec.Struct, frozen=True):
    """What a client found, as it remembers it."""

    round: int = 0
    """In which it was found; 0 for never."""
    share_kept: float = 0.0
    rows: bytes = b""
    """safetensors: inputs and labels of the rows that passed the filter."""
    skipped: tuple[int, ...] = ()
    """Rounds in which too few had passed."""

    def inverted(self) -> Inverted:
        tensors = load(self.rows)
        return Inverted(tensors["inputs"], tensors["labels"], torch.ones(len(tensors["labels"]), dtype=torch.bool))


class Augmentation(ClientHooks):
    """A client's side."""

    augments = True

    def __init__(self, setup: Setup[RoundsSpec], inverter: Inverter) -> None:
        self._spec, self._terms, self._inverter = setup.spec, inverter.terms, inverter
        self._seed = derived(setup.private_seed, setup.me, "model-inversion")
        self._pool = msgspec.msgpack.decode(setup.saved, type=_Pool) if setup.saved else _Pool()
        self._own, self._held_out = Examples(torch.zeros(0)), Examples(torch.zeros(0))
        if "test" in setup.tables and setup.spec.backbone_decoder is None:
            self._held_out = examples_of(setup.spec, setup.tables["test"], "test", setup.scaling)
        self._notices: tuple[Notice, ...] = ()
        self._measures: dict[str, float] = {}

    def augment(self, round_number: int, module: nn.Sequential, rows: Examples) -> tuple[nn.Sequential, Examples]:
        """Own rows and, beside them, what is missing of each class (R2.2)."""
        own = self._trained_on(rows)
        if self._terms.where == "aggregator":
            return module, own
        counts = self._counts(labels_of(own))
        rows_missing, space = missing(counts, self._terms), self._inverter.space(module, own.inputs)
        self._measures = {
            "inverted_rows": 0.0,
            "inverted_kept": 0.0,
            "entropy_before": entropy(counts),
            "entropy_after": entropy(counts),
        }
        if round_number < self._terms.warm_up or not any(rows_missing):
            return module, own
        usable = self._refreshed(round_number, module, space, rows_missing)
        self._measures["inverted_kept"] = self._pool.share_kept
        if not usable:
            return module, own
        inputs, labels = drawn(self._pool.inverted(), rows_missing, space, derived(self._seed, "draw", round_number))
        both = [count + more for count, more in zip(counts, self._counts(labels), strict=True)]
        self._measures |= {"inverted_rows": float(len(labels)), "entropy_after": entropy(both)}
        return self._joined(module, inputs, labels, space)

    def _counts(self, labels: torch.Tensor) -> list[int]:
        counts: list[int] = torch.bincount(labels, minlength=self._spec.outputs).tolist()
        return counts

    def _refreshed(self, number: int, module: nn.Sequential, space: Space, rows_missing: list[int]) -> bool:
        """A pool that is young enough (R2.5); False where too little passes the filter (3.5.6).

        Rows of all classes are sought, as the model's statistics are of all, and those of the wanted ones are kept.
        """
        if not self._pool.round or number - self._pool.round >= self._terms.refresh:
            labels = torch.arange(len(rows_missing)).repeat_interleave(self._terms.rows_per_class)
            part, seed = self._inverter.inverted_part(module), derived(self._seed, "inversion", number)
            inverted = self._inverter.find(part, labels, space, self._inverter.at_client(), seed, None)
            is_missing = torch.tensor(rows_missing)[inverted.labels] > 0
            inverted = Inverted(*(values[is_missing] for values in inverted))
            rows_kept, skipped = inverted.filtered(), self._pool.skipped
            if inverted.confident_share < FEWEST_KEPT:
                self._pool = _Pool(share_kept=inverted.confident_share, skipped=(*skipped, number))
                return False
            rows = save({"inputs": rows_kept.inputs.contiguous(), "labels": rows_kept.labels.contiguous()})
            self._pool = _Pool(number, inverted.confident_share, rows, skipped)
        return True

    def _joined(
        self, module: nn.Sequential, inputs: torch.Tensor, labels: torch.Tensor, space: Space
    ) -> tuple[nn.Sequential, Examples]:
        own, trained, behind = self._own, module, self._inverter.behind
        if behind:
            trained = MidNetworkInputs(module, behind, tuple(own.inputs.shape[1:]), space.shape)
            both = marked(own.inputs, inputs)
        else:
            both = torch.cat([own.inputs, inputs])
        weights = torch.ones(len(both))
        weights[own.rows :] = self._terms.weight
        return trained, Examples(both, torch.cat([labels_of(own), labels]), weights)

    def _trained_on(self, rows: Examples) -> Examples:
        """All but those that are held out, always the same."""
        order = torch.from_numpy(permutation(self._seed, "leak rows", rows.rows))
        out = round(self._terms.leak_rows * rows.rows)
        if not out:
            self._own = rows
            return rows
        (self._own, self._held_out) = (
            replace(rows, inputs=rows.inputs[part], labels=labels_of(rows)[part]) for part in (order[out:], order[:out])
        )
        return self._own

    def observe(self, module: nn.Sequential) -> nn.Sequential:
        return self._inverter.observed(module)

    def memory(self) -> bytes | None:
        return msgspec.msgpack.encode(self._pool)

    def measures(self) -> dict[str, float]:
        return self._measures

    def notices(self) -> tuple[Notice, ...]:
        if not self._pool.skipped:
            return self._notices
        rounds = ", ".join(map(str, self._pool.skipped))
        text = f"model-inversion did nothing in rounds {rounds}: the filter kept under {FEWEST_KEPT:.0%}"
        return (Notice("warning", "inversion_skipped", text), *self._notices)

    def conclude(self, published: Callable[[], nn.Sequential]) -> dict[str, float]:
        """The leak meter: what was found here, what another round's reply would give away, and membership (R2.7)."""
        if not self._terms.leak_meter or not self._own.rows:
            return {}
        model = published()
        alone, inverted_rows = self._trained(model, self._own), dict[str, torch.Tensor]()
        models = {"published": model, "own_rows": alone}
        space, behind = self._inverter.space(model, self._own.inputs), self._inverter.behind
        if self._pool.rows:
            pool = self._pool.inverted()
            inverted_rows["pool"] = pool.inputs
            rows_missing = missing(self._counts(labels_of(self._own)), self._terms)
            inputs, labels = drawn(pool, rows_missing, space, self._seed)
            models["with_inverted_rows"] = self._trained(*self._joined(deepcopy(model), inputs, labels, space))
        if self._terms.where != "clients":
            part, labels = self._inverter.inverted_part(alone), every_class(self._terms.server_rows, self._spec.outputs)
            search = self._inverter.at_aggregator()
            inverted_rows["reply"] = invert(part, labels, space, search, self._seed).filtered().inputs
        backbone = cut(model, behind).backbone if behind else nn.Sequential()
        report = leak_report(self._own, self._held_out, inverted_rows, models, partial(features, backbone))
        self._notices = report.notices
        return report.metrics

    def _trained(self, module: nn.Sequential, rows: Examples) -> nn.Sequential:
        """A copy after another round on these rows."""
        copy = deepcopy(module)
        train(
            copy,
            rows.inputs,
            labels_of(rows),
            epochs=self._spec.rounds.local_epochs,
            batch_rows=self._spec.train.batch_rows,
            optimiser=self._spec.train.optimiser,
            seed=self._seed,
            regression=False,
            weights=rows.weights,
        )
        return copy
