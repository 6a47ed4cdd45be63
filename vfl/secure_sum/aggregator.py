"""The aggregator's side of one secure sum: a running total under masks, never a single vector of more than a moment."""

from collections import defaultdict

import numpy as np

from crypto.errors import InvalidShare
from crypto.masking import Words, add_mask, machine_word, modulo, subtract_mask, unpack
from crypto.pair_keys import KeyList, PublicPair, mask_seed, public_key, refuse_unusable
from crypto.secret_sharing import secret_of
from vfl.errors import RemoteProtocolError, SecureSumFailed
from vfl.messages import MaskedReply, PairKey, PairKeys, SealedShares, UnmaskShares, UnmaskTask
from vfl.secure_sum.terms import (
    BOX_BYTES,
    DIGEST_BYTES,
    MASKING_KEY,
    SELF_MASK,
    SumLog,
    SumResult,
    SumTerms,
    by_name,
    share_digest,
)
from vfl.spec.sections import PartyId


class Collection:
    """`take_...` enter one client's message, or raise RemoteProtocolError or CryptoError and leave it out."""

    def __init__(self, terms: SumTerms, number: int, log: SumLog) -> None:
        self._terms, self._number, self._log = terms, number, log
        self._pairs: dict[PartyId, PublicPair] = {}
        self._signatures: dict[PartyId, bytes] = {}
        """By which the others believe that a pair is its client's."""
        self._keys: KeyList
        self._dealt: dict[PartyId, dict[PartyId, bytes]] = {}
        """By dealer, its boxes by holder."""
        self._digests: dict[PartyId, bytes] = {}
        self._arrived: list[PartyId] = []
        self._total: Words = np.zeros(terms.words, machine_word(terms.word_bits))
        self._shares: dict[tuple[bytes, PartyId], dict[int, bytes]] = {}
        """By kind and owner, then by the holder's index."""
        self._at_odds: dict[PartyId, set[PartyId]] = defaultdict(set)
        """Dealers and holders of a share that was refused or withheld: one of both deviates, and nobody knows which."""

    def take_key(self, client: PartyId, message: PairKey) -> None:
        taken = {key for pair in self._pairs.values() for key in pair}
        for key in (message.masking, message.sealing):
            refuse_unusable(key)
            if key in taken:
                raise RemoteProtocolError(f"{client} sent a key twice, or one that another client sent")
            taken.add(key)
        self._pairs[client] = PublicPair(message.masking, message.sealing)
        self._signatures[client] = message.signature

    def keys(self) -> PairKeys:
        self._keys = self._terms.key_list(self._number, self._pairs)
        signed = ((member, *pair, self._signatures[member]) for member, pair in self._pairs.items())
        return PairKeys(self._number, tuple(signed))

    def take_boxes(self, client: PartyId, message: SealedShares) -> None:
        boxes, members = by_name(message.boxes, client), self._keys.members
        if boxes.keys() != set(members) - {client}:
            raise RemoteProtocolError(f"{client} did not send shares to each of its peers, and to them alone")
        if any(len(box) != BOX_BYTES for box in boxes.values()):
            raise RemoteProtocolError(f"{client} sent a box of shares that does not have {BOX_BYTES} bytes")
        if len(message.digests) != 2 * DIGEST_BYTES * len(members):
            raise RemoteProtocolError(f"{client} did not send the digests of two shares for each member")
        self._dealt[client], self._digests[client] = boxes, message.digests

    def boxes_for(self, client: PartyId) -> SealedShares:
        """One box from each other client that dealt, and what it said is in it: the holder looks before it goes on."""
        boxes = tuple((dealer, sealed[client]) for dealer, sealed in self._dealt.items() if dealer != client)
        digests = (self._digest(dealer, kind, client) for dealer, _ in boxes for kind in (SELF_MASK, MASKING_KEY))
        return SealedShares(self._number, boxes, b"".join(digests))

    def take_words(self, client: PartyId, message: MaskedReply) -> None:
        if len(message.words) != self._terms.body_bytes:
            raise RemoteProtocolError(
                f"{client} sent {len(message.words)} bytes of masked words, and {self._terms.body_bytes} are agreed"
            )
        self._total += unpack(message.words, self._terms.word_bits)
        self._arrived.append(client)

    def arrived(self) -> UnmaskTask:
        return UnmaskTask(self._number, tuple(self._arrived))

    def take_shares(self, client: PartyId, message: UnmaskShares) -> None:
        """Shares that the client does not hold may be missing; each one it gives must be the one that was dealt."""
        absent = self._dealt.keys() - set(self._arrived)
        batches = (
            (SELF_MASK, by_name(message.self_masks, client), set(self._arrived)),
            (MASKING_KEY, by_name(message.masking_keys, client), absent),
        )
        for kind, shares, owners in batches:
            if not shares.keys() <= owners:
                raise RemoteProtocolError(
                    f"{client} sent shares of the {kind.decode()} of a client that it was not asked about"
                )
            for owner, share in shares.items():
                if share_digest(self._keys, kind, share) != self._digest(owner, kind, client):
                    raise RemoteProtocolError(f"{client} sent a share of {owner}'s {kind.decode()} that was not dealt")
        for kind, shares, owners in batches:
            for owner in owners - shares.keys() - {client}:
                self._at_odds[owner].add(client)
                self._at_odds[client].add(owner)
            for owner, share in shares.items():
                self._shares.setdefault((kind, owner), {})[self._keys.index(client)] = share

    def opened(self) -> SumResult:
        """Take off what masks are left. Raises SecureSumFailed where too few shares came, or inconsistent ones."""
        for owner in self._arrived:
            subtract_mask(self._total, self._secret(SELF_MASK, owner))
        for owner in self._dealt.keys() - set(self._arrived):
            private = self._secret(MASKING_KEY, owner)
            if public_key(private) != self._keys.keys[owner].masking:
                raise self._spoilt(owner, "dropped out, and had dealt shares of another key than its own")
            for client in self._arrived:  # who stands first has added
                seed = mask_seed(private, self._keys, owner, client)
                first = self._keys.index(client) < self._keys.index(owner)
                (subtract_mask if first else add_mask)(self._total, seed)
        return SumResult(modulo(self._total, self._terms.word_bits), tuple(self._arrived))

    def failed(self, why: str) -> SecureSumFailed:
        return SecureSumFailed(f"secure sum {self._number} ({self._terms.purpose}, round {self._terms.round}): {why}")

    def _digest(self, owner: PartyId, kind: bytes, holder: PartyId) -> bytes:
        start = DIGEST_BYTES * (2 * (self._keys.index(holder) - 1) + (kind == MASKING_KEY))
        return self._digests[owner][start : start + DIGEST_BYTES]

    def _secret(self, kind: bytes, owner: PartyId) -> bytes:
        shares = self._shares.get((kind, owner), {})
        if len(shares) < self._terms.threshold:
            raise self._unopened(owner, kind, len(shares))
        try:
            return secret_of(dict(list(shares.items())[: self._terms.threshold]))
        except InvalidShare as error:
            raise self._spoilt(owner, f"dealt shares of its {kind.decode()} that cannot be used: {error}") from error

    def _spoilt(self, owner: PartyId, why: str) -> SecureSumFailed:
        """Its holders gave what it dealt: it is the one."""
        self._log.faulty.add(owner)
        return self.failed(f"{owner} {why}")

    def _unopened(self, owner: PartyId, kind: bytes, count: int) -> SecureSumFailed:
        """Holders lack its shares, or keep them back. Who is at odds with more than half of the others is faulty.

        While most are honest, that is never one of them.
        """
        others = len(self._dealt) - 1
        faulty = {client for client, with_whom in self._at_odds.items() if 2 * len(with_whom) > others}
        self._log.faulty |= faulty
        why = f"{count} shares of {owner}'s {kind.decode()} came, and {self._terms.threshold} are needed; "
        silent = ", ".join(sorted(self._at_odds[owner])) or "nobody"
        named = (
            f"{', '.join(sorted(faulty))} deviates"
            if faulty
            else f"{owner} deviates, or those who gave no share: {silent}"
        )
        return self.failed(why + named)
