"""What the aggregator keeps while rounds run: the model that travels, the parts' memory, and the numbers so far."""

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import astuple, dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load

from vfl.codecs import InvalidBody
from vfl.errors import RemoteProtocolError
from vfl.horizontal.evaluation import SCORE, intervals_of, measured
from vfl.horizontal.hooks import AggregatorHooks, Finished, SharedModule, SumQuery
from vfl.horizontal.input_scaling import agreed, message_of
from vfl.horizontal.mean import Stepper, WeightedMean
from vfl.horizontal.network import first_model, network_of, save_parameters
from vfl.horizontal.parts import parts_of
from vfl.horizontal.rows import clipped, examples_of
from vfl.horizontal.secure_statistics import TESTED
from vfl.horizontal.standstill import on_test_rows
from vfl.horizontal.stopping import reason_to_stop
from vfl.horizontal.summed_updates import ClippingBounds
from vfl.horizontal.update_encoding import digest, raw_encoding, write
from vfl.message import Message
from vfl.messages import EvaluationTask, Published, RoundReply, RoundTask
from vfl.models.held_out import few_rows, of_test_rows
from vfl.models.intervals import ends, of_share
from vfl.models.networks import (
    Parameters,
    load_parameters,
    norm_statistics_names,
    parameters_of,
)
from vfl.notices import Notice
from vfl.reports import Outcome, RoundDone
from vfl.schedule import batch_sizes
from vfl.setup import Setup
from vfl.spec.rounds import RoundsSpec
from vfl.spec.sections import PartyId

MOST_ROWS = 1 << 31
LARGEST = 1e9
"""Of a reply's numbers: beyond it squares and sums of them leave what a float32 holds."""


