"""Ways to deal the rows of one table to many clients, for simulations and benchmarks (rounds.md).

Each returns one ascending array of row numbers per client: disjoint, and together all rows. A client that a draw leaves
under `minimum` rows is given rows, drawn at random, of the client that has most: the roster names the clients, so none
may vanish. Raises ImpossibleJob where no draw could do.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vfl.errors import ImpossibleJob
from vfl.schedule import permutation, philox

Rows = list[NDArray[np.int64]]

FEWEST_ROWS = 10


def even(labels: NDArray[Any], clients: int, seed: bytes, minimum: int = FEWEST_ROWS) -> Rows:
    """Rows at random, the same number for each client up to one."""
    _check(len(labels), clients, minimum)
    return _ascending(np.array_split(permutation(seed, "even", len(labels)), clients))


def dirichlet(labels: NDArray[Any], clients: int, alpha: float, seed: bytes, minimum: int = FEWEST_ROWS) -> Rows:
    """Each class is dealt in shares drawn from Dirichlet(alpha) over clients (Hsu et al. 2019).

    The smaller alpha, the fewer classes a client has.
    """
    _check(len(labels), clients, minimum, alpha)
    if not np.array_equal(labels, np.rint(labels)):
        raise ImpossibleJob(
            "a Dirichlet partition deals classes, and these labels are no whole numbers",
            fix="Use quantity skew, shards or an even partition for a regression.",
        )
    draws = np.random.Generator(philox(seed, "dirichlet"))
    order = permutation(seed, "dirichlet rows", len(labels))
    dealt: list[list[NDArray[np.int64]]] = [[] for _ in range(clients)]
    for label in np.unique(labels):
        shares = draws.dirichlet(np.full(clients, alpha))
        for client, rows in enumerate(_in_shares(order[labels[order] == label], shares)):
            dealt[client].append(rows)
    return _filled([np.concatenate(rows) for rows in dealt], minimum, seed)


def shards(labels: NDArray[Any], clients: int, shards_per_client: int, seed: bytes, minimum: int = FEWEST_ROWS) -> Rows:
    """Rows sorted by label are cut into equal shards, and each client is dealt some (McMahan et al. 2017)."""
    _check(len(labels), clients, minimum)
    count = clients * shards_per_client
    if not 1 <= count <= len(labels):
        raise ImpossibleJob(
            f"{len(labels)} rows cannot be cut into {count} shards",
            fix="Give each client at least one shard, and ask for fewer shards per client or fewer clients.",
        )
    order = permutation(seed, "shard rows", len(labels))
    cuts = np.array_split(order[np.argsort(labels[order], kind="stable")], count)
    hands = permutation(seed, "shards", count).reshape(clients, shards_per_client)
    return _filled([np.concatenate([cuts[shard] for shard in hand]) for hand in hands], minimum, seed)


def quantity_skew(labels: NDArray[Any], clients: int, alpha: float, seed: bytes, minimum: int = FEWEST_ROWS) -> Rows:
    """Rows at random, but numbers of rows in shares drawn from Dirichlet(alpha): clients of very different size."""
    _check(len(labels), clients, minimum, alpha)
    shares = np.random.Generator(philox(seed, "quantity skew")).dirichlet(np.full(clients, alpha))
    return _filled(_in_shares(permutation(seed, "quantity rows", len(labels)), shares), minimum, seed)


def _in_shares(rows: NDArray[np.int64], shares: NDArray[np.float64]) -> Rows:
    return np.split(rows, np.rint(np.cumsum(shares)[:-1] * len(rows)).astype(np.int64))


def _filled(dealt: Rows, minimum: int, seed: bytes) -> Rows:
    by_rows = sorted(range(len(dealt)), key=lambda client: len(dealt[client]))
    while (missing := minimum - len(dealt[by_rows[0]])) > 0:
        poorest, richest = by_rows[0], by_rows[-1]
        moved = min(missing, len(dealt[richest]) - minimum)
        order = dealt[richest][permutation(seed, f"filling {poorest} {missing}", len(dealt[richest]))]
        dealt[poorest], dealt[richest] = np.concatenate([dealt[poorest], order[:moved]]), order[moved:]
        by_rows.sort(key=lambda client: len(dealt[client]))
    return _ascending(dealt)


def _ascending(dealt: Rows) -> Rows:
    return [np.sort(rows) for rows in dealt]


def _check(rows: int, clients: int, minimum: int, alpha: float = 1.0) -> None:
    if clients < 1 or clients * minimum > rows or clients > rows:
        raise ImpossibleJob(
            f"{rows} rows cannot be dealt to {clients} clients of at least {minimum} rows each",
            fix=f"At most {rows // max(minimum, 1)} clients can have that many; name fewer, or a smaller minimum.",
        )
    if not 0 < alpha < float("inf"):
        raise ImpossibleJob(
            f"alpha is {alpha:g}, and a Dirichlet distribution has a positive one",
            fix="0.1 is strong skew, 100 is nearly even.",
        )
