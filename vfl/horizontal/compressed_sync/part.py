"""Compressed-sync (US20260099761A1): parameters are codes of a few bits wherever they rest and wherever they travel.

    aggregator                                                      client
    v = w + e; C = Q(v) with least error; e = v - decode(C)         keeps C, and nothing else of the model
    C -> every chosen client                                        decompresses, trains, quantises
    reads each reply, adds it to the running sums                   Q(what training changed), unbiased -> aggregator

All of it is compressed_sync.md: R3.1 what rests, R3.4 the residual e, R3.5 the reply, R3.6 rounding, R3.9 errors. The
client's side is `compressed_training`.
"""

import json
from collections.abc import Mapping

import numpy as np
import torch

from vfl.codecs.parameters import Format, MessageError, Shape, expected_bytes, message_error
from vfl.horizontal.compressed_sync.client import CompressedTraining
from vfl.horizontal.compressed_sync.formats import (
    compressed_names,
    reply_format,
    sends_difference,
    stored_format,
    values_of,
    warnings_of,
)
from vfl.horizontal.compressed_sync.reply_bits import ReplyBits, Sizes
from vfl.horizontal.evaluation import SCORE, measured
from vfl.horizontal.hooks import AggregatorHooks, ClientHooks, Finished, Part, SharedModule, UpdateEncoding
from vfl.horizontal.rows import derived, examples_of
from vfl.horizontal.update_encoding import RAW, like, read, write
from vfl.models.networks import Parameters, load_parameters, to_arrays
from vfl.setup import Setup
from vfl.spec.rounds import RoundsSpec
from vfl.spec.rounds_settings import CompressedSync


