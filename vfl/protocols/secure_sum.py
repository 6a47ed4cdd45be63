"""Secure sums: the aggregator learns the sum of the clients' integer vectors modulo 2^W, exactly, and no single one.

    aggregator A                                                client i
    0  SumTask -> each client of the cohort
                                                                1  fresh X25519 keys: PairKey -> A
    2  PairKeys -> all who answered: U1
                                                                3  shares of its masking key and of its self-mask seed,
                                                                   sealed to each of U1: SealedShares -> A
    4  SealedShares -> all who answered: U2, from each other
                                                                5  x_i + PRG(b_i) + sum over j in U2 of +-PRG(s_ij):
                                                                   MaskedReply -> A
    6  adds them as they come; UnmaskTask (who came: U3) -> U3
                                                                7  UnmaskShares -> A: of b_j for j in U3, of the masking
                                                                   key for j in U2 but not in U3; forgets them
    8  takes off the self masks of U3, and of the pair masks those with who dropped out

After Bonawitz et al. 2017, with every key fresh for each sum (docs/adr/0008-fresh-keys-for-every-sum.md). A client may
drop out at any step; with fewer than the threshold left the sum ends in SecureSumFailed, and may be taken anew. The
threshold is more than half the cohort: two disjoint groups never both reach it, so the aggregator cannot tell one group
that a client came and the other that it did not, and get both kinds of its shares.

Who learns what, and what an aggregator that deviates could do: docs/protocols/secure_sum.md.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Final, TypeVar

from crypto.errors import CryptoError
from crypto.masking import Words
from vfl.errors import RemoteProtocolError
from vfl.flow import Flow, Receive, await_next, report, send
from vfl.message import Message
from vfl.messages import ClientReady, MaskedReply, PairKey, PairKeys, SealedShares, SumTask, UnmaskShares, UnmaskTask
from vfl.reports import Refused
from vfl.secure_sum.aggregator import Collection
from vfl.secure_sum.client import Member
from vfl.secure_sum.terms import SumLog, SumResult, SumTerms
from vfl.spec.sections import PartyId

MESSAGES_PER_STEP: Final = 64
"""How many messages of one client are looked at for the one that is due: late ones of earlier sums may come first."""

UPWARD: Final = (PairKey, SealedShares, MaskedReply, UnmaskShares)
Up = TypeVar("Up", PairKey, SealedShares, MaskedReply, UnmaskShares)
Down = TypeVar("Down", PairKeys, SealedShares, UnmaskTask)


def sum_of(
    terms: SumTerms, number: int, cohort: Sequence[PartyId], seconds: float, log: SumLog | None = None
) -> Flow[SumResult]:
    """The aggregator's side: one sum over those clients of the cohort that stay until their words have come.

    `number` is larger than that of any sum of the job before. Each of the four steps waits `seconds` at most, in all.
    What a client must not send is reported by name, and the sum goes on without that client; `log` takes note of who
    left, came back or was refused. Raises SecureSumFailed when too few are left, ValueError where the threshold is no
    majority.
    """
    if 2 * terms.threshold <= len(cohort):
        raise ValueError(f"a threshold of {terms.threshold} is not more than half of {len(cohort)} clients")
    log = log if log is not None else SumLog()
    side = Collection(terms, number, log)
    steps = _Steps(side, terms.threshold, number, seconds, log)
    for client in cohort:
        log.sent_bytes += yield from send(client, SumTask(number, terms.round, terms.purpose, terms.numbers))  # 0
    members = yield from steps.take(PairKey, cohort, side.take_key)
    keys = side.keys()
    for client in members:
        log.sent_bytes += yield from send(client, keys)  # 2
    sharers = yield from steps.take(SealedShares, members, side.take_boxes)
    for client in sharers:
        log.sent_bytes += yield from send(client, side.boxes_for(client))  # 4
    arrived = yield from steps.take(MaskedReply, sharers, side.take_words)
    for client in arrived:
        log.sent_bytes += yield from send(client, side.arrived())  # 6
    yield from steps.take(UnmaskShares, arrived, side.take_shares)
    return side.opened()  # 8


def contribute(terms: SumTerms, task: SumTask, words: Words, me: PartyId, aggregator: PartyId) -> Flow[Message | None]:
    """A client's side, once it has got `task`: give `words`, taken modulo 2^W, to the sum.

    Returns None when its part is done, or the message by which the aggregator has gone on without it.
    Raises RemoteProtocolError for a request that would show more than the sum over `terms.threshold` clients or more.
    """
    member = Member(terms, task, me, aggregator)
    yield from send(aggregator, member.key())  # 1
    keys = yield from _due(PairKeys, task, aggregator)
    if not isinstance(keys, PairKeys):
        return keys
    yield from send(aggregator, member.deal(keys))  # 3
    boxes = yield from _due(SealedShares, task, aggregator)
    if not isinstance(boxes, SealedShares):
        return boxes
    reply = member.mask(boxes, words)
    for refused in member.refused:
        yield from report(refused)
    yield from send(aggregator, reply)  # 5
    arrived = yield from _due(UnmaskTask, task, aggregator)
    if not isinstance(arrived, UnmaskTask):
        return arrived
    yield from send(aggregator, member.unmask(arrived))  # 7
    return None


def _due(kind: type[Down], task: SumTask, aggregator: PartyId) -> Flow[Down | Message]:
    """The message of this kind and sum, or one from outside the sum, by which the aggregator has gone on.

    Raises RemoteProtocolError for any other message of a sum: out of turn, twice, or of another sum.
    """
    delivery = yield Receive(aggregator)
    message = delivery.message if delivery is not None else None
    if message is None:
        raise RemoteProtocolError(f"{aggregator} left in the middle of secure sum {task.sum}")
    if isinstance(message, PairKeys | SealedShares | UnmaskTask) and not (
        isinstance(message, kind) and message.sum == task.sum
    ):
        message_name = f"{message.kind()} of sum {message.sum}"
        raise RemoteProtocolError(f"{aggregator} sent {message_name} where {kind.kind()} of sum {task.sum} was due")
    return message


class _Steps:
    """Waits for one message of each client, step by step."""

    def __init__(self, side: Collection, threshold: int, number: int, seconds: float, log: SumLog) -> None:
        self._side, self._threshold, self._number, self._log = side, threshold, number, log
        self._seconds = self._left = seconds

    def take(
        self, kind: type[Up], clients: Iterable[PartyId], enter: Callable[[PartyId, Up], None]
    ) -> Flow[list[PartyId]]:
        """Who sent what was due. Raises SecureSumFailed if they are fewer than the threshold."""
        self._left, taken = self._seconds, []
        for client in clients:
            try:
                message = yield from self._of(client, kind)
                if message is not None:
                    enter(client, message)
                    taken.append(client)
            except (RemoteProtocolError, CryptoError) as error:  # the culprit is left out, the sum goes on
                self._log.faulty.add(client)
                named = isinstance(error, RemoteProtocolError)
                yield from report(
                    Refused(client, str(error) if named else f"{client} sent what cannot be used: {error}")
                )
        if len(taken) < self._threshold:
            raise self._side.failed(f"{len(taken)} clients sent {kind.kind()}, and {self._threshold} are needed")
        return taken

    def _of(self, client: PartyId, kind: type[Up]) -> Flow[Up | None]:
        """The client's message, or None where it is late, lost or has come back."""
        for _ in range(MESSAGES_PER_STEP):
            delivery = yield from await_next(client, self._left)
            has_left = delivery.waited_seconds < self._left
            self._left = max(0.0, self._left - delivery.waited_seconds)
            self._log.payload_bytes += delivery.payload_bytes
            self._log.seconds += delivery.waited_seconds
            message = delivery.message
            if isinstance(message, kind) and message.sum == self._number:
                return message
            if isinstance(message, ClientReady):
                self._log.back[client] = message
                return None
            if message is None and not delivery.unreadable:
                if has_left:
                    self._log.left.add(client)
                return None
            if isinstance(message, UPWARD) and message.sum < self._number:
                late = f"{client}'s {message.kind()} of sum {message.sum} came in sum {self._number} and is dropped"
                yield from report(Refused(client, late))
                continue
            problem = delivery.unreadable or f"it sent {type(message).__name__}"
            raise RemoteProtocolError(f"{client} owes {kind.kind()} of sum {self._number}: {problem}")
        raise RemoteProtocolError(
            f"{client} sent {MESSAGES_PER_STEP} messages, and none is the {kind.kind()} that is due"
        )
