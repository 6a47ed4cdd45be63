"""One client's side of one secure sum: its fresh secrets, and what it refuses to do with them.

Every method is called once, in this order; a request that an honest aggregator could not make is refused.
"""

from dataclasses import replace

from crypto.errors import InvalidBox, InvalidKey
from crypto.masking import Words, add_mask, machine_word, pack, subtract_mask
from crypto.pair_keys import KeyList, PublicPair, fresh_private_key, mask_seed, public_key, sealing_key
from crypto.sealing import seal, unseal
from crypto.secret_sharing import SHARE_BYTES, shares_of
from vfl.errors import RemoteProtocolError
from vfl.messages import MaskedReply, PairKey, PairKeys, SealedShares, SumTask, UnmaskShares, UnmaskTask
from vfl.reports import Refused
from vfl.secure_sum.terms import DIGEST_BYTES, LARGEST_NUMBER, MASKING_KEY, SELF_MASK, SumTerms, by_name, share_digest
from vfl.spec.sections import PartyId


class Member:
    """Raises RemoteProtocolError, naming the aggregator, for a task that is not of these terms."""

    def __init__(self, terms: SumTerms, task: SumTask, me: PartyId, aggregator: PartyId) -> None:
        self._terms, self._number = replace(terms, numbers=task.numbers), task.sum
        self._me, self._aggregator = me, aggregator
        if (task.round, task.purpose) != (terms.round, terms.purpose) or not 0 <= task.sum <= LARGEST_NUMBER:
            raise self._broken(
                f"asks for {task.purpose!r} of round {task.round}; {terms.purpose!r} of round {terms.round} is due"
            )
        self._masking, self._sealing, self._seed = fresh_private_key(), fresh_private_key(), fresh_private_key()
        self._public = PublicPair(public_key(self._masking), public_key(self._sealing))
        self._keys: KeyList
        self._shares: dict[PartyId, bytes] = {}
        """By member, the two shares this client holds of its secrets: self mask, masking key."""
        self._sharers: frozenset[PartyId] = frozenset()
        self.refused: list[Refused] = []
        """Peers whose shares do not open: their masks stay, their shares others must give."""

    def key(self) -> PairKey:
        return PairKey(self._number, *self._public)

    def deal(self, message: PairKeys) -> SealedShares:
        """Shares of both secrets to every member of the list, own included."""
        keys = self._keys = self._checked(message)
        holders = len(keys.members)
        self_mask = shares_of(self._seed, holders, self._terms.threshold)
        masking_key = shares_of(self._masking, holders, self._terms.threshold)
        boxes, digests = [], b""
        for member, one, other in zip(keys.members, self_mask, masking_key, strict=True):
            digests += share_digest(keys, SELF_MASK, one) + share_digest(keys, MASKING_KEY, other)
            if member == self._me:
                self._shares[member] = one + other
            else:
                key = sealing_key(self._sealing, keys, self._me, member, self._me)
                boxes.append((member, seal(key, one + other)))
        return SealedShares(self._number, tuple(boxes), digests)

    def mask(self, message: SealedShares, words: Words) -> MaskedReply:
        """This client's words modulo 2^W under its own mask and one with each member whose box came."""
        if words.shape != (self._terms.words,):
            raise ValueError(f"the words have shape {words.shape}, and {self._terms.words} words are agreed")
        boxes = by_name(message.boxes, self._aggregator)
        self._sharers = frozenset(boxes) | {self._me}
        if self._me in boxes or not self._sharers <= set(self._keys.members):
            raise self._broken("passed on shares of a client that is no peer in this sum")
        if len(self._sharers) < self._terms.threshold:
            raise self._broken(f"goes on with {len(self._sharers)} clients, and {self._terms.threshold} are agreed")
        if len(message.digests) != 2 * DIGEST_BYTES * len(boxes):
            raise self._broken("did not pass on the digests of the two shares in each box")
        for number, (sender, box) in enumerate(boxes.items()):
            self._open(sender, box, message.digests[2 * DIGEST_BYTES * number :][: 2 * DIGEST_BYTES])
        if 2 * len(self.refused) > len(boxes):  # so many dealers do not deviate at once
            raise self._broken(f"passed on {len(boxes)} boxes of shares of which {len(self._shares) - 1} open")
        masked = words.astype(machine_word(self._terms.word_bits))
        add_mask(masked, self._seed)
        for peer in self._sharers - {self._me}:
            seed = mask_seed(self._masking, self._keys, self._me, peer)
            (add_mask if self._keys.index(self._me) < self._keys.index(peer) else subtract_mask)(masked, seed)
        return MaskedReply(self._number, pack(masked, self._terms.word_bits))

    def unmask(self, message: UnmaskTask) -> UnmaskShares:
        """For each sharer one kind of share: of its self mask if its words came, of its masking key if not."""
        if not self._shares:
            raise self._broken("asks for shares a second time")
        arrived = set(message.arrived)
        if len(arrived) != len(message.arrived) or not arrived <= self._sharers:
            raise self._broken("names a client twice, or one that has no part in this sum, among those that came")
        if self._me not in arrived:
            raise self._broken("says that this client's words did not come, and asks it to help open the sum")
        if len(arrived) < self._terms.threshold:
            raise self._broken(f"would open a sum over {len(arrived)} clients, and {self._terms.threshold} are agreed")
        shares_by_member, self._shares = self._shares, {}  # never both kinds, and never twice
        return UnmaskShares(
            self._number,
            tuple((peer, shares[:SHARE_BYTES]) for peer, shares in shares_by_member.items() if peer in arrived),
            tuple((peer, shares[SHARE_BYTES:]) for peer, shares in shares_by_member.items() if peer not in arrived),
        )

    def _checked(self, message: PairKeys) -> KeyList:
        keys = {member: PublicPair(masking, sealing) for member, masking, sealing, _ in message.keys}
        if len(keys) != len(message.keys) or not keys.keys() <= set(self._terms.roster):
            raise self._broken("lists keys of a client twice, or of one outside the roster")
        if keys.get(self._me) != self._public:
            raise self._broken("lists keys as this client's that it did not send")
        if not len(keys) / 2 < self._terms.threshold <= len(keys):
            raise self._broken(
                f"lists {len(keys)} clients, which do not go with a threshold of {self._terms.threshold}"
            )
        try:
            return self._terms.key_list(self._number, keys)
        except InvalidKey as error:
            raise self._broken(f"lists keys that it must refuse: {error}") from error

    def _open(self, sender: PartyId, box: bytes, digests: bytes) -> None:
        """Hold what is in the box, if it is what its dealer announced: else giving it would look like a forgery."""
        try:
            content = unseal(sealing_key(self._sealing, self._keys, sender, self._me, self._me), box)
        except InvalidBox as error:
            self.refused.append(Refused(sender, f"{sender}'s shares in sum {self._number}: {error}"))
            return
        if len(content) != 2 * SHARE_BYTES:
            self.refused.append(Refused(sender, f"{sender}'s shares in sum {self._number} have a wrong length"))
        elif not self._announced(content, digests):
            self.refused.append(Refused(sender, f"{sender}'s shares in sum {self._number} are not those it announced"))
        else:
            self._shares[sender] = content

    def _announced(self, content: bytes, digests: bytes) -> bool:
        shares = ((SELF_MASK, content[:SHARE_BYTES]), (MASKING_KEY, content[SHARE_BYTES:]))
        return b"".join(share_digest(self._keys, kind, share) for kind, share in shares) == digests

    def _broken(self, what: str) -> RemoteProtocolError:
        return RemoteProtocolError(f"{self._aggregator}, in secure sum {self._number}, {what}")
