"""Two parties in one process: the same roles and messages as between two servers, with nothing in between.

A wine maker and a laboratory know different things about 178 bottles. Run it as it is for clear training, or with the
argument `ckks` for the same training on ciphertexts.
"""
# ruff: noqa: INP001, T201

import sys

import numpy as np
from sklearn.datasets import load_wine

from vfl.flow import run_together
from vfl.kinds import flow_of, read_spec_as
from vfl.planning.training import resolve
from vfl.setup import Setup, Table
from vfl.spec.training import TrainingSpec

SPEC = """
[job]
name = "wine"
task = "multiclass"
classes = 3
[roster]
label = "maker"
features = ["laboratory"]
[data.maker]
dataset = "bottles"
columns = ["alcohol", "malic_acid", "ash"]
label = "variety"
[data.laboratory]
dataset = "samples"
columns = ["flavanoids", "hue", "proline"]
[train]
epochs = 10
batch_rows = 142
optimiser = {{ rate = 0.5, momentum = 0.9 }}
[encryption]
scheme = "{scheme}"
"""

scheme = sys.argv[1] if len(sys.argv) > 1 else "none"
spec = resolve(read_spec_as(TrainingSpec, SPEC.format(scheme=scheme)))
wine, roles = load_wine(), {}
for party in spec.parties:
    columns = wine.data[:, [wine.feature_names.index(name) for name in spec.data[party].columns]]
    labels = wine.target.astype(np.float64) if party == spec.roster.label else None
    table = Table(ids_digest=bytes(32), columns=columns, labels=labels)
    setup = Setup(spec, party, {"rows": table}, joint_seed=b"both", private_seed=party.encode())
    roles[party] = flow_of(setup)

together = run_together(roles)
print(*str(together).splitlines()[:8], sep="\n")
print(f"... {len(together.transcript)} messages in all")
print(f"held-out accuracy: {together.results['maker'].metrics['accuracy']:.3f}")
