"""What a job of rounds will do, as far as it follows from its specification without building the network."""

import math

from vfl.planning.model_size import model_bytes
from vfl.planning.plan import Plan, RevealLine
from vfl.routes import ROUTES, routes_of
from vfl.schedule import batch_sizes
from vfl.spec.rounds import RoundsSpec
from vfl.spec.sections import PartyId, Role

COLUMN_BYTES = 256
"""Of a message about the rows' columns: means and deviations, or their sums in words of a secure sum."""
MEMBER_BYTES = 1024
"""What one member of a secure sum adds to a message about all of them: its name, keys, sealed shares and digests."""
SHARED_ROWS_BYTES = 64 << 20
"""Of the rows an aggregator hands out. Their number stands in no specification: it counts them before it proposes."""
SHARED_VALUE_BYTES = 4
PER_ROUND = ("RoundTask", "RoundReply", "EvaluationTask")
ONCE = ("ClientReady", "ColumnScaling", "SharedRows", "Published")


def plan(spec: RoundsSpec, me: PartyId, rows: int) -> Plan:
    """Steps are rounds; `rows` are this party's own training rows, 0 at the aggregator."""
    own = rows if spec.role_of(me) is Role.CLIENT else 0
    return Plan(
        rows=own,
        training_rows=own,
        test_rows=0 if own else rows,
        steps=spec.rounds.rounds,
        smallest_batch=min(batch_sizes(own, spec.train.batch_rows)) if own else 0,
        opened_per_step=0,
        minimum_batch=0,
        rho=0.0,
        values_per_key=0,
        weight_noise=0.0,
        guards_deviating_label_party=False,
        payload_bytes={},
        reveals=_reveals(spec),
    )


def largest_messages(spec: RoundsSpec) -> dict[str, int]:
    """Payload bytes of one message at most, by kind."""
    # A codec spends up to a number and a place on each value; a second model travels beside the first.
    state = 2 * model_bytes(spec, spec.roster.aggregator) * (1 if spec.backbone_decoder is None else 3)
    columns, member = COLUMN_BYTES * spec.inputs, MEMBER_BYTES * spec.cohort
    return {
        "ColumnScaling": columns,
        "RoundTask": state,
        "RoundReply": state,
        "EvaluationTask": state,
        "Published": state,
        "MaskedReply": max(state, columns),
        "SharedRows": SHARED_ROWS_BYTES,
        **dict.fromkeys(("PairKeys", "SealedShares", "UnmaskTask", "UnmaskShares"), member),
    }


def _reveals(spec: RoundsSpec) -> tuple[RevealLine, ...]:
    """How many messages of each kind each client sends or gets at most; how many values follows from the network."""
    rounds = spec.rounds
    share = math.ceil(rounds.rounds * spec.cohort / len(spec.roster.clients))
    shared = spec.shared_data
    asks = shared is not None and shared.rule == "feddu" and shared.counts == "pooled"
    each_round, before = spec.rounds.secure_sum + asks + spec.evaluates_at_clients, spec.rounds.secure_sum + asks
    sums = share * each_round + before + spec.pools_columns
    counted = dict.fromkeys(PER_ROUND, share) | dict.fromkeys(ONCE, 1)
    lines = []
    for route in routes_of(spec):
        reveals, kind = route.message.reveals, route.message.kind()
        for client in spec.roster.clients:
            ends = {Role.CLIENT: client, Role.AGGREGATOR: spec.roster.aggregator}
            lines.append(
                RevealLine(
                    message=kind,
                    sender=ends[route.sender],
                    receiver=ends[route.receiver],
                    learns=reveals.learns,
                    grain=reveals.grain.value,
                    values=sums if route in ROUTES["secure_sum"] else counted[kind],
                    protection=reveals.protection,
                )
            )
    return tuple(lines)
