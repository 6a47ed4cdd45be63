"""Who may send which message to whom, as plain data: the supervisor refuses the rest without importing a role.

With `messages.py` this is the privacy surface of every protocol. The table "what each side could see" is made from it.
"""

from dataclasses import dataclass

from vfl.job import JobSpec
from vfl.messages import (
    ClientReady,
    CutGradient,
    Embedding,
    EncryptedEmbedding,
    EncryptedError,
    EncryptedEvaluation,
    EvaluationRows,
    MaskedGradient,
    MaskedReply,
    MaskedScores,
    Message,
    OpenedGradient,
    OpenedScores,
    PairKey,
    PairKeys,
    PublicKeys,
    Published,
    RoundReply,
    RoundTask,
    RowsDigest,
    SealedShares,
    StepApplied,
    SumTask,
    UnmaskShares,
    UnmaskTask,
)
from vfl.rounds_spec import RoundsSpec
from vfl.terms import PartyId, Role


@dataclass(frozen=True)
class Route:
    """One legal message of one protocol."""

    sender: Role
    receiver: Role
    message: type[Message]


F, L = Role.FEATURE, Role.LABEL
A, C = Role.AGGREGATOR, Role.CLIENT

ROUTES: dict[str, tuple[Route, ...]] = {
    "split_training": (
        Route(F, L, RowsDigest),
        Route(L, F, RowsDigest),
        Route(F, L, Embedding),
        Route(L, F, CutGradient),
        Route(L, F, StepApplied),
        Route(F, L, EvaluationRows),
    ),
    "ckks_training": (
        Route(F, L, RowsDigest),
        Route(L, F, RowsDigest),
        Route(F, L, PublicKeys),
        Route(F, L, EncryptedEmbedding),
        Route(L, F, MaskedGradient),
        Route(F, L, OpenedGradient),
        Route(L, F, EncryptedError),
        Route(F, L, EncryptedEvaluation),
        Route(L, F, MaskedScores),
        Route(F, L, OpenedScores),
    ),
    "rounds": (
        Route(C, A, ClientReady),
        Route(A, C, RoundTask),
        Route(C, A, RoundReply),
        Route(A, C, Published),
    ),
    "secure_sum": (
        Route(A, C, SumTask),
        Route(C, A, PairKey),
        Route(A, C, PairKeys),
        Route(C, A, SealedShares),
        Route(A, C, SealedShares),
        Route(C, A, MaskedReply),
        Route(A, C, UnmaskTask),
        Route(C, A, UnmaskShares),
    ),
}
"""By protocol; `secure_sum` is a sub-flow, and its messages belong to jobs of rounds that ask for it."""


ONLY_EMBEDDINGS: frozenset[type[Message]] = frozenset({CutGradient, EncryptedError})
"""Messages of layout `embeddings`: where no bottom model learns, no error goes back."""


def routes_of(spec: JobSpec) -> tuple[Route, ...]:
    """The routes of one job: those of its protocol that its layout uses."""
    if isinstance(spec, RoundsSpec):
        return _with_secure_sums(ROUTES[spec.entry]) if spec.rounds.secure_sum else ROUTES[spec.entry]
    unused = ONLY_EMBEDDINGS if spec.model.layout == "features" else frozenset({StepApplied})
    return tuple(route for route in ROUTES[spec.entry] if route.message not in unused)


def _with_secure_sums(routes: tuple[Route, ...]) -> tuple[Route, ...]:
    """A client's values leave as MaskedReply and in no other message."""
    return tuple(route for route in routes if route.message is not RoundReply) + ROUTES["secure_sum"]


def allowed(spec: JobSpec, sender: PartyId, receiver: PartyId, kind: str) -> bool:
    """May `sender` send `receiver` a message of this kind under this job?"""
    if receiver not in spec.peers_of(sender) if sender in spec.parties else True:
        return False
    roles = (spec.role_of(sender), spec.role_of(receiver))
    return any((r.sender, r.receiver) == roles and r.message.kind() == kind for r in routes_of(spec))
