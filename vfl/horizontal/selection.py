"""Which clients take part in a round (R0.4): drawn from (job seed, round), the same for whoever knows them."""

from collections.abc import Container, Sequence

from vfl.schedule import permutation
from vfl.spec.sections import PartyId


def cohort(
    seed: bytes, round_number: int, roster: Sequence[PartyId], present: Container[PartyId], size: int
) -> list[PartyId]:
    """The first `size` clients of a permutation of the roster that are there, in the order of the roster.

    An absent client is replaced and changes nobody else's turn. Fewer than `size` come back where fewer are there.
    """
    order = permutation(seed, f"cohort {round_number}", len(roster))
    chosen = set([roster[at] for at in order if roster[at] in present][:size])
    return [client for client in roster if client in chosen]