class _Compression(AggregatorHooks):
    """What the aggregator remembers: what its last message dropped, what messages erred, and what rounds took."""

    def __init__(self, setup: Setup[RoundsSpec], terms: CompressedSync, saved: Mapping[str, torch.Tensor]) -> None:
        self._setup, self._spec, self._terms = setup, setup.spec, terms
        tests = setup.tables.get("test")
        self._tests = None if tests is None else examples_of(setup.spec, tests, "test", setup.scaling)
        numbers = json.loads(saved["numbers"].numpy().tobytes()) if saved else {}
        self._residual: Parameters = {
            name.removeprefix("residual/"): values for name, values in saved.items() if name.startswith("residual/")
        }
        self._doubtful: dict[str, float] = numbers.get("doubtful", {})
        """By round: measured over stated error of the broadcast, where that is worth a warning."""
        self._bits = ReplyBits(setup.spec, terms, numbers.get("bits", {}))
        self._reply_bytes: list[int] = []
        self._measures: dict[str, float] = {}
        self._error = MessageError(0.0, None, {})

    def encoding(self, shared: SharedModule, usual: UpdateEncoding) -> UpdateEncoding:
        self._shared_module = shared
        self._like: dict[str, Shape] = like(shared.module.state_dict())
        self._stored: Format = stored_format(self._terms, self._like)
        self._values = values_of(self._like, self._like)
        return UpdateEncoding(
            broadcast=self._broadcast,
            received=lambda body: read(body, self._like, self._stored),
            read=self._read,
            reply_bits=self._reply_bits,
        )

    def measures(self) -> dict[str, float]:
        """Of the round: errors, all-in bits per parameter each way, and how good the copy is that clients store."""
        replies = self._reply_bytes
        return self._measures | {"bits_per_parameter_up": 8 * sum(replies) / max(1, len(replies)) / self._values}

    def close_round(self, round_number: int, slowest_seconds: float, payload_bytes: int) -> None:
        self._bits.closed(slowest_seconds, payload_bytes)

    def saved(self) -> Parameters:
        numbers = {"doubtful": self._doubtful, "bits": self._bits.saved()}
        data = torch.from_numpy(np.frombuffer(json.dumps(numbers).encode(), np.uint8).copy())
        return {f"residual/{name}": values for name, values in self._residual.items()} | {"numbers": data}

    def finish(self, shared: SharedModule, parameters: Parameters) -> Finished:
        """The metrics are those of the published message."""
        errors = {f"stored_error/{name}": error for name, error in self._error.by_tensor.items()}
        sizes = {
            "parameter_bytes_stored": float(expected_bytes(self._like, self._stored)),
            "parameter_bytes_at_full_precision": float(expected_bytes(self._like, RAW)),
        }
        score = f"stored_{SCORE[self._spec.job.task]}"
        notices = warnings_of("the model sent in", self._stored, self._doubtful)
        measured_copy = {name: value for name, value in self._measures.items() if name == score}
        return Finished(parameters, measured_copy | sizes | errors, notices)

    def _broadcast(self, number: int, parameters: Parameters) -> bytes:
        tensors = {
            name: values + self._residual[name] if name in self._residual else values
            for name, values in parameters.items()
        }
        body = write(tensors, self._stored, derived(self._setup.joint_seed, "broadcast", number))
        decoded = read(body, self._like, self._stored)
        if self._terms.feedback:
            self._residual = {name: values - decoded[name] for name, values in tensors.items() if name in self._lossy()}
        self._reply_bytes = []
        self._error = message_error(to_arrays(tensors), to_arrays(decoded), self._stored)
        self._measures = self._measured(number, body, decoded)
        return body

    def _lossy(self) -> set[str]:
        """What comes back as something else than it was."""
        names = set() if self._stored.codec == "none" else set(compressed_names(self._like, self._stored))
        if self._stored.rest != "none":
            names |= {name for name, shape in self._like.items() if isinstance(shape, tuple)} - names
        return names

    def _measured(self, number: int, body: bytes, decoded: Parameters) -> dict[str, float]:
        if self._tests is None:
            return self._costs(number, body)
        module = self._shared_module.module
        before = {name: values.clone() for name, values in module.state_dict().items()}
        load_parameters(module, decoded)
        measures = {
            f"stored_{name}": value for name, value in measured(self._spec, self._shared_module, self._tests).items()
        }
        load_parameters(module, before)
        return measures | self._costs(number, body)

    def _costs(self, number: int, body: bytes) -> dict[str, float]:
        measures = {
            "stored_error": self._error.measured,
            "bits_per_parameter_down": 8 * len(body) / self._values,
            "reply_bits": float(self._reply_bits(number)),
        }
        if self._error.factor is not None:
            measures["stored_error_factor"] = self._error.factor
            if self._error.doubtful:
                self._doubtful[str(number)] = self._error.factor
        return measures

    def _read(self, body: bytes, received: Parameters, bits: int) -> Parameters:
        form = reply_format(self._terms, self._like, bits)
        trained = read(body, self._like, form)
        if sends_difference(self._terms):
            for name in compressed_names(self._like, form):
                trained[name] += received[name]
        self._reply_bytes.append(len(body))
        return trained

    def _reply_bits(self, number: int) -> int:
        one_bit = reply_format(self._terms, self._like, 1)
        codes = compressed_names(self._like, one_bit)
        sizes = Sizes(
            broadcast_bytes=expected_bytes(self._like, self._stored),
            compressed_values=values_of(self._like, codes),
            rest_bytes=expected_bytes({name: self._like[name] for name in self._like if name not in codes}, RAW),
        )
        return self._bits.of_round(number, sizes)


def _aggregator(setup: Setup[RoundsSpec], saved: Mapping[str, torch.Tensor]) -> AggregatorHooks:
    return _Compression(setup, _terms(setup), saved)


def _client(setup: Setup[RoundsSpec]) -> ClientHooks:
    return CompressedTraining(setup, _terms(setup))


def _terms(setup: Setup[RoundsSpec]) -> CompressedSync:
    terms = setup.spec.compressed_sync
    if terms is None:
        raise ValueError("the job does not compress parameters")
    return terms


def _remembers(spec: RoundsSpec) -> bool:
    """Whether a client remembers anything beside the codes it holds."""
    return spec.compressed_sync is not None and spec.compressed_sync.keep_optimiser


PART = Part("compressed_sync", _aggregator, _client, _remembers)
