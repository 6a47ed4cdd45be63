"""The job the two parties of the demonstration run, and the policy floors both lower for it by name."""

import json
import math
from dataclasses import dataclass, replace
from typing import Any

from api.demo.tables import DATASET, FEATURE_PARTY, LABEL_PARTY, DividedTable, Training
from crypto.ckks_parameters import ROOMY_VALUES_PER_KEY, preset_for
from vfl.job import JobSpec, read_spec
from vfl.planner import Plan, plan, resolve

MINIMUM_ROWS = 1000
MAXIMUM_RHO = 0.05
"""The policy floor of trust.md 8, which every party.toml starts from."""

LARGEST_BATCH = 4096
DEADLINE_SECONDS = 3600
TEST_SHARE = 0.2


@dataclass(frozen=True)
class Floor:
    """A rule both parties loosen for this job."""

    name: str
    """The key under [acceptance] in party.toml."""
    usual: float
    lowered: float

    def __str__(self) -> str:
        return f"{self.name} {self.usual:g} -> {self.lowered:g}"


@dataclass(frozen=True)
class Agreement:
    """The specification as text and as parsed, what it will do, and what it asks of both policies."""

    text: str
    spec: JobSpec
    plan: Plan
    floors: tuple[Floor, ...]

    @property
    def acceptance(self) -> dict[str, Any]:
        """The [acceptance] table of both parties: this job and no other kind."""
        return {
            "datasets": [DATASET],
            "schemes": [self.spec.encryption.scheme],
            "fixed_seed": True,
            **{floor.name: floor.lowered for floor in self.floors},
        }


def agree(table: DividedTable, *, scheme: str, epochs: int | None, seed: int) -> Agreement:
    """The job for a table. Raises ImpossibleJob when no run could satisfy it."""
    training = replace(table.training, epochs=epochs) if epochs else table.training
    text = _text(table, training, scheme, seed)
    spec = resolve(read_spec(text))
    expected = plan(spec, table.rows)
    return Agreement(text, spec, expected, _floors(expected))


def training_for(training_rows: int, opened_per_step: int, outputs: int) -> Training:
    """How a table of unknown origin is trained: the smallest batch that meets every floor, where the rows allow it."""
    epochs = 10
    # encrypted-training.md 5: at least 64 rows, four per opened value, and rho = epochs x outputs / batch <= 0.05.
    wanted = max(64, 4 * opened_per_step, math.ceil(epochs * outputs / MAXIMUM_RHO))
    batches = max(1, training_rows // wanted, math.ceil(training_rows / LARGEST_BATCH))
    return Training(epochs, math.ceil(training_rows / batches), rate=0.1, momentum=0.5)


def _floors(expected: Plan) -> tuple[Floor, ...]:
    floors = []
    if expected.rows < MINIMUM_ROWS:
        floors.append(Floor("minimum_rows", MINIMUM_ROWS, expected.rows))
    if expected.smallest_batch < expected.minimum_batch:
        floors.append(Floor("minimum_batch_rows", expected.minimum_batch, expected.smallest_batch))
    if expected.rho > MAXIMUM_RHO:
        floors.append(Floor("maximum_rho", MAXIMUM_RHO, math.ceil(1000 * expected.rho) / 1000))
    return tuple(floors)


def _text(table: DividedTable, training: Training, scheme: str, seed: int) -> str:
    lines = [
        "spec_version = 1",
        "[job]",
        f"name = {_toml(f'demo-{table.name}')}",
        'protocol = "training"',
        f"task = {_toml(table.task)}",
        *([f"classes = {table.classes}"] if table.classes else []),
        'purpose = "demonstration on one machine"',
        f"seed = {seed}",
        f"deadline_seconds = {DEADLINE_SECONDS}",
        "[roster]",
        f"label = {_toml(LABEL_PARTY)}",
        f"features = {_toml([FEATURE_PARTY])}",
        f"[data.{LABEL_PARTY}]",
        f"dataset = {_toml(DATASET)}",
        f"columns = {_toml(table.own_columns)}",
        f"label = {_toml(table.label)}",
        f"[data.{FEATURE_PARTY}]",
        f"dataset = {_toml(DATASET)}",
        f"columns = {_toml(table.feature_columns)}",
        "[split]",
        f"test = {TEST_SHARE}",
        "[train]",
        f"epochs = {training.epochs}",
        f"batch_rows = {training.batch_rows}",
        f'optimiser = {{ name = "sgd", rate = {training.rate}, momentum = {training.momentum} }}',
        "[encryption]",
        f"scheme = {_toml(scheme)}",
    ]
    if scheme == "ckks" and table.opened_per_step > _guarded_values_per_key(table.task):
        # One step opens more than the cap that also holds against a label party that deviates.
        lines.append(f"values_per_key = {ROOMY_VALUES_PER_KEY}")
    return "\n".join(lines) + "\n"


def _guarded_values_per_key(task: str) -> int:
    return preset_for("linear", "squared" if task == "regression" else "linear").values_per_key


def _toml(value: Any) -> str:
    # Strings and lists of strings are written alike in TOML and in JSON without escapes beyond ASCII.
    return json.dumps(value, ensure_ascii=False)
