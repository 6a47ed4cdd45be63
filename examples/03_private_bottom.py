"""A bottom model of one's own: any torch module, known to the peer by its width alone (layout embeddings).

A laboratory lets its module learn from the errors that a clinic sends back. Those bear labels; the job says in one line
what the laboratory reads. Argument `ckks`: the same training on ciphertexts. Between servers the module is named under
[bottom] in the laboratory's party.toml.
"""
# ruff: noqa: INP001, T201

import sys

import numpy as np
import torch
from sklearn.datasets import load_breast_cancer

from vfl.flow import run_together
from vfl.kinds import flow_of, read_spec_as
from vfl.planning.training import plan, resolve
from vfl.setup import Setup, Table
from vfl.spec.training import TrainingSpec

SPEC = """
job = {{ name = "diagnosis", task = "binary" }}
roster = {{ label = "clinic", features = ["laboratory"] }}
train = {{ epochs = 8, batch_rows = 228, optimiser = {{ name = "adam", rate = 0.05 }} }}
encryption = {{ scheme = "{scheme}" }}
[data]
clinic = {{ dataset = "patients", columns = ["mean radius", "mean texture"], label = "benign" }}
laboratory = {{ dataset = "cells", columns = ["mean symmetry", "worst area", "worst concavity", "worst texture"] }}
[model]
layout = "embeddings"
bottom = {{ kind = "private", out = 3 }}
top = {{ kind = "mlp", hidden = [4] }}
[protection]
cut_noise = {{ method = "isotropic", scale = 0.05 }}
"""


def bottom(columns: int, width: int) -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Linear(columns, 8), torch.nn.GELU(), torch.nn.Linear(8, width), torch.nn.Tanh())


spec = resolve(read_spec_as(TrainingSpec, SPEC.format(scheme=sys.argv[1] if len(sys.argv) > 1 else "none")))
cells, roles = load_breast_cancer(), {}
for party in spec.parties:
    columns = cells.data[:, [cells.feature_names.tolist().index(name) for name in spec.data[party].columns]]
    labels = cells.target.astype(np.float64) if party == spec.roster.label else None
    table, seed = Table(bytes(32), columns, labels), party.encode()
    setup = Setup(spec, party, {"rows": table}, joint_seed=b"both", private_seed=seed, bottom=bottom)
    roles[party] = flow_of(setup)

for line in plan(spec, len(cells.target)).reveals:
    if line.receiver == "laboratory" and line.grain == "per row":
        print(f"laboratory reads {line.values:,} values of {line.message}: {line.learns}")
print(f"held-out AUC: {run_together(roles).results['clinic'].metrics['auc']:.3f}")
