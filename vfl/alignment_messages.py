"""Every message that may leave a party while it aligns its ids with others, and what its receiver can read out of it.

A part of the privacy surface: see `messages.py`.
"""

from vfl.message import Grain, Message, Reveals


class IdCount(Message, frozen=True, tag=True):
    """Alignment, first: how many ids its sender brings."""

    reveals = Reveals("how many ids its sender brings", Grain.TABLE, "none")
    ids: int


class SealedBatch(Message, frozen=True, tag=True):
    """Alignment: SHA-256 of a batch of points that will be shown once the receiver's are sealed too."""

    reveals = Reveals(
        "nothing: the digest of a batch of points", Grain.NOTHING, "the points are too random to be guessed"
    )
    batch: int
    """From 0, over all batches that its sender seals."""
    digest: bytes


class BlindedIds(Message, frozen=True, tag=True):
    """Alignment: points of a batch of its sender's ids, 32 bytes each, in a fresh order, with a control point."""

    reveals = Reveals(
        "nothing: points that nobody can tell from random ones",
        Grain.NOTHING,
        "ristretto255, decisional Diffie-Hellman: a scalar that is fresh for each job",
    )
    batch: int
    points: bytes


class DoubleBlindedIds(Message, frozen=True, tag=True):
    """Alignment, reveal `intersection`: what the sender's scalar makes of the receiver's points, each in its place."""

    reveals = Reveals(
        "which of its own ids the sender has too",
        Grain.ROW,
        "ids that one side alone has stay hidden: decisional Diffie-Hellman; a smallest number of ids, few runs a day",
    )
    batch: int
    points: bytes


class ShuffledDoubleBlindedIds(Message, frozen=True, tag=True):
    """Alignment, reveal `size-only`: the same, shuffled over the whole table before it was made."""

    reveals = Reveals(
        "how many of its own ids the sender has too",
        Grain.TABLE,
        "shuffled before the second blinding; a smallest number of ids, few runs a day",
    )
    batch: int
    points: bytes


class CommonDigest(Message, frozen=True, tag=True):
    """Alignment, last: SHA-256 of the points of the common ids, in order."""

    reveals = Reveals("nothing: the receiver holds these points too", Grain.NOTHING)
    digest: bytes


class PartySizes(Message, frozen=True, tag=True):
    """Alignment of many: how many ids each party brings, in the order of the roster."""

    reveals = Reveals("how many ids each party brings", Grain.TABLE, "none")
    ids: tuple[int, ...]


class BlindedList(Message, frozen=True, tag=True):
    """Alignment of many: a batch of the list of points that its sender has in this lap, blinded by it too."""

    reveals = Reveals(
        "with those of the others, how many ids any group of parties shares",
        Grain.TABLE,
        "which ones is hidden: ristretto255, a scalar of each party that is fresh for each job",
    )
    lap: int
    """From 0, in which it is the sender's own list."""
    batch: int
    points: bytes


class ListToBlind(Message, frozen=True, tag=True):
    """Alignment of many: the same batch on its way to the next party."""

    reveals = Reveals("nothing: points that nobody can tell from random ones", Grain.NOTHING, "as of BlindedList")
    lap: int
    batch: int
    points: bytes


class CommonPlaces(Message, frozen=True, tag=True):
    """Alignment of many: the places of the common ids in the receiver's own list, u32 each, in the common order."""

    reveals = Reveals("which of its own ids all parties have", Grain.ROW, "ids that some parties have stay hidden")
    places: bytes
    digest: bytes


class WhichPlaces(Message, frozen=True, tag=True):
    """Alignment of many: the same of the coordinator's list, to the one party that has shuffled it."""

    reveals = Reveals("how many ids all parties have", Grain.TABLE, "none")
    places: bytes


class PlacesBefore(Message, frozen=True, tag=True):
    """Alignment of many: where these points stood before."""

    reveals = Reveals("which of its own ids all parties have", Grain.ROW, "as many as the sender was told of its own")
    places: bytes


class CommonCount(Message, frozen=True, tag=True):
    """Alignment of many, reveal `size-only`."""

    reveals = Reveals("how many ids all parties have", Grain.TABLE, "none")
    ids: int
