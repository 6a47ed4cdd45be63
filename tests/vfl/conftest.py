"""Two or more parties in one process: the same roles and messages as between servers."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from rounds_federation import check_sizes
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits

from crypto.ckks_parameters import PRESETS, CkksPreset
from vfl.flow import Together, run_together
from vfl.kinds import flow_of, read_spec_as
from vfl.planning.training import preset_of, resolve
from vfl.reports import Outcome
from vfl.setup import Setup, Table
from vfl.spec.sections import Role
from vfl.spec.training import TrainingSpec

Floats = NDArray[np.float64]

LABEL, FEATURE = "bank", "telco"
JOINT_SEED = hashlib.sha256(b"joint").digest()


@dataclass(frozen=True)
class Joined:
    """A table before it is split between parties."""

    task: str
    columns: Floats
    labels: Floats
    own: tuple[int, ...]
    """Columns of the label party; the feature parties share the others in turn."""

    @property
    def theirs(self) -> tuple[int, ...]:
        return tuple(i for i in range(self.columns.shape[1]) if i not in self.own)


@pytest.fixture(scope="session")
def breast_cancer() -> Joined:
    columns, labels = load_breast_cancer(return_X_y=True)
    return Joined("binary", columns, labels.astype(np.float64), tuple(range(10, 20)))


@pytest.fixture(scope="session")
def diabetes() -> Joined:
    columns, labels = load_diabetes(return_X_y=True)
    return Joined("regression", columns, labels, (0, 1, 4, 5))


@pytest.fixture(scope="session")
def digits() -> Joined:
    columns, labels = load_digits(return_X_y=True)
    return Joined("multiclass", columns, labels.astype(np.float64), tuple(i for i in range(64) if i % 8 >= 4))


def specification(
    joined: Joined, *, feature_parties: int = 1, model: str = "", cut_noise: str = "", **options: Any
) -> TrainingSpec:
    """A resolved job on this table; options by dotted name, such as train_epochs; model and cut_noise as TOML."""
    shares = {f"{FEATURE}-{i}": joined.theirs[i::feature_parties] for i in range(feature_parties)}
    sections: dict[str, dict[str, Any]] = {
        "train": {"epochs": 2, "batch_rows": 128},
        "optimiser": {"rate": 0.1, "momentum": 0.9},
        "encryption": {},
    }
    for name, value in options.items():
        section, _, key = name.partition("_")
        sections[section][key] = value

    def table(entries: Mapping[str, Any]) -> str:
        return ", ".join(f"{key} = {value!r}" for key, value in entries.items())

    brought = "\n".join(
        f'{party} = {{ dataset = "f", columns = {[f"c{i}" for i in share]} }}' for party, share in shares.items()
    )
    parts = f"model = {{ {model} }}\n" if model else ""
    parts += f"protection = {{ cut_noise = {{ {cut_noise} }} }}\n" if cut_noise else ""
    classes = "classes = 10" if joined.task == "multiclass" else ""
    training = "\n".join(table({key: value}) for key, value in sections["train"].items())
    return resolve(
        read_spec_as(
            TrainingSpec,
            f"""
        encryption = {{ {table(sections["encryption"])} }}

        {parts}
        [job]
        name = "test"
        task = "{joined.task}"
        {classes}
        [roster]
        label = "{LABEL}"
        features = {list(shares)}
        [train]
        {training}
        optimiser = {{ {table(sections["optimiser"])} }}
        [data]
        {LABEL} = {{ dataset = "l", label = "y", columns = {[f"c{i}" for i in joined.own]} }}
        {brought}
        """,
        )
    )


def setups(spec: TrainingSpec, joined: Joined) -> dict[str, Setup[TrainingSpec]]:
    def setup(party: str) -> Setup[TrainingSpec]:
        columns = joined.columns[:, [int(name[1:]) for name in spec.data[party].columns]]
        labels = joined.labels if party == LABEL else None
        private = hashlib.sha256(party.encode()).digest()
        return Setup(spec, party, {"rows": Table(bytes(32), columns, labels)}, JOINT_SEED, private)

    return {party: setup(party) for party in spec.parties}


def train(spec: TrainingSpec, joined: Joined) -> Together[Outcome]:
    return run_together({party: flow_of(setup) for party, setup in setups(spec, joined).items()})


@pytest.fixture(scope="session")
def federation() -> Callable[..., tuple[TrainingSpec, Together[Outcome]]]:
    """Trains on a joined table; options as in `specification`, `change` changes the preset they name."""

    def run(
        joined: Joined, *, change: Callable[[CkksPreset], CkksPreset] | None = None, **options: Any
    ) -> tuple[TrainingSpec, Together[Outcome]]:
        spec = specification(joined, **options)
        with pytest.MonkeyPatch.context() as presets:
            if change is not None:
                presets.setitem(PRESETS, spec.ckks.preset, change(preset_of(spec)))
            together = train(spec, joined)
        check_sizes(spec, together, len(joined.labels))
        return spec, together

    return run


@pytest.fixture(scope="session")
def make_setups() -> Callable[..., dict[str, Setup[TrainingSpec]]]:
    def make(joined: Joined, **options: Any) -> dict[str, Setup[TrainingSpec]]:
        return setups(specification(joined, **options), joined)

    return make


@pytest.fixture(scope="session")
def role_of() -> Callable[[Setup[TrainingSpec]], Role]:
    return lambda setup: setup.spec.role_of(setup.me)
