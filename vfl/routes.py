"""Who may send which message to whom, as plain data: the supervisor refuses the rest without importing a role.

With the files of messages beside it this is the privacy surface of every protocol.
The table "what each side could see" is made from it.
"""

from dataclasses import dataclass

from vfl.alignment_messages import (
    BlindedIds,
    BlindedList,
    CommonCount,
    CommonDigest,
    CommonPlaces,
    DoubleBlindedIds,
    IdCount,
    ListToBlind,
    PartySizes,
    PlacesBefore,
    SealedBatch,
    ShuffledDoubleBlindedIds,
    WhichPlaces,
)
from vfl.message import Message
from vfl.messages import (
    ClientReady,
    ColumnScaling,
    CutGradient,
    Embedding,
    EncryptedEmbedding,
    EncryptedError,
    EncryptedScores,
    EncryptedSlopes,
    EncryptedWeights,
    EpochJudged,
    EvaluationRows,
    EvaluationTask,
    HeldOut,
    MaskedGradient,
    MaskedReply,
    OpenedGradient,
    OpenedLoss,
    PairKey,
    PairKeys,
    PublicKeys,
    Published,
    RoundReply,
    RoundTask,
    RowsDigest,
    RowsToScore,
    SealedShares,
    SessionOver,
    SharedRows,
    StepApplied,
    SumTask,
    UnmaskShares,
    UnmaskTask,
)
from vfl.one_pass_messages import EncryptedBlocks, SumsKey, SumsOverRows
from vfl.paillier_messages import (
    BlurredScores,
    EncryptedColumns,
    EncryptedMoments,
    EncryptedRows,
    MaskedNumbers,
    OpenedSums,
    PaillierKey,
)
from vfl.spec.alignment import AlignmentRole, AlignmentSpec
from vfl.spec.joined_rows import TrainingRole
from vfl.spec.one_pass import OnePassSpec
from vfl.spec.prediction import PredictionSpec
from vfl.spec.rounds import RoundsRole, RoundsSpec
from vfl.spec.sections import Role
from vfl.spec.training import TrainingSpec


@dataclass(frozen=True)
class Route:
    """One legal message of one protocol."""

    sender: Role
    receiver: Role
    message: type[Message]


F, L = TrainingRole.FEATURE, TrainingRole.LABEL
FIRST, OTHER = AlignmentRole.COORDINATOR, AlignmentRole.PARTICIPANT
A, C = RoundsRole.AGGREGATOR, RoundsRole.CLIENT

