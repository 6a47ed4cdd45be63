"""Horizontal rounds: an aggregator and clients whose rows carry labels train one model; rows stay where they are.

    aggregator A                                                client k
    0  pool means and deviations of columns, where no range     ClientReady -> A, and again when it has come back
       is agreed: a secure sum; ColumnScaling -> each client
       derive what travels from the first model
    1  select a cohort from (job seed, round)
    2  broadcast: RoundTask -> each client of the cohort
                                                                3  receive, prepare its rows, E local epochs
                                                                4  RoundReply -> A
    5  combine: sum n_k w_k / n' over the replies, in the order of the roster
    6  adjust, evaluate on its test rows, report; until an end condition holds, 1 again
    7  publish: Published -> every client, chosen or not        8  keeps the final model

With no parts this is federated averaging (McMahan et al. 2017). Parts override the hooks of `vfl.horizontal.hooks`.
A round closes when its whole cohort has answered, or at its deadline with `quorum` of it; with fewer than `min_clients`
usable replies it is repeated. A reply that must not enter is refused by name, and the round goes on with the rest.

Who learns what: A reads every client's trained parameters and number of rows, from which properties of rows, and rows,
can be inferred. Clients learn the shared model. All learn means and deviations of columns, where these are pooled.
Poisoning within `reply_norm_limit` is not detected.
"""

import math
from dataclasses import replace

from vfl.errors import LocalProtocolError, RemoteProtocolError, SecureSumFailed, TooFewReplies
from vfl.flow import Flow, await_next, receive_any, report, send
from vfl.horizontal.aggregator import MOST_ROWS, Aggregation, Counted
from vfl.horizontal.client import TRIES, Participation
from vfl.horizontal.connected_clients import ConnectedClients
from vfl.horizontal.input_scaling import (
    PURPOSE,
    of_first_model,
    pooled_scaling,
    read_scaling,
    scaling_in,
    words_for,
    words_of,
)
from vfl.horizontal.mean import WeightedMean
from vfl.horizontal.rows import check_fit, column_name, derived
from vfl.horizontal.secure_statistics import EVALUATION, EVALUATION_WORDS, evaluation_of, pooled
from vfl.horizontal.selection import cohort
from vfl.horizontal.summed_updates import ROWS_PURPOSE, UpdateSums, first_bounds, next_bounds
from vfl.message import Message
from vfl.messages import (
    ClientReady,
    ColumnScaling,
    EvaluationTask,
    Published,
    RoundReply,
    RoundTask,
    SharedRows,
    SumTask,
)
from vfl.notices import Notice
from vfl.protocols.secure_sum import contribute, sum_of
from vfl.reports import Outcome, Refused, Remark, RoundDone, Warned
from vfl.secure_sum.terms import SumLog, SumResult, SumTerms
from vfl.setup import Setup
from vfl.spec.rounds import RoundsRole, RoundsSpec
from vfl.spec.sections import PartyId

TO_CLIENT = (RoundTask, SumTask, ColumnScaling, SharedRows, EvaluationTask, Published)
MESSAGES_PER_REPLY = 64
"""How many messages of one client are looked at for its reply: late ones of earlier rounds may come first."""


def aggregator(setup: Setup[RoundsSpec]) -> Flow[Outcome]:
    spec, rounds = setup.spec, setup.spec.rounds
    present = ConnectedClients()
    side = yield from _begun(setup, present)  # 0
    if not side.round:
        yield from _pool(side, 0, [client for client in spec.roster.clients if client in present], present)
    while not side.over:
        body = side.encoding.broadcast(side.round + 1, side.parameters)
        bits = side.encoding.reply_bits(side.round + 1)
        for _ in range(TRIES):
            enough = len(present) >= rounds.min_clients
            yield from _await_clients(spec, present, 0.0 if enough else rounds.deadline_seconds)
            chosen = cohort(setup.joint_seed, side.round + 1, spec.roster.clients, present, spec.cohort)  # 1
            task = side.task(body, bits)
            for client in chosen:
                yield from _greet(side, client, present)
                task_for_client = side.task_for(client, present.backbone_digest_of(client), task)
                side.counted.bytes_sent += yield from send(client, task_for_client)  # 2
            collected = _Collected(side, task, bits)
            yield from collected.sum(chosen, present) if rounds.secure_sum else collected.gather(chosen, present)  # 5
            if collected.enough(chosen):
                break
        else:
            raise TooFewReplies(
                f"round {side.round + 1} got {collected.mean.replies} usable replies in each of {TRIES} tries, "
                f"and {rounds.min_clients} are needed",
                safe=f"The state after round {side.round} is kept." if side.round else "Nothing was stored.",
            )
        yield from _pool(side, side.round + 1, collected.replied, present)
        side.combine(collected.mean)  # 6
        metrics = side.evaluated() or (yield from _evaluate(side, collected.replied, present))
        yield from report(side.close_round(collected.mean, metrics, collected.slowest))
    final = side.final()
    for client in spec.roster.clients:
        if client not in present or present.just_came(client):
            for message in side.required_first():
                yield from send(client, message)
        yield from send(client, side.published_to(present.backbone_digest_of(client), final))  # 7
    return side.outcome()


