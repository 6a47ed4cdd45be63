"""Small federations for tests of rounds: scikit-learn's digits dealt to a few clients, all roles in one thread."""

import hashlib
from collections.abc import Sequence

import numpy as np
from sklearn.datasets import load_digits

from parties.trust.budget import NAMES_BYTES
from vfl.flow import Flow, Together, run_together
from vfl.kinds import kind_of, read_spec_as
from vfl.message import MESSAGES, Grain
from vfl.protocols.rounds import aggregator, client
from vfl.reports import Outcome
from vfl.setup import Setup, Table
from vfl.spec.job import JobSpec
from vfl.spec.rounds import RoundsSpec

AGGREGATOR = "hub"
SEED = hashlib.sha256(b"joint").digest()

SPEC = """
job = {{name = "digits", protocol = "rounds", task = "multiclass", classes = 10}}
roster = {{aggregator = "hub", clients = [{clients}]}}
train = {{batch_rows = 32, optimiser = {{name = "sgd", rate = 0.1}}, proximal = {proximal}}}
[model]
network = "mlp"
hidden = {hidden}
norm = "{norm}"
input_shape = [64]
input_range = [0.0, 16.0]
label = "label"
[data]
hub = {{{tables}}}
{data}
[rounds]
rounds = {rounds}
local_epochs = 1
clients_per_round = {per_round}
min_clients = {min_clients}
parts = [{parts}]
{extra}
"""


def spec(
    clients: int = 3,
    rounds: int = 2,
    *,
    parts: Sequence[str] = (),
    extra: str = "",
    norm: str = "none",
    hidden: tuple[int, ...] = (32, 16),
    per_round: int = 0,
    min_clients: int = 1,
    proximal: float = 0.0,
    tables: Sequence[str] = ("test",),
) -> RoundsSpec:
    """`extra` continues [rounds] and may hold the parts' own tables."""
    names = [f"c{number}" for number in range(clients)]
    return read_spec_as(
        RoundsSpec,
        SPEC.format(
            clients=", ".join(f'"{name}"' for name in names),
            data="\n".join(f'{name} = {{dataset = "rows"}}' for name in names),
            tables=", ".join(f'{use} = "{use}-rows"' for use in tables),
            parts=", ".join(f'"{part}"' for part in parts),
            hidden=list(hidden),
            extra=extra,
            norm=norm,
            rounds=rounds,
            per_round=per_round,
            min_clients=min_clients,
            proximal=proximal,
        ),
    )


def tables(job: RoundsSpec, rows_each: int = 60) -> dict[str, dict[str, Table]]:
    """By party and use: disjoint digits, of sizes that differ from client to client."""
    digits = load_digits()
    columns, labels = digits.data.astype(np.float64), digits.target.astype(np.float64)
    start = 0

    def take(rows: int, *, labelled: bool = True) -> Table:
        nonlocal start
        part = slice(start, start + rows)
        start += rows
        return Table(bytes(32), columns[part], labels[part] if labelled else None)

    dealt: dict[str, dict[str, Table]] = {
        name: {"rows": take(rows_each + 7 * number)} for number, name in enumerate(job.roster.clients)
    }
    dealt[AGGREGATOR] = {use: take(200, labelled=use != "public") for use in job.tables_of(AGGREGATOR)}
    return dealt


def setups(job: RoundsSpec, saved: bytes = b"", rows_each: int = 60) -> dict[str, Setup[RoundsSpec]]:
    dealt = tables(job, rows_each)
    return {
        party: Setup(
            job,
            party,
            dealt[party],
            SEED,
            hashlib.sha256(party.encode()).digest(),
            saved=saved if party == AGGREGATOR else b"",
        )
        for party in job.parties
    }


def roles(given: dict[str, Setup[RoundsSpec]]) -> dict[str, Flow[Outcome]]:
    return {party: aggregator(setup) if party == AGGREGATOR else client(setup) for party, setup in given.items()}


def run(job: RoundsSpec, saved: bytes = b"", rows_each: int = 60) -> Together[Outcome]:
    together = run_together(roles(setups(job, saved, rows_each)))
    check_sizes(job, together, 0)
    return together


def check_sizes(job: JobSpec, together: Together[Outcome], rows: int) -> None:
    """No message is larger than what a server lets in of its kind."""
    most = kind_of(job).message_limits(job, rows)
    largest = kind_of(job).largest_messages(job, rows)
    for sent in together.transcript:
        assert sent.payload_bytes <= most[sent.kind], sent.kind
        if sent.kind in largest and MESSAGES[sent.kind].reveals.grain is not Grain.NOTHING:  # a budget has no margin
            assert sent.payload_bytes <= NAMES_BYTES + largest[sent.kind], sent.kind
    if job.required_parties == set(job.parties):  # no step is taken again
        for line in kind_of(job).plan(job, job.coordinator, rows).reveals:
            ends = (line.message, line.sender, line.receiver)
            sizes = [
                sent.payload_bytes for sent in together.transcript if (sent.kind, sent.sender, sent.receiver) == ends
            ]
            assert not line.values or len(sizes) == line.messages, ends
