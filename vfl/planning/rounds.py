"""What a job of rounds will do, as far as it follows from its specification without building the network."""

from vfl.planning.model_size import DOUBLE, bytes_of_rounds
from vfl.planning.plan import Plan, RevealLine
from vfl.routes import ROUTES, routes_of_rounds
from vfl.schedule import batch_sizes
from vfl.spec.rounds import RoundsRole, RoundsSpec
from vfl.spec.sections import HANDED_OUT_BYTES, PartyId

COLUMN_BYTES = 256
"""Of a message about the rows' columns: means and deviations, or their sums in words of a secure sum."""
MEMBER_BYTES = 1024
"""What one member of a secure sum adds to a message about all of them: its name, keys, sealed shares and digests."""
PER_ROUND = ("RoundTask", "RoundReply", "EvaluationTask")
ONCE = ("ClientReady", "ColumnScaling", "SharedRows", "Published")


def plan(spec: RoundsSpec, me: PartyId, rows: int) -> Plan:
    """Steps are rounds; `rows` are this party's own training rows, 0 at the aggregator."""
    own = rows if spec.role_of(me) is RoundsRole.CLIENT else 0
    return Plan(
        rows=own,
        training_rows=own,
        test_rows=0 if own else rows,
        steps=spec.rounds.rounds,
        smallest_batch=min(batch_sizes(own, spec.train.batch_rows)) if own else 0,
        reveals=_reveals(spec),
    )


def largest_messages(spec: RoundsSpec) -> dict[str, int]:
    """Payload bytes of one message at most, by kind."""
    # A codec spends up to a number and a place on each value; a second model travels beside the first.
    state = 2 * bytes_of_rounds(spec) * (1 if spec.backbone_decoder is None else 3)
    columns, member = COLUMN_BYTES * spec.inputs, MEMBER_BYTES * spec.cohort
    return {
        "ColumnScaling": columns,
        "RoundTask": state,
        "RoundReply": state,
        "EvaluationTask": state,
        "Published": state,
        "MaskedReply": max(state, columns),
        "SharedRows": HANDED_OUT_BYTES,
        **dict.fromkeys(("PairKeys", "SealedShares", "UnmaskTask", "UnmaskShares"), member),
    }


def memory_bytes(spec: RoundsSpec, rows: int) -> int:
    """Rows, and the model: as it came, as it is trained, its gradient and what it becomes."""
    return DOUBLE * 2 * rows * (spec.inputs + 1) + 4 * bytes_of_rounds(spec) * (
        1 if spec.backbone_decoder is None else 3
    )


def _reveals(spec: RoundsSpec) -> tuple[RevealLine, ...]:
    """How many messages of each kind each client sends or gets at most; how many values follows from the network.

    Clients are drawn anew for each round, so one of them may be drawn for all.
    """
    each = spec.rounds.rounds
    shared = spec.shared_data
    asks = shared is not None and shared.rule == "feddu" and shared.counts == "pooled"
    each_round, before = spec.rounds.secure_sum + asks + spec.evaluates_at_clients, spec.rounds.secure_sum + asks
    sums = each * each_round + before + spec.pools_columns
    counted = dict.fromkeys(PER_ROUND, each) | dict.fromkeys(ONCE, 1)
    lines = []
    for route in routes_of_rounds(spec):
        kind = route.message.kind()
        values = sums if route in ROUTES["secure_sum"] else counted[kind]
        for client in spec.roster.clients:
            players = {RoundsRole.CLIENT: client, RoundsRole.AGGREGATOR: spec.roster.aggregator}
            lines.append(RevealLine.of(route, players, values))
    return tuple(lines)
