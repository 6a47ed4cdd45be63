"""Costs of operations by their names; `operation_costs` measures them, in a process of its own."""

from vfl.planning.work import SECONDS

Costs = dict[str, float]
"""Seconds of one operation, by `group/operation`."""
MEMORY = "memory"
"""Not an operation, but what the libraries of a group hold: bytes."""


def group_of(operation: str) -> str:
    return operation.partition("/")[0]


def cost_of(operation: str, costs: Costs) -> float:
    """Of numbers of primes that were not measured, what lies between those that were, or beyond them in a line."""
    if operation == SECONDS:
        return 1.0
    if operation in costs or "@" not in operation:
        return costs[operation]
    name, _, primes = operation.partition("@")
    measured = {int(at.partition("@")[2]): cost for at, cost in costs.items() if at.partition("@")[0] == name}
    if len(measured) == 1:
        return next(iter(measured.values()))
    low, high = sorted(sorted(measured, key=lambda at: abs(at - int(primes)))[:2])
    slope = (measured[high] - measured[low]) / (high - low)
    return max(0.0, measured[low] + slope * (int(primes) - low))