def client(setup: Setup[RoundsSpec]) -> Flow[Outcome]:
    aggregator = setup.only(RoundsRole.AGGREGATOR)
    for use, table in setup.tables.items():
        check_fit(setup.spec, table, use)
    yield from send(aggregator, ClientReady())  # who begins holds no backbone
    side = Participation((yield from _scaled(setup, aggregator)))  # 0
    message: Message | None = None
    while True:
        if message is None:
            message = yield from receive_any(TO_CLIENT, aggregator)
        match message:
            case RoundTask() if side.spec.rounds.secure_sum:
                side.train_for_sum(message)  # 3; 4 follows as a sum
                yield from report(RoundDone(message.round, side.spec.rounds.rounds, side.stored(), side.measures))
                message = None
            case RoundTask():
                reply = side.reply_to(message)  # 3
                yield from send(aggregator, reply)  # 4
                yield from report(RoundDone(message.round, side.spec.rounds.rounds, side.stored(), side.measures))
                message = None
            case SumTask():
                answer, task, message = side.answer(message), message, None
                if answer is not None:
                    terms, words = answer
                    message = yield from contribute(terms, task, words, setup.me, aggregator)
            case EvaluationTask():
                side.measure(message)
                message = None
            case Published():
                return side.keep(message)  # 8
            case handed_out:
                side.take(handed_out)
                message = None


def _begun(setup: Setup[RoundsSpec], present: ConnectedClients) -> Flow[Aggregation]:
    """The aggregator's side once its clients are there, and once it is known how columns are scaled."""
    spec, seconds, counted = setup.spec, setup.spec.rounds.deadline_seconds, Counted()
    scaling = scaling_in(setup.saved) or of_first_model(spec, setup.model)
    if scaling is not None:
        side = Aggregation(replace(setup, scaling=scaling))
        yield from _await_clients(spec, present, seconds)
        return side
    for use, table in setup.tables.items():
        check_fit(spec, table, use)
    yield from _await_clients(spec, present, seconds)
    terms = pooled(spec, 0, PURPOSE, words_for(spec))
    result = yield from _sum_before(spec, counted, terms, list(spec.roster.clients), present)
    scaling, constant = pooled_scaling(result.words)
    for at in constant:
        text = f"{column_name(spec, at)} is the same in every client's rows: it says nothing"
        yield from report(Warned(Notice("warning", "constant_column", text)))
    return Aggregation(replace(setup, scaling=scaling), counted)


def _scaled(setup: Setup[RoundsSpec], aggregator: PartyId) -> Flow[Setup[RoundsSpec]]:
    """A client's setup with the scaling of its columns: where none is agreed, it adds its sums and waits to be told."""
    spec, message, asked = setup.spec, None, 0
    while spec.pools_columns:
        message = message or (yield from receive_any(TO_CLIENT, aggregator))
        match message:
            case ColumnScaling():
                return replace(setup, scaling=read_scaling(spec, message))
            case SumTask(round=0, purpose=purpose) if purpose == PURPOSE and asked < TRIES:
                task, asked = message, asked + 1
                terms = pooled(spec, 0, PURPOSE, words_for(spec))
                message = yield from contribute(terms, task, words_of(setup.table.columns), setup.me, aggregator)
            case other:
                raise RemoteProtocolError(f"{aggregator} sent {other.kind()} before it said how columns are scaled")
    return setup


