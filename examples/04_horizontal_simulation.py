"""Forty clients on one machine: the roles that run between servers, without a server.

Images of digits are dealt so unevenly that a client has few of the ten classes. The argument `compressed` sends and
stores parameters in four bits each. `vfl run SPEC` does the same from a file and keeps what comes of it.
"""
# ruff: noqa: INP001, T201

import sys
from collections import Counter
from pathlib import Path

import numpy as np

from parties.simulation.driver import simulate
from parties.simulation.specification import load_whole, read_federation, setups

SPEC = """
[job]
name = "digits"
protocol = "rounds"
task = "multiclass"
classes = 10
[simulation]
dataset = "digits"
clients = 40
partition = {{ kind = "dirichlet", alpha = 0.3 }}
[model]
network = "mlp"
hidden = [64]
input_shape = [64]
input_range = [0.0, 16.0]
label = "digit"
[train]
batch_rows = 16
optimiser = {{ rate = 0.2 }}
[rounds]
rounds = 20
clients_per_round = 20
parts = [{parts}]
"""

parts = '"compressed_sync"' if "compressed" in sys.argv[1:] else ""
federation = read_federation(SPEC.format(parts=parts))
given = setups(federation, load_whole(federation, Path()))
classes = [len(np.unique(given[client].table.labels)) for client in federation.spec.roster.clients]
print(f"{len(classes)} clients with {min(classes)} to {max(classes)} classes each")

simulated = simulate(given)
sizes = Counter[str]()
for message in simulated.traffic:
    sizes[message.kind] += message.payload_bytes
print(", ".join(f"{kind} {size:,} bytes" for kind, size in sizes.items()))
print(f"held-out accuracy: {simulated.results['aggregator'].metrics['accuracy']:.3f}")
