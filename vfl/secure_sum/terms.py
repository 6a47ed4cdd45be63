"""What the two sides of a secure sum agree on beforehand, and what comes of it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from crypto.masking import machine_word
from crypto.pair_keys import KeyList, PublicPair, digest, key_list
from crypto.sealing import TAG_BYTES
from crypto.secret_sharing import SHARE_BYTES
from vfl.errors import RemoteProtocolError
from vfl.messages import ClientReady
from vfl.spec.sections import PartyId

LEAST_CONTRIBUTORS: Final = 3
"""A sum over two shows each the other's vector (X14)."""
LARGEST_NUMBER: Final = 2**63 - 1
BOX_BYTES: Final = 2 * SHARE_BYTES + TAG_BYTES
DIGEST_BYTES: Final = 16
SELF_MASK: Final = b"self mask"
MASKING_KEY: Final = b"masking key"


def majority(cohort: int) -> int:
    """The least threshold for a cohort of this size: more than half, and never fewer than three."""
    return max(LEAST_CONTRIBUTORS, cohort // 2 + 1)


@dataclass(frozen=True)
class SumTerms:
    """What is agreed of one sum, from the specification; every key that is used in it is bound to all of this.

    Raises ValueError for words or thresholds that cannot be.
    """

    job: bytes
    """Digest of the specification both sides agreed to."""
    round: int
    purpose: str
    """What is summed: updates, class counts, evaluation."""
    roster: tuple[PartyId, ...]
    """Who may take part."""
    words: int
    """Length of every vector."""
    word_bits: int
    """W, a multiple of 8 up to 64: the sum is taken modulo 2^W."""
    threshold: int
    """So many clients must stay to the end, and so many are in every sum at least."""
    numbers: tuple[float, ...] = ()
    """Public: what a client needs to know to answer."""

    def __post_init__(self) -> None:
        machine_word(self.word_bits)
        if self.words < 1 or self.threshold < LEAST_CONTRIBUTORS:
            raise ValueError(f"a secure sum needs words, and a threshold of at least {LEAST_CONTRIBUTORS} clients")

    @property
    def body_bytes(self) -> int:
        """Of one vector on the wire."""
        return self.words * self.word_bits // 8

    def key_list(self, number: int, keys: Mapping[PartyId, PublicPair]) -> KeyList:
        """The keys of sum `number`, bound to its terms. Raises InvalidKey, naming the member."""
        sizes = (number, self.round, self.words, self.word_bits, self.threshold)
        parts = (np.array(sizes, "<u8").tobytes(), np.array(self.numbers, "<f8").tobytes())
        return key_list(digest(self.job, self.purpose.encode(), *parts), keys)


@dataclass(frozen=True)
class SumResult:
    words: NDArray[np.uint64]
    """The contributors' sum modulo 2^W."""
    contributors: tuple[PartyId, ...]


@dataclass
class SumLog:
    """What else the aggregator saw while it waited; filled in even where the sum fails."""

    left: set[PartyId] = field(default_factory=set)
    """Clients that the job goes on without."""
    back: dict[PartyId, ClientReady] = field(default_factory=dict)
    """Clients that have come back and know nothing of this sum."""
    faulty: set[PartyId] = field(default_factory=set)
    """Clients that were refused, or by whom the sum does not open: they are in no further one of the job."""
    payload_bytes: int = 0
    """Received."""
    sent_bytes: int = 0
    seconds: float = 0.0
    """Waited."""


def share_digest(keys: KeyList, kind: bytes, share: bytes) -> bytes:
    """By which holder and aggregator know a share again: its dealer announces it. A share has the entropy of a key."""
    return digest(keys.digest, kind, share)[:DIGEST_BYTES]


def by_name(pairs: Iterable[tuple[PartyId, bytes]], sender: PartyId) -> dict[PartyId, bytes]:
    """Raises RemoteProtocolError, naming the sender, where one name comes twice."""
    by_party: dict[PartyId, bytes] = {}
    for name, content in pairs:
        if name in by_party:
            raise RemoteProtocolError(f"{sender} sent two entries for {name}")
        by_party[name] = content
    return by_party
