"""What a client keeps while rounds run: its rows, and between tasks nothing of the model but what is stored."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from torch import nn

from vfl.codecs import InvalidBody
from vfl.errors import RemoteProtocolError
from vfl.horizontal.aggregation import network_of, save_parameters
from vfl.horizontal.carrier import digest, like, raw_update, read
from vfl.horizontal.part import ClientPlaces, Question, Updated, Work, parts_of
from vfl.horizontal.rows import derived, examples_of
from vfl.messages import Message, Published, RoundReply, RoundTask
from vfl.models.networks import Parameters, parameters_of
from vfl.reports import Outcome
from vfl.rounds_spec import RoundsSpec
from vfl.setup import Setup


class Participation:
    """A client's side without its messages."""

    def __init__(self, setup: Setup[RoundsSpec]) -> None:
        self._setup, self.spec = setup, setup.spec
        self._examples = examples_of(self.spec, setup.table, "training")
        self._places: list[ClientPlaces] = [part.client(setup) for part in parts_of(self.spec)]
        updates = [places.update for places in self._places if places.update is not None]
        self._update: Callable[[bytes, Work], Updated] = updates[0] if updates else raw_update
        self._stored = b""
        self.measures: dict[str, float] = {}
        """Of the last round it trained in."""
        self._series: dict[str, list[float]] = {}

    def held(self) -> bytes:
        """Digest of the backbone this client holds."""
        return next((held for places in self._places if (held := places.held())), b"")

    def reply_to(self, task: RoundTask) -> RoundReply:
        """Receive, prepare, train, encode (methods.md 1.1). Raises RemoteProtocolError for a task it cannot read."""
        if digest(task.parameters) != task.model_digest:
            raise RemoteProtocolError(f"the task of round {task.round} holds another model than it names")
        if not self._receive(task):
            return RoundReply(round=task.round, parameters=b"", rows=0, loss=0.0)
        examples = self._examples
        for places in self._places:
            if places.prepare is not None:
                examples = places.prepare(task, examples)
        amendments = [places.amend for places in self._places if places.amend is not None]

        def amend(module: nn.Sequential, received: Parameters) -> None:
            for amendment in amendments:
                amendment(module, received)

        work = Work(
            spec=self.spec,
            build=self._build,
            examples=examples,
            round=task.round,
            epochs=task.epochs,
            rate=task.rate,
            seed=derived(self._setup.private_seed, self._setup.me, task.round),
            reply_bits=task.reply_bits,
            amend=amend if amendments else None,
        )
        try:
            updated = self._update(task.parameters, work)
        except InvalidBody as error:
            raise RemoteProtocolError(f"the model of round {task.round} cannot be read: {error}") from error
        self._stored = task.parameters
        self.measures = {"loss": updated.loss} | updated.measures
        for name, value in self.measures.items():
            self._series.setdefault(name, []).append(value)
        return RoundReply(
            round=task.round,
            parameters=updated.reply,
            rows=self._examples.rows,
            loss=updated.loss,
            backbone_digest=self.held(),
        )

    def take(self, message: Message) -> None:
        """What the aggregator hands out once. Raises RemoteProtocolError where nobody here wants it."""
        takers = [places.take for places in self._places if places.take is not None]
        if not takers:
            raise RemoteProtocolError(f"the aggregator handed out {message.kind()}, which this job has no use for")
        for take in takers:
            take(message)

    def answer(self, question: Question) -> NDArray[np.uint64]:
        """This client's numbers for a pooled sum. Raises RemoteProtocolError where nobody here has an answer."""
        for places in self._places:
            if places.answer is not None:
                return places.answer(question, self._examples)
        raise RemoteProtocolError(f"the aggregator asks for {question.purpose!r}, which this job does not pool")

    def stored(self) -> bytes:
        """What this client holds between rounds, as it was received or as a part keeps it."""
        return next((places.stored() for places in self._places if places.stored is not None), self._stored)

    def keep(self, published: Published) -> Outcome:
        """The final model. Raises RemoteProtocolError where it is another than it says."""
        if digest(published.parameters) != published.model_digest or not self._receive(published):
            raise RemoteProtocolError("the published model is another than its message names")
        try:
            parameters = self._published(published)
            for places in self._places:
                if places.complete is not None:
                    parameters = places.complete(parameters)
        except InvalidBody as error:
            raise RemoteProtocolError(f"the published model cannot be read: {error}") from error
        notes = [note for places in self._places for note in places.notes()]
        return Outcome(state=save_parameters(parameters), series=self._series, notes=notes)

    def _published(self, message: Published) -> Parameters:
        expected = like(parameters_of(self._build()))
        reading = [places.read for places in self._places if places.read is not None]
        return reading[0](message.parameters, expected) if reading else read(message.parameters, expected)

    def _receive(self, message: RoundTask | Published) -> bool:
        return all(places.receive is None or places.receive(message) for places in self._places)

    def _build(self) -> nn.Sequential:
        module = network_of(self.spec, bytes(32))
        for places in self._places:
            if places.trained is not None:
                module = places.trained(module)
        return module