class Aggregation:
    """The aggregator's side without its messages. Continues where `setup.saved` was given out."""

    def __init__(self, setup: Setup[RoundsSpec], counted: "Counted | None" = None) -> None:
        self._setup, self.spec, self.seed = setup, setup.spec, setup.joint_seed
        saved = load(setup.saved) if setup.saved else {}
        tests = setup.tables.get("test")
        self._tests = None if tests is None else examples_of(self.spec, tests, "test", setup.scaling)
        self._hooks: dict[str, AggregatorHooks] = {
            part.name: part.aggregator(setup, _under(f"part/{part.name}/", saved)) for part in parts_of(self.spec)
        }
        self.shared_module: SharedModule = SharedModule(
            first_model(setup) if not saved else network_of(self.spec, bytes(32))
        )
        for hooks in self._hooks.values():
            self.shared_module = hooks.derive(self.shared_module)
        for hooks in self._hooks.values():
            self.shared_module = replace(self.shared_module, module=hooks.observe(self.shared_module.module))
        self.parameters = parameters_of(self.shared_module.module)
        if saved:  # safetensors gives tensors out in another order than the model's
            self.parameters = {name: saved[f"model/{name}"] for name in self.parameters}
        self.encoding = raw_encoding(self.parameters)
        for hooks in self._hooks.values():
            self.encoding = hooks.encoding(self.shared_module, self.encoding)
        trained = [name for name, _ in self.shared_module.module.named_parameters()]
        self._stepper = Stepper(self.spec.rounds.server_optimiser, trained, _under("optimiser/", saved))
        numbers: dict[str, Any] = json.loads(saved["numbers"].numpy().tobytes()) if saved else {}
        self.round: int = numbers.get("round", 0)
        self.series: dict[str, list[float]] = numbers.get("series", {})
        self.rows_of: dict[PartyId, int] = numbers.get("rows_of", {})
        """What each client first said it has: it may not say more later to weigh more."""
        self.stopped: str = numbers.get("stopped", "")
        self.counted = counted or Counted(numbers.get("sums", 0))
        bounds = numbers.get("reach")
        self.bounds: ClippingBounds | None = ClippingBounds(*bounds) if bounds else None
        """Of secure sums of updates; measured by the round before."""

    # A round

    def task(self, body: bytes, reply_bits: int) -> RoundTask:
        rounds = self.spec.rounds
        return RoundTask(
            round=self.round + 1,
            model_digest=digest(body),
            parameters=body,
            rate=self.spec.rate_of(self.round + 1),
            epochs=rounds.local_epochs,
            reply_bits=reply_bits,
        )

    def task_for(self, client: PartyId, backbone_digest: bytes, task: RoundTask) -> RoundTask:
        for hooks in self._hooks.values():
            task = hooks.dispatch(client, backbone_digest, task)
        return task

    def required_first(self) -> Iterator[Message]:
        """Without which a client can read neither its rows nor the model."""
        if self._setup.scaling is not None and self.spec.pools_columns:
            yield message_of(self._setup.scaling)

    def handed_out(self) -> Iterator[Message]:
        """What a client that has just come gets before its first task."""
        yield from self.required_first()
        for hooks in self._hooks.values():
            yield from hooks.handed_out()

    def queries(self, round_number: int) -> Iterator[tuple[SumQuery, Callable[[int, NDArray[np.uint64]], None]]]:
        """What the clients are asked for, and whom the sum is given to."""
        for hooks in self._hooks.values():
            query = hooks.query(round_number)
            if query is not None:
                yield query, hooks.on_sum

    def mean(self) -> WeightedMean:
        keep = any(hooks.keeps_replies for hooks in self._hooks.values())
        return WeightedMean(norm_statistics_names(self.parameters), keep=keep)

    def trained_by(self, client: PartyId, reply: RoundReply, received: Parameters, reply_bits: int) -> Parameters:
        """A reply's parameters. Raises RemoteProtocolError, naming the client, for anything that must not enter."""
        if not 0 < reply.rows < MOST_ROWS or not math.isfinite(reply.loss):
            raise RemoteProtocolError(
                f"{client} replied with {reply.rows} rows and a loss of {reply.loss}, which no training gives"
            )
        if self.rows_of.setdefault(client, reply.rows) != reply.rows:
            raise RemoteProtocolError(f"{client} had {self.rows_of[client]} rows before and now says {reply.rows}")
        try:
            trained = self.encoding.read(reply.parameters, received, reply_bits)
        except InvalidBody as error:
            raise RemoteProtocolError(f"{client}'s parameters cannot be read: {error}") from error
        if not all(bool(torch.isfinite(values).all()) for values in trained.values() if values.is_floating_point()):
            raise RemoteProtocolError(f"{client} replied with numbers that are not finite")
        if any(bool((trained[pooled.variance] < 0).any()) for pooled in norm_statistics_names(trained)):
            raise RemoteProtocolError(f"{client} replied with a variance below zero")
        limit = self.spec.rounds.reply_norm_limit
        if limit and (norm := distance(trained, received)) > limit:
            raise RemoteProtocolError(
                f"{client}'s reply lies {norm:.3g} from the model it was sent, and rounds.reply_norm_limit is {limit:g}"
            )
        if any(bool((values.abs() > LARGEST).any()) for values in trained.values() if values.is_floating_point()):
            raise RemoteProtocolError(f"{client} replied with a number beyond {LARGEST:g}")
        return trained

    def combine(self, mean: WeightedMean) -> None:
        """The mean, adjusted, becomes the next parameters."""
        self.round += 1
        for hooks in self._hooks.values():
            hooks.enter(self.round, self.shared_module, self.parameters, mean)
        before, after = self.parameters, self._stepper.step(self.parameters, mean.mean())
        for hooks in self._hooks.values():
            after = hooks.adjust(self.round, self.shared_module, before, after)
        self.parameters = after
        load_parameters(self.shared_module.module, after)

    def close_round(self, mean: WeightedMean, metrics: dict[str, float], slowest_seconds: float) -> RoundDone:
        """The round's report; `found` is the score and loss of its model."""
        bytes_sent, received = self.counted.since_last_round()
        measures = metrics | {
            "replies": float(mean.replies),
            "rows": float(mean.rows),
            "bytes_sent": float(bytes_sent),
            "bytes_received": float(received),
        }
        for hooks in self._hooks.values():
            hooks.close_round(self.round, slowest_seconds, bytes_sent + received)
            measures |= hooks.measures()
        for name, value in measures.items():
            self.series.setdefault(name, []).append(value)
        spent = sum(self.series["bytes_sent"]) + sum(self.series["bytes_received"])
        self.stopped = reason_to_stop(self.spec.rounds.stop, self.series.get(SCORE[self.spec.job.task], []), spent)
        return RoundDone(self.round, self.spec.rounds.rounds, self.saved(), measures)

    def count_steps(self, rows: int) -> int:
        """Steps a client with so many rows took this round."""
        return len(batch_sizes(rows, self.spec.train.batch_rows)) * self.spec.rounds.local_epochs

    @property
    def over(self) -> bool:
        return bool(self.stopped) or self.round >= self.spec.rounds.rounds

    def evaluated(self) -> dict[str, float] | None:
        """Of the parameters in the module: score and loss on the aggregator's test rows, where it has some (R0.9)."""
        return None if self._tests is None else measured(self.spec, self.shared_module, self._tests, ranking=True)

    def evaluation_task(self) -> EvaluationTask:
        """The round's model as it is, for clients to measure."""
        body = write(self.parameters)
        return EvaluationTask(round=self.round, model_digest=digest(body), parameters=body)

    # The end

    def final(self) -> Published:
        """What is published, encoded once: all clients get the same."""
        body = self.encoding.broadcast(self.round + 1, self.parameters)  # as the next round would have had it
        return Published(round=self.round, parameters=body, model_digest=digest(body))

    def published_to(self, backbone_digest: bytes, message: Published) -> Published:
        for hooks in self._hooks.values():
            message = hooks.publish(backbone_digest, message)
        return message

    def outcome(self) -> Outcome:
        score = SCORE[self.spec.job.task]
        names = {score, "auc", "loss"}
        metrics = {name: values[-1] for name, values in self.series.items() if name in names and values}
        intervals = self._intervals(metrics)  # before the parts change the model
        finished = Finished(self.parameters)
        for hooks in self._hooks.values():
            last = hooks.finish(self.shared_module, finished.parameters)
            finished = Finished(last.parameters, finished.metrics | last.metrics, finished.notices + last.notices)
        ended = f"ended after round {self.round}: {self.stopped}"
        return Outcome(
            state=save_parameters(finished.parameters, self._setup.scaling or agreed(self.spec)),
            metrics=metrics | intervals | finished.metrics,
            series=self.series,
            notices=[
                *(
                    Notice("warning", "refusal_waived", f"refusal {name} is waived by rounds.allow")
                    for name in self.spec.rounds.allow
                ),
                *([Notice("note", "ended_early", ended)] if self.stopped else []),
                *self._on_rows_tested(),
                *on_test_rows(self.series.get("loss", []), self._tests),
                *clipped(self.spec, self._setup.tables, self._setup.scaling),
                *finished.notices,
            ],
        )

    def _intervals(self, metrics: Mapping[str, float]) -> dict[str, float]:
        """Of the last round's model. Where rows stay at the clients, their sums tell that of the accuracy alone."""
        if self._tests is not None and metrics:
            load_parameters(self.shared_module.module, self.parameters)
            return intervals_of(self.spec, self.shared_module, self._tests, self.seed)
        if TESTED in self.series and "accuracy" in metrics:
            rows = round(self.series[TESTED][-1])
            return ends("accuracy", of_share(round(metrics["accuracy"] * rows), rows))
        return {}

    def _on_rows_tested(self) -> Iterator[Notice]:
        """Where there are so few, at all or of a class, that a metric says little."""
        if self._tests is None or self._tests.labels is None:
            yield from few_rows(round(self.series[TESTED][-1])) if TESTED in self.series else ()
            return
        yield from few_rows(self._tests.rows)
        if self.spec.job.task != "regression":
            yield from of_test_rows(self._tests.labels.numpy(), self.spec.outputs)

    def saved(self) -> bytes:
        """All that the next round needs, safetensors."""
        numbers = {"round": self.round, "series": self.series, "rows_of": self.rows_of, "stopped": self.stopped}
        numbers["sums"], numbers["reach"] = self.counted.sums, astuple(self.bounds) if self.bounds else None
        tensors = {f"model/{name}": values for name, values in self.parameters.items()}
        tensors |= {f"optimiser/{name}": values for name, values in self._stepper.saved().items()}
        for part, hooks in self._hooks.items():
            tensors |= {f"part/{part}/{name}": values for name, values in hooks.saved().items()}
        tensors["numbers"] = torch.from_numpy(np.frombuffer(json.dumps(numbers).encode(), np.uint8).copy())
        return save_parameters(tensors, self._setup.scaling)


@dataclass
class Counted:
    """What the aggregator counts from its first message on, before it knows how to read a row."""

    sums: int = 0
    """Secure sums so far."""
    bytes_sent: int = 0
    """Payload bytes since the last round closed: of every try, and of sums."""
    bytes_received: int = 0

    def next_sum(self) -> int:
        """The number of the next secure sum: larger than all before."""
        self.sums += 1
        return self.sums

    def since_last_round(self) -> tuple[int, int]:
        """Bytes sent and received, which are then counted anew."""
        since, self.bytes_sent, self.bytes_received = (self.bytes_sent, self.bytes_received), 0, 0
        return since


def distance(one: Parameters, other: Parameters) -> float:
    """Euclidean, over all floating-point tensors."""
    return math.sqrt(
        sum(
            float(((values.double() - other[name].double()) ** 2).sum())
            for name, values in one.items()
            if values.is_floating_point()
        )
    )


def _under(prefix: str, saved: Parameters) -> Parameters:
    """The tensors of one owner."""
    return {name.removeprefix(prefix): values for name, values in saved.items() if name.startswith(prefix)}
