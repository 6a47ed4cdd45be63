"""What a client keeps while rounds run: its rows, and between tasks nothing of the model but what is stored."""

from dataclasses import dataclass, replace

import msgspec
import numpy as np
from numpy.typing import NDArray
from torch import nn

from vfl.codecs import InvalidBody
from vfl.errors import Diverged, RemoteProtocolError
from vfl.horizontal.hooks import ClientEncoding, ClientHooks, Work
from vfl.horizontal.input_scaling import agreed, message_of
from vfl.horizontal.network import network_of, save_parameters
from vfl.horizontal.parts import parts_of
from vfl.horizontal.rows import clipped, derived, examples_of
from vfl.horizontal.secure_statistics import EVALUATION, evaluation_words, pooled
from vfl.horizontal.standstill import on_own_rows
from vfl.horizontal.summed_updates import PURPOSE, ROWS_PURPOSE, UpdateSums, bounds_of
from vfl.horizontal.update_encoding import digest, fit_amended, like, raw_update, read
from vfl.message import Message
from vfl.messages import ColumnScaling, EvaluationTask, Published, RoundReply, RoundTask, SumTask
from vfl.models.networks import Parameters, load_parameters, parameters_of
from vfl.reports import Outcome
from vfl.secure_sum.terms import SumTerms
from vfl.setup import Setup
from vfl.spec.rounds import RoundsSpec


class _Memory(msgspec.Struct, frozen=True):
    """What a client holds between rounds where parts remember."""

    stored: bytes
    memories: dict[str, bytes]


TRIES = 3
"""How often a round is tried (R0.4)."""


@dataclass(frozen=True)
class _Trained:
    """What one round's training made, until its sum is taken."""

    round: int
    received: Parameters
    trained: Parameters
    loss: float