ROUTES: dict[str, tuple[Route, ...]] = {
    "split_training": (
        Route(F, L, RowsDigest),
        Route(L, F, RowsDigest),
        Route(L, F, HeldOut),
        Route(F, L, Embedding),
        Route(L, F, CutGradient),
        Route(L, F, StepApplied),
        Route(L, F, EpochJudged),
        Route(F, L, EvaluationRows),
    ),
    "ckks_training": (
        Route(F, L, RowsDigest),
        Route(L, F, RowsDigest),
        Route(L, F, HeldOut),
        Route(F, L, PublicKeys),
        Route(F, L, EncryptedEmbedding),
        Route(L, F, MaskedGradient),
        Route(F, L, OpenedGradient),
        Route(L, F, EncryptedError),
        Route(F, L, OpenedLoss),
        Route(L, F, EpochJudged),
        Route(L, F, EncryptedWeights),
        Route(L, F, EncryptedSlopes),
        Route(F, L, EncryptedScores),
    ),
    "paillier_training": (
        Route(F, L, RowsDigest),
        Route(L, F, RowsDigest),
        Route(L, F, HeldOut),
        Route(F, L, PaillierKey),
        Route(F, L, EncryptedRows),
        Route(F, L, EncryptedMoments),
        Route(L, F, MaskedNumbers),
        Route(F, L, OpenedSums),
        Route(F, L, EncryptedColumns),
        Route(F, L, BlurredScores),
    ),
    "one_pass": (
        Route(F, L, RowsDigest),
        Route(L, F, RowsDigest),
        Route(L, F, HeldOut),
        Route(L, F, SumsKey),
        Route(L, F, EncryptedBlocks),
        Route(F, L, SumsOverRows),
        Route(L, F, EncryptedWeights),
        Route(F, L, EncryptedScores),
    ),
    "split_prediction": (
        Route(F, L, RowsDigest),
        Route(L, F, RowsDigest),
        Route(L, F, RowsToScore),
        Route(F, L, EvaluationRows),
        Route(L, F, SessionOver),
    ),
    "ckks_prediction": (
        Route(F, L, RowsDigest),
        Route(L, F, RowsDigest),
        Route(L, F, RowsToScore),
        Route(L, F, EncryptedWeights),
        Route(L, F, EncryptedSlopes),
        Route(F, L, EncryptedScores),
        Route(L, F, SessionOver),
    ),
    "rounds": (
        Route(C, A, ClientReady),
        Route(A, C, ColumnScaling),
        Route(A, C, RoundTask),
        Route(C, A, RoundReply),
        Route(A, C, Published),
        Route(A, C, SharedRows),
        Route(A, C, EvaluationTask),
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
    "alignment": tuple(
        Route(*ends, message)
        for message in (IdCount, SealedBatch, BlindedIds, DoubleBlindedIds, ShuffledDoubleBlindedIds, CommonDigest)
        for ends in ((FIRST, OTHER), (OTHER, FIRST))
    ),
    "alignment_of_many": (
        Route(OTHER, FIRST, IdCount),
        Route(FIRST, OTHER, PartySizes),
        Route(OTHER, FIRST, BlindedList),
        Route(FIRST, OTHER, ListToBlind),
        Route(FIRST, OTHER, CommonPlaces),
        Route(FIRST, OTHER, WhichPlaces),
        Route(OTHER, FIRST, PlacesBefore),
        Route(FIRST, OTHER, CommonCount),
    ),
}
"""By protocol; `secure_sum` is a sub-flow, and its messages belong to jobs of rounds that ask for it."""


ONLY_EMBEDDINGS: frozenset[type[Message]] = frozenset({CutGradient, EncryptedError})
"""Messages of layout `embeddings`: where no bottom model learns, no error goes back."""
ONLY_SESSIONS: frozenset[type[Message]] = frozenset({RowsToScore, SessionOver})
"""Of a prediction that stays open; one that scores all its rows asks for none of them."""
ONLY_NETWORKS: frozenset[type[Message]] = frozenset({EncryptedSlopes})
"""Of top models with hidden neurons, whose scores are no weighted sums of columns."""


def routes_of_training(spec: TrainingSpec) -> tuple[Route, ...]:
    """The routes of its protocol that its layout and split use."""
    unused = ONLY_EMBEDDINGS if spec.model.layout == "features" else frozenset({StepApplied})
    if not spec.split.is_told:
        unused |= {HeldOut}
    if not spec.split.validation:
        unused |= {OpenedLoss}
    if spec.train.stop_early is None:
        unused |= {EpochJudged}
    if not spec.hidden:
        unused |= ONLY_NETWORKS
    return tuple(route for route in ROUTES[spec.entry] if route.message not in unused)


def routes_of_one_pass(spec: OnePassSpec) -> tuple[Route, ...]:
    return tuple(route for route in ROUTES[spec.entry] if spec.split.is_told or route.message is not HeldOut)


def routes_of_prediction(spec: PredictionSpec) -> tuple[Route, ...]:
    unused = frozenset[type[Message]]() if spec.trained.hidden else ONLY_NETWORKS
    if spec.session is None:
        unused |= ONLY_SESSIONS
    return tuple(route for route in ROUTES[spec.entry] if route.message not in unused)


def routes_of_rounds(spec: RoundsSpec) -> tuple[Route, ...]:
    """Under secure sums a client's parameters leave as MaskedReply and in no other message."""
    unused: set[type[Message]] = {RoundReply} if spec.rounds.secure_sum else set()
    if spec.shared_data is None or spec.shared_data.rule != "share":
        unused.add(SharedRows)
    if not spec.pools_columns:
        unused.add(ColumnScaling)
    if not spec.evaluates_at_clients:
        unused.add(EvaluationTask)
    routes = ROUTES["rounds"] + (ROUTES["secure_sum"] if spec.pools else ())
    return tuple(route for route in routes if route.message not in unused)


def routes_of_alignment(spec: AlignmentSpec) -> tuple[Route, ...]:
    """Which rows are common travels only where the specification says that it is told."""
    rows, size = {DoubleBlindedIds, CommonPlaces, WhichPlaces, PlacesBefore}, {ShuffledDoubleBlindedIds, CommonCount}
    unused = size if spec.tells_rows else rows
    return tuple(route for route in ROUTES[spec.entry] if route.message not in unused)
