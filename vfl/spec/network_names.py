"""Names of the blocks of horizontal networks, known without torch so that a specification can be checked anywhere."""

from vfl.errors import ImpossibleJob

NETWORKS: dict[str, tuple[int, ...]] = {"mlp": (64, 32), "small_cnn": (16, 32, 32, 64)}
"""Networks by name, each with the widths it has when a job names none."""

FEWEST_WIDTHS = {"mlp": 1, "small_cnn": 2}

FIRST_BLOCK = {"mlp": (), "small_cnn": ("stem",)}

BETWEEN = {"mlp": "hidden", "small_cnn": "block"}
"""Blocks between the first one and `features` are numbered from 1 under this name."""


def widths_of(network: str, hidden: tuple[int, ...]) -> tuple[int, ...]:
    """One width per block but the head: neurons, or channels up to `features`. Raises ImpossibleJob."""
    if network not in NETWORKS:
        raise ImpossibleJob(f"there is no network {network!r}", fix=f"Networks are {', '.join(NETWORKS)}.")
    widths = hidden or NETWORKS[network]
    if len(widths) < FEWEST_WIDTHS[network]:
        raise ImpossibleJob(
            f"network {network} has at least {FEWEST_WIDTHS[network]} widths, here hidden = {list(hidden)}",
            fix=f"Give a width for the stem and one for the features, or none at all for {list(NETWORKS[network])}.",
        )
    if min(widths) < 1:
        raise ImpossibleJob(f"hidden = {list(hidden)} has a layer without neurons", fix="Every width is at least 1.")
    return widths


def block_names(network: str, hidden: tuple[int, ...]) -> tuple[str, ...]:
    """Names of the blocks in the order a row meets them; the last two are `features` and `head`."""
    first = FIRST_BLOCK[network] if network in NETWORKS else ()
    between = len(widths_of(network, hidden)) - len(first) - 1
    return (*first, *(f"{BETWEEN[network]}{k}" for k in range(1, between + 1)), "features", "head")


def cut_names(network: str, hidden: tuple[int, ...]) -> tuple[str, ...]:
    """Blocks after which a decoder may start: all but the last, which would leave none."""
    return block_names(network, hidden)[:-1]


def width_after(network: str, hidden: tuple[int, ...], block: str) -> int:
    """Neurons or channels that a block other than the head gives."""
    return widths_of(network, hidden)[block_names(network, hidden).index(block)]


def square_blocks(network: str, hidden: tuple[int, ...]) -> tuple[str, ...]:
    """Blocks as wide as the one before: they map a space into itself and may be left out (R1.1 `layers`)."""
    names, widths = block_names(network, hidden), widths_of(network, hidden)
    equal = [name for name, before, width in zip(names[1:], widths, widths[1:], strict=False) if before == width]
    return tuple(name for name in equal if network != "small_cnn" or name != "features")