def _greet(side: Aggregation, client: PartyId, present: ConnectedClients) -> Flow[None]:
    """What a client that has just come is given before anything is asked of it."""
    if present.just_came(client):
        for message in side.handed_out():
            side.counted.bytes_sent += yield from send(client, message)


def _pool(side: Aggregation, number: int, clients: list[PartyId], present: ConnectedClients) -> Flow[None]:
    """What parts ask these clients, by secure sums: nobody's own numbers are read."""
    if side.spec.rounds.secure_sum and not number:
        terms = pooled(side.spec, 0, ROWS_PURPOSE, 1)
        result = yield from _sum_before(side.spec, side.counted, terms, clients, present, side)
        mean_rows = int(result.words[0]) / len(result.contributors)
        if not 1 <= mean_rows < MOST_ROWS:
            raise SecureSumFailed(
                f"the clients cannot have {mean_rows:.3g} rows each: at least one of them sent a false number"
            )
        side.bounds = first_bounds(side.parameters, mean_rows)
    for query, on_sum in side.queries(number):
        terms = pooled(side.spec, number, query.purpose, query.words, query.numbers)
        if not number:
            result = yield from _sum_before(side.spec, side.counted, terms, clients, present, side)
            on_sum(number, result.words)
            continue
        try:
            result = yield from _sum(side.spec, side.counted, terms, clients, present, SumLog())
            on_sum(number, result.words)
        except SecureSumFailed as error:  # a round can do without
            yield from report(Remark(f"{query.purpose} of round {number} are not known: {error}"))


def _evaluate(side: Aggregation, clients: list[PartyId], present: ConnectedClients) -> Flow[dict[str, float]]:
    """The round's model on the test rows of its clients, where the aggregator has none (R0.9)."""
    task = side.evaluation_task()
    for client in clients:
        side.counted.bytes_sent += yield from send(client, task)
    terms = pooled(side.spec, side.round, EVALUATION, EVALUATION_WORDS)
    try:
        result = yield from _sum(side.spec, side.counted, terms, clients, present, SumLog())
    except SecureSumFailed as error:
        yield from report(Remark(f"round {side.round} is not measured: {error}"))
        return {}
    return evaluation_of(side.spec, result.words)


def _sum_before(
    spec: RoundsSpec,
    counted: Counted,
    terms: SumTerms,
    clients: list[PartyId],
    present: ConnectedClients,
    side: Aggregation | None = None,
) -> Flow[SumResult]:
    """A sum that nothing goes on without, tried as often as a round; `side` greets whom it asks."""
    for tries in range(1, TRIES + 1):
        there = [client for client in clients if client in present]
        if side is not None:
            for client in there:
                yield from _greet(side, client, present)
        try:
            return (yield from _sum(spec, counted, terms, there, present, SumLog()))
        except SecureSumFailed as error:
            if tries == TRIES:
                raise
            yield from report(Remark(f"{terms.purpose}: {error}; it is tried again"))
            yield from _await_clients(spec, present, spec.rounds.deadline_seconds)
    raise LocalProtocolError("no sum was tried")


def _sum(
    spec: RoundsSpec,
    counted: Counted,
    terms: SumTerms,
    clients: list[PartyId],
    present: ConnectedClients,
    log: SumLog,
) -> Flow[SumResult]:
    try:
        return (yield from sum_of(terms, counted.next_sum(), clients, spec.rounds.deadline_seconds, log))
    finally:
        counted.bytes_sent += log.sent_bytes
        counted.bytes_received += log.payload_bytes
        for client in log.left:
            present.lose(client)
        for client in log.faulty:  # who breaks a sum is in no further one
            present.bar(client)
        for client, ready in log.back.items():
            present.welcome(client, ready.backbone_digest)


def _await_clients(spec: RoundsSpec, present: ConnectedClients, seconds: float) -> Flow[None]:
    """Who is not there yet, or was lost, is there once it says so; all together are awaited so long at most.

    A wait ends early where a client has left or is just coming back: too few are waited for again while there is time.
    """
    for _ in range(MESSAGES_PER_REPLY):
        for absent in present.absent(spec.roster.clients):
            delivery = yield from await_next(absent, seconds)
            seconds = max(0.0, seconds - delivery.waited_seconds)
            if isinstance(delivery.message, ClientReady):
                present.welcome(absent, delivery.message.backbone_digest)
        if not seconds or len(present) >= spec.rounds.min_clients:
            return


