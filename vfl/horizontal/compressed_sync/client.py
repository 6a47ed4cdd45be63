"""A client's side of compressed-sync: decompress, train, quantise (R3.1, R3.5 to R3.7, R3.9)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from vfl.codecs.parameters import Format, MessageError, Shape, bits_of, encode_each, error_of, readers
from vfl.errors import RemoteProtocolError
from vfl.horizontal.compressed_sync import momentum
from vfl.horizontal.compressed_sync.formats import (
    compressed_names,
    reply_format,
    sends_difference,
    stored_format,
    warnings_of,
)
from vfl.horizontal.compressed_sync.layerwise import PackedWeight, Packing, packed, restore
from vfl.horizontal.hooks import ClientEncoding, ClientHooks, Updated, Work
from vfl.horizontal.rows import derived
from vfl.horizontal.update_encoding import fit, fit_amended, like, read
from vfl.models.networks import Parameters, load_parameters
from vfl.models.optimisers import Descent, ModuleSteps
from vfl.notices import Notice
from vfl.setup import Setup
from vfl.spec.rounds import RoundsSpec
from vfl.spec.rounds_settings import CompressedSync
from vfl.spec.sections import Optimiser

Momenta: TypeAlias = dict[str, bytes]
"""Packed momentum by the name of the parameter that it moves."""

LAYER_CODECS = ("none", "half", "uniform")
"""Codecs a weight is held in while it is trained where the job names them; it is `block` otherwise."""


@dataclass(frozen=True)
class Trained:
    """What training made of the model; each tensor is computed when it is asked for."""

    values: Mapping[str, Callable[[], torch.Tensor]]
    changes: Mapping[str, Callable[[], torch.Tensor]]
    """Of compressed tensors, since they were received."""
    momenta: Momenta
    loss: float


class CompressedTraining(ClientHooks):
    def __init__(self, setup: Setup[RoundsSpec], terms: CompressedSync) -> None:
        self._terms = terms
        saved = setup.saved if terms.keep_optimiser else b""
        self._momenta: Momenta = msgspec.msgpack.decode(saved, type=Momenta) if saved else {}
        self._doubtful: dict[str, float] = {}
        self._notices: tuple[Notice, ...] = ()

    def encoding(self, usual: ClientEncoding) -> ClientEncoding:
        return ClientEncoding(self._update, self._published)

    def _update(self, body: bytes, work: Work) -> Updated:
        """Raises InvalidBody where what came is not what was agreed, RemoteProtocolError for other bits."""
        terms = self._terms
        agreed = range(1, 9) if terms.bits_from != "terms" else (terms.reply_bits,)
        if work.reply_bits not in agreed:
            raise RemoteProtocolError(
                f"the task of round {work.round} asks for replies of {work.reply_bits} bits, which was not agreed"
            )
        module = work.build()
        shapes = like(dict(module.state_dict()))
        train = train_in_layers if terms.storage == "layers" else train_whole
        trained = train(module, body, stored_format(terms, shapes), work, terms, self._momenta)
        if terms.keep_optimiser:
            self._momenta = trained.momenta
        form = reply_format(terms, shapes, work.reply_bits)
        reply, error = _encoded(trained, shapes, form, terms, work)
        measures = {"reply_error": error.measured}
        if error.factor is not None:
            measures["reply_error_factor"] = error.factor
            if error.doubtful:
                self._doubtful[str(work.round)] = error.factor
                self._notices = warnings_of("the reply to", form, self._doubtful)
        return Updated(reply, trained.loss, measures)

    def _published(self, body: bytes, shapes: dict[str, Shape]) -> Parameters:
        return read(body, shapes, stored_format(self._terms, shapes))

    def memory(self) -> bytes | None:
        """Momentum that is kept (R3.7), beside the codes as they were received (R3.1, R3.4)."""
        return msgspec.msgpack.encode(self._momenta) if self._terms.keep_optimiser else None

    def notices(self) -> tuple[Notice, ...]:
        return self._notices


def train_whole(
    module: nn.Sequential, body: bytes, stored: Format, work: Work, terms: CompressedSync, momenta: Momenta
) -> Trained:
    """At full precision, which lives no longer than this update (R3.1, storage "model")."""
    received = read(body, like(dict(module.state_dict())), stored)
    load_parameters(module, received)
    steps = _steps(module, work, momenta)
    with _products(terms):
        loss = fit_amended(module, received, work, steps)
    module.zero_grad()
    values: Parameters = dict(module.state_dict())
    return Trained(
        {name: partial(values.__getitem__, name) for name in values},
        {name: partial(torch.sub, values[name], received[name]) for name in values},
        _packed_momenta(steps.descent, work) if terms.keep_optimiser else {},
        loss,
    )


def train_in_layers(
    module: nn.Sequential,
    body: bytes,
    stored: Format,
    work: Work,
    terms: CompressedSync,
    momenta: Momenta,
    on_step: Callable[[int], None] | None = None,
) -> Trained:
    """On codes, of which one layer at a time is decompressed (R3.1, storage "layers")."""
    shapes = like(dict(module.state_dict()))
    reading = {name: partial(_tensor, read_one) for name, read_one in readers(body, shapes, stored).items()}
    learnt = {name for name, parameter in module.named_parameters() if parameter.requires_grad}
    packing = Packing(
        codec=stored.codec if stored.codec in LAYER_CODECS else "block",
        stochastic=terms.rounding == "stochastic",
        optimiser=_settings(work),
        keep_optimiser=terms.keep_optimiser,
        proximal=work.spec.train.proximal,
        products=PRODUCTS[terms.precision],
    )
    weights = {
        name: PackedWeight(
            reading[name],
            bits_of(name, shapes[name], stored),
            packing,
            derived(work.seed, name),
            momenta.get(name, b""),
        )
        for name in compressed_names(shapes, stored)
        if name in learnt
    }
    if work.augments:  # a part that looks at what was received gets all of it, before the first step
        load_parameters(module, {name: reading[name]() for name in reading})
    trained, examples = work.augmented(module)
    with packed(module, weights, packing.products), _products(terms):
        rest = {name: reading[name]() for name in shapes if name not in weights}
        load_parameters(module, rest)
        steps = _steps(module, work, momenta)
        loss = fit(trained, examples, rest, work, steps=steps, on_step=on_step)
    momenta_after = _packed_momenta(steps.descent, work) if terms.keep_optimiser else {}
    momenta_after |= {name: weight.momentum for name, weight in weights.items() if weight.momentum}
    if work.amends:  # and so does one that looks at what was trained, after the last step
        restore(module, weights)
        work.amend(module, {name: reading[name]() for name in reading})
        weights = {}
    module.zero_grad()
    values: Parameters = dict(module.state_dict())
    return Trained(
        {name: weights[name].value if name in weights else partial(values.__getitem__, name) for name in shapes},
        {name: partial(_change, values, reading, weights, name) for name in shapes},
        momenta_after,
        loss,
    )


PRODUCTS = {"fp32": torch.float32, "bf16": torch.bfloat16}


def _products(terms: CompressedSync) -> torch.autocast:
    """Casts of weights are not kept: within one task the weights move."""
    bf16 = terms.precision == "bf16"
    return torch.autocast("cpu", torch.bfloat16, enabled=bf16, cache_enabled=False)


def _settings(work: Work) -> Optimiser:
    return msgspec.structs.replace(work.spec.train.optimiser, rate=work.rate)


def _steps(module: nn.Sequential, work: Work, momenta: Momenta) -> ModuleSteps:
    """Over the parameters the module has, with the momentum they had."""
    trained = {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}
    descent = Descent(_settings(work))
    for name, parameter in trained.items():
        if name in momenta:
            descent.momenta[name] = momentum.unpack(momenta[name], parameter.shape)
    return ModuleSteps(trained, descent)


def _packed_momenta(descent: Descent, work: Work) -> Momenta:
    return {
        name: momentum.pack(values, derived(work.seed, "momentum", name)) for name, values in descent.momenta.items()
    }


def _tensor(read_one: Callable[[], NDArray[Any]]) -> torch.Tensor:
    return torch.from_numpy(np.array(read_one()))


def _change(
    values: Parameters,
    reading: Mapping[str, Callable[[], torch.Tensor]],
    weights: Mapping[str, PackedWeight],
    name: str,
) -> torch.Tensor:
    return (weights[name].value() if name in weights else values[name]) - reading[name]()


def _encoded(
    trained: Trained, shapes: Mapping[str, Shape], form: Format, terms: CompressedSync, work: Work
) -> tuple[bytes, MessageError]:
    """The reply's body, one tensor after the other, and what compression cost it (R3.5, R3.9).

    Only what is compressed is a difference: the rest arrives as it is.
    """
    codes = compressed_names(shapes, form)
    tensors = {
        name: trained.changes[name] if sends_difference(terms) and name in codes else trained.values[name]
        for name in shapes
    }
    body = encode_each((tensors[name]().numpy() for name in shapes), shapes, form, derived(work.seed, "reply"))
    decoded = readers(body, shapes, form)
    return body, error_of(((name, tensors[name]().numpy(), decoded[name]()) for name in codes), shapes, form)
