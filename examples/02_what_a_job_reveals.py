"""Before anything runs: what a job will open, to whom, and why the planner may refuse it.

Both sides compute this alike from the specification and the number of rows; no encryption library is loaded.
"""
# ruff: noqa: INP001, T201

from vfl.errors import ImpossibleJob
from vfl.kinds import read_spec_as
from vfl.planning.training import plan, resolve
from vfl.spec.training import TrainingSpec

SPEC = """
[job]
name = "credit-risk"
task = "binary"
[roster]
label = "bank"
features = ["telco"]
[data.bank]
dataset = "loans"
columns = ["income", "age"]
label = "default"
[data.telco]
dataset = "usage"
columns = [{columns}]
[train]
epochs = 20
batch_rows = 4096
"""


def spec_with(columns: int) -> str:
    return SPEC.format(columns=", ".join(f'"month_{number}"' for number in range(1, columns + 1)))


small = plan(resolve(read_spec_as(TrainingSpec, spec_with(12))), rows=30_000)
print(f"{small.steps} steps open {small.opened_per_step} values each, rho {small.rho:.4f}")
print("guarded against a deviating label party:", small.guards_deviating_label_party)
for line in small.reveals:
    if line.values:
        print(f"{line.receiver} reads {line.values:,} values from {line.message}: {line.learns}")

try:
    plan(resolve(read_spec_as(TrainingSpec, spec_with(400))), rows=30_000)
except ImpossibleJob as refusal:
    print(f"refused: {refusal}. {refusal.fix}")