class _Collected:
    """The replies to one dispatch of a round, summed as they come in the order of the roster."""

    def __init__(self, side: Aggregation, task: RoundTask, reply_bits: int) -> None:
        self._side, self._task, self._bits = side, task, reply_bits
        self._received = side.encoding.received(task.parameters)
        self._seconds = side.spec.rounds.deadline_seconds
        self.mean: WeightedMean = side.mean()
        self.answered = 0
        self.replied: list[PartyId] = []
        self.slowest = 0.0

    def gather(self, chosen: list[PartyId], present: ConnectedClients) -> Flow[None]:
        for sender in chosen:
            try:
                reply = yield from self._reply_of(sender, present)
                if reply is not None:
                    present.answered(sender, reply.backbone_digest)
                    self._add(sender, reply)
            except RemoteProtocolError as error:  # the culprit is left out, the round goes on
                self.answered += 1
                yield from report(Refused(sender, str(error)))

    def sum(self, chosen: list[PartyId], present: ConnectedClients) -> Flow[None]:
        """The same where only the sum of the replies is read, and enters the mean as one."""
        side, bounds, log = self._side, self._side.bounds, SumLog()
        if bounds is None:
            raise LocalProtocolError("a secure round has no clipping bounds yet")
        layout = UpdateSums(side.spec, self._received)
        seed = derived(side.seed, "grid", self._task.round)
        terms = layout.terms(self._task.round, bounds)
        try:
            result = yield from _sum(side.spec, side.counted, terms, chosen, present, log)
        except SecureSumFailed as error:
            yield from report(Remark(str(error)))
            return
        finally:
            self.slowest = log.seconds
        summed = layout.read(result.words, len(result.contributors), self._received, bounds, seed)
        if summed is None:
            yield from report(
                Remark(
                    f"the sum of round {self._task.round} cannot come from rows: at least one client sent false numbers"
                )
            )
            return
        side.bounds = next_bounds(summed, len(result.contributors))
        self.mean.add(summed.parameters, summed.rows)
        self.mean.replies = self.answered = len(result.contributors)
        # Who gave words and then left, came back afresh or was barred is asked nothing more of this round.
        self.replied = [client for client in result.contributors if client in present and client not in log.back]
        for client in self.replied:  # it has trained, so it holds what its task named
            present.answered(client, side.task_for(client, b"", self._task).backbone_digest)

    def enough(self, chosen: list[PartyId]) -> bool:
        rounds = self._side.spec.rounds
        return self.mean.replies >= rounds.min_clients and self.answered >= math.ceil(rounds.quorum * len(chosen))

    def _reply_of(self, sender: PartyId, present: ConnectedClients) -> Flow[RoundReply | None]:
        """This round's reply, or None where the client is late, lost, or has come back without it."""
        for _ in range(MESSAGES_PER_REPLY):
            delivery = yield from await_next(sender, self._seconds)
            left = delivery.waited_seconds < self._seconds
            self._seconds = max(0.0, self._seconds - delivery.waited_seconds)
            self.slowest += delivery.waited_seconds
            self._side.counted.bytes_received += delivery.payload_bytes
            match delivery.message:
                case RoundReply(round=number) as reply if number == self._task.round:
                    return reply
                case RoundReply(round=number) if number < self._task.round:
                    late = f"{sender}'s reply to round {number} came in round {self._task.round} and is dropped"
                    yield from report(Refused(sender, late))
                case ClientReady(digest):
                    present.welcome(sender, digest)
                    return None
                case None if not delivery.unreadable:
                    if left:
                        present.lose(sender)
                    return None
                case other:
                    what = delivery.unreadable or f"it sent {type(other).__name__}"
                    raise RemoteProtocolError(f"{sender} owes a reply to round {self._task.round}: {what}")
        raise RemoteProtocolError(
            f"{sender} sent {MESSAGES_PER_REPLY} messages, and none is a reply to round {self._task.round}"
        )

    def _add(self, sender: PartyId, reply: RoundReply) -> None:
        if reply.rows:  # else it has lost its backbone, and gets it next time
            self.mean.add(self._side.trained_by(sender, reply, self._received, self._bits), reply.rows)
            self.replied.append(sender)
        self.answered += 1


ROLES = {RoundsRole.AGGREGATOR: aggregator, RoundsRole.CLIENT: client}