class Participation:
    """A client's side without its messages."""

    def __init__(self, setup: Setup[RoundsSpec]) -> None:
        self._setup, self.spec = setup, setup.spec
        self._examples = examples_of(self.spec, setup.table, "training", setup.scaling)
        self._names, self._hooks = _hooks_of(setup)
        self._encoding = ClientEncoding(raw_update, read)
        for hooks in self._hooks:
            self._encoding = hooks.encoding(self._encoding)
        self._stored = b""
        self._tasks: dict[int, int] = {}
        self._measured: dict[int, int] = {}
        self._answered: dict[tuple[int, str], int] = {}
        self._trained: _Trained | None = None
        self._evaluated: tuple[int, NDArray[np.uint64]] | None = None
        self.measures: dict[str, float] = {}
        """Of the last round it trained in."""
        self._series: dict[str, list[float]] = {}

    def backbone_digest(self) -> bytes:
        """Digest of the backbone this client holds."""
        return next((backbone_digest for hooks in self._hooks if (backbone_digest := hooks.backbone_digest())), b"")

    def reply_to(self, task: RoundTask) -> RoundReply:
        """Receive, prepare, train, encode (rounds.md). Raises RemoteProtocolError for a task it cannot read."""
        work = self._work(task)
        if work is None:
            return RoundReply(round=task.round, parameters=b"", rows=0, loss=0.0)
        try:
            updated = self._encoding.update(task.parameters, work)
        except InvalidBody as error:
            raise RemoteProtocolError(f"the model of round {task.round} cannot be read: {error}") from error
        except Diverged:  # on what came from others: this round is lost to this client, not the job
            self._note(task, {"diverged": 1.0})
            return RoundReply(
                round=task.round, parameters=b"", rows=0, loss=0.0, backbone_digest=self.backbone_digest()
            )
        self._note(task, {"loss": updated.loss} | updated.measures)
        return RoundReply(
            round=task.round,
            parameters=updated.reply,
            rows=self._examples.rows,
            loss=updated.loss,
            backbone_digest=self.backbone_digest(),
        )

    def train_for_sum(self, task: RoundTask) -> None:
        """The same where only a sum is read: what was trained waits for the sum's task."""
        work, self._trained = self._work(task), None
        if work is None:
            return
        try:
            received = self._read(task.parameters)
        except InvalidBody as error:
            raise RemoteProtocolError(f"the model of round {task.round} cannot be read: {error}") from error
        module = work.build()
        load_parameters(module, received)
        try:
            loss = fit_amended(module, received, work)
        except Diverged:
            self._note(task, {"diverged": 1.0})
            return
        self._trained = _Trained(task.round, received, parameters_of(module), loss)
        self._note(task, {"loss": loss})

    def _work(self, task: RoundTask) -> Work | None:
        """The task with this client's rows; None where it lacks what it needs to train."""
        if digest(task.parameters) != task.model_digest:
            raise RemoteProtocolError(f"the model of round {task.round} does not have the digest that its task names")
        self._check(task)
        if not self._receive(task):
            return None
        examples = self._examples
        for hooks in self._hooks:
            examples = hooks.prepare(task, examples)
        return Work(
            spec=self.spec,
            build=self._build,
            examples=examples,
            round=task.round,
            epochs=task.epochs,
            rate=task.rate,
            seed=derived(self._setup.private_seed, self._setup.me, task.round),
            reply_bits=task.reply_bits,
            parts=self._hooks,
        )

    def _check(self, task: RoundTask) -> None:
        """A task asks for what was agreed, no round more often than it is tried."""
        rounds, asked = self.spec.rounds, self._tasks.get(task.round, 0) + 1
        self._tasks[task.round] = asked
        if not 1 <= task.round <= rounds.rounds or asked > TRIES:
            raise RemoteProtocolError(
                f"the aggregator has asked {asked} times for round {task.round}; "
                f"the job has {rounds.rounds} rounds and {TRIES} tries for each"
            )
        if task.epochs != rounds.local_epochs or task.rate != self.spec.rate_of(task.round):
            raise RemoteProtocolError(
                f"the task of round {task.round} asks for {task.epochs} epochs at rate {task.rate}; others are agreed"
            )

    def _note(self, task: RoundTask, measures: dict[str, float]) -> None:
        self._stored, self.measures = task.parameters, measures
        for hooks in self._hooks:
            self.measures = self.measures | hooks.measures()
        for name, value in self.measures.items():
            self._series.setdefault(name, []).append(value)

    def take(self, message: Message) -> None:
        """What the aggregator hands out once. Raises RemoteProtocolError where nobody here wants it."""
        if isinstance(message, ColumnScaling):
            self._told_again(message)
            return
        if not any(hooks.take(message) for hooks in self._hooks):
            raise RemoteProtocolError(f"the aggregator handed out {message.kind()}, which this job has no use for")

    def _told_again(self, message: ColumnScaling) -> None:
        """Whom the aggregator lost sight of may hear the scaling twice, but not another one."""
        if self._setup.scaling is None or message != message_of(self._setup.scaling):
            raise RemoteProtocolError("the aggregator sent another scaling of columns than before")

    def answer(self, task: SumTask) -> tuple[SumTerms, NDArray[np.uint64]] | None:
        """This client's numbers for a pooled sum, and the sum's terms; None where it could not train this round.

        Raises RemoteProtocolError where nobody here has an answer, or it was given as often as a round is tried: two
        sums over nearly the same clients would show the difference.
        """
        if task.purpose == PURPOSE and self._trained is None and self._tasks.get(task.round):
            return None
        asked = (task.round, task.purpose)
        self._answered[asked] = self._answered.get(asked, 0) + 1
        answer = self._answer(task) if self._answered[asked] <= TRIES else None
        if answer is None or not 0 <= task.round <= self.spec.rounds.rounds:
            raise RemoteProtocolError(
                f"the aggregator asks for {task.purpose!r} in round {task.round}, where it is not due"
            )
        return answer

    def measure(self, task: EvaluationTask) -> None:
        """The round's model on this client's test rows; what comes of it leaves in a sum only."""
        table = self._setup.tables.get("test")
        asked = self._measured.get(task.round, 0) + 1
        self._measured[task.round] = asked
        agreed = self.spec.evaluates_at_clients and 1 <= task.round <= self.spec.rounds.rounds and asked <= TRIES
        if table is None or not agreed or digest(task.parameters) != task.model_digest:
            raise RemoteProtocolError("the aggregator asks for an evaluation that this job does not have")
        module, rows = self._build(), examples_of(self.spec, table, "test", self._setup.scaling)
        for hooks in self._hooks:
            rows = replace(rows, inputs=hooks.embed(rows.inputs))
        try:
            load_parameters(module, read(task.parameters, like(parameters_of(module))))
        except InvalidBody as error:
            raise RemoteProtocolError(f"the model of round {task.round} cannot be read: {error}") from error
        self._evaluated = (task.round, evaluation_words(self.spec, module, rows))

    def _answer(self, task: SumTask) -> tuple[SumTerms, NDArray[np.uint64]] | None:
        words: NDArray[np.uint64] | None = None
        if task.purpose == PURPOSE:
            return self._summand(task)
        if task.purpose == ROWS_PURPOSE and self.spec.rounds.secure_sum and not task.round:
            words = np.array([self._examples.rows], np.uint64)
        if task.purpose == EVALUATION and self._evaluated is not None and self._evaluated[0] == task.round:
            words = self._evaluated[1]
        for hooks in self._hooks:
            if words is None:
                words = hooks.contribution(task.round, task.purpose, task.numbers, self._examples)
        return None if words is None else (pooled(self.spec, task.round, task.purpose, len(words)), words)

    def _summand(self, task: SumTask) -> tuple[SumTerms, NDArray[np.uint64]] | None:
        trained = self._trained
        bounds = bounds_of(task.numbers)
        if trained is None or trained.round != task.round or bounds is None or not self.spec.rounds.secure_sum:
            return None
        sums = UpdateSums(self.spec, trained.received)
        words = sums.words(
            trained.received,
            trained.trained,
            self._examples.rows,
            trained.loss,
            bounds,
            shared_seed=derived(self._setup.joint_seed, "grid", task.round),
            own_seed=derived(self._setup.private_seed, self._setup.me, "grid", task.round),
        )
        return sums.terms(task.round, bounds), words

    def stored(self) -> bytes:
        """What this client holds between rounds: the model as it was received, and what parts remember."""
        both = zip(self._names, self._hooks, strict=True)
        memories = {name: memory for name, hooks in both if (memory := hooks.memory()) is not None}
        return msgspec.msgpack.encode(_Memory(self._stored, memories)) if memories else self._stored

    def keep(self, published: Published) -> Outcome:
        """The final model. Raises RemoteProtocolError where it is another than it says."""
        if digest(published.parameters) != published.model_digest or not self._receive(published):
            raise RemoteProtocolError(
                "the published model, or its backbone, does not have the digest that its message names"
            )
        try:
            parameters = self._read(published.parameters)
            metrics = self._concluded(parameters)
            for hooks in self._hooks:
                parameters = hooks.complete(parameters)
        except InvalidBody as error:
            raise RemoteProtocolError(f"the published model cannot be read: {error}") from error
        notices = on_own_rows(self._series.get("loss", []), self._examples)
        notices += clipped(self.spec, self._setup.tables, self._setup.scaling)
        notices += [notice for hooks in self._hooks for notice in hooks.notices()]
        state = save_parameters(parameters, self._setup.scaling or agreed(self.spec))
        return Outcome(state=state, metrics=metrics, series=self._series, notices=notices)

    def _concluded(self, parameters: Parameters) -> dict[str, float]:
        """What parts measure of the published model, each on a module of its own."""

        def published() -> nn.Sequential:
            module = self._build()
            load_parameters(module, parameters)
            return module

        return {name: value for hooks in self._hooks for name, value in hooks.conclude(published).items()}

    def _read(self, body: bytes) -> Parameters:
        """The parameters of a task or of the published model. Raises InvalidBody."""
        expected = like(dict(self._build().state_dict()))
        return self._encoding.read(body, expected)

    def _receive(self, message: RoundTask | Published) -> bool:
        return all(hooks.receive(message) for hooks in self._hooks)

    def _build(self) -> nn.Sequential:
        module = network_of(self.spec, None)
        for hooks in self._hooks:
            module = hooks.trained(module)
        for hooks in self._hooks:
            module = hooks.observe(module)
        return module


def _hooks_of(setup: Setup[RoundsSpec]) -> tuple[list[str], tuple[ClientHooks, ...]]:
    """Names of the parts and what they do here, each given back what it remembered."""
    parts = parts_of(setup.spec)
    memory = _Memory(setup.saved, {})
    if setup.saved and any(part.remembers(setup.spec) for part in parts):
        memory = msgspec.msgpack.decode(setup.saved, type=_Memory)
    hooks = tuple(part.client(replace(setup, saved=memory.memories.get(part.name, memory.stored))) for part in parts)
    return [part.name for part in parts], hooks
