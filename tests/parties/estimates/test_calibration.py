"""What operations cost on a machine is measured once, and anew when the machine or its libraries change."""

import json
from pathlib import Path

import pytest

from parties.estimates.calibration import FILE, Calibration, load, store
from parties.estimates.costs import cost_of
from parties.estimates.estimate import Estimate, estimated
from parties.estimates.estimator import measured_estimate
from vfl.kinds import kind_of, read_spec
from vfl.planning.work import Turn

ROWS = 4000
ALIGNMENT = """
[job]
name = "common"
protocol = "alignment"
[roster]
parties = ["bank", "telco"]
[data.bank]
dataset = "people"
id = ["customer"]
[data.telco]
dataset = "people"
id = ["customer"]
"""
SPEC = read_spec(ALIGNMENT)


def of(folder: Path, rows: int = ROWS, *, together: bool = False) -> Estimate:
    plan = kind_of(SPEC).plan(SPEC, "bank", rows)
    all_rows = {party: {"rows": rows} for party in SPEC.parties}
    return measured_estimate(folder, SPEC, plan, all_rows, [], together=together)


def test_costs_are_measured_once_and_kept_with_the_machine_and_the_libraries(tmp_path: Path) -> None:
    first = of(tmp_path)
    kept = (tmp_path / FILE).read_bytes()
    assert of(tmp_path) == first  # from the same costs
    assert (tmp_path / FILE).read_bytes() == kept
    assert (tmp_path / FILE).stat().st_mode & 0o077 == 0
    written = json.loads(kept)
    assert {"processor", "python", "tenseal", "torch", "numpy"} <= written["machine"].keys()
    groups = {name.partition("/")[0] for name in written["costs"]}
    assert groups == {"process", "server", "ristretto"}  # what this job needs, and no more


def test_another_version_of_a_library_makes_costs_unknown(tmp_path: Path) -> None:
    here = Calibration(load(tmp_path).machine, {"ristretto/power": 1.0})
    store(tmp_path, here)
    assert load(tmp_path) == here
    store(tmp_path, Calibration(here.machine | {"tenseal": "0.0.1"}, here.costs))
    assert load(tmp_path) == Calibration(here.machine)
    (tmp_path / FILE).write_text("half a file {")
    assert load(tmp_path) == Calibration(here.machine)


def test_twice_the_ids_take_about_twice_the_work_and_one_machine_for_all_takes_longer(tmp_path: Path) -> None:
    small, large, shared = of(tmp_path, 100_000), of(tmp_path, 200_000), of(tmp_path, 100_000, together=True)
    assert 1.8 < large.processor_seconds["bank"] / small.processor_seconds["bank"] < 2.1
    assert shared.seconds > small.seconds
    assert shared.processor_seconds == small.processor_seconds
    assert small.security_bits == 125
    assert small.opened_values["telco"] == 1_000_001  # align.maximum_ids, and how many ids the bank brings


def test_a_cost_between_measured_numbers_of_primes_lies_between_theirs() -> None:
    costs = {"ckks/product@2": 2.0, "ckks/product@4": 6.0, "ckks/key": 1.0}
    assert cost_of("ckks/product@3", costs) == pytest.approx(4.0)
    assert cost_of("ckks/product@5", costs) == pytest.approx(8.0)
    assert cost_of("ckks/key", costs) == 1.0


def test_parties_that_work_at_the_same_time_share_the_cores_of_one_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("parties.estimates.estimate.cores", lambda: 2)
    plan = kind_of(SPEC).plan(SPEC, "bank", ROWS)
    first, second = SPEC.parties
    turns = (Turn("steps", 3, {first: {"seconds": 2.0}, second: {"seconds": 4.0}}),)
    spread = (Turn("steps", 1, {first: {"seconds": 6.0}, second: {"seconds": 6.0}}, is_shared=True),)

    def seconds(of_turns: tuple[Turn, ...], *, together: bool) -> float:
        return estimated(SPEC, plan, {}, of_turns, {}, (), together=together).seconds

    assert (seconds(turns, together=False), seconds(turns, together=True)) == (12.0, 12.0)
    assert (seconds(spread, together=False), seconds(spread, together=True)) == (3.0, 6.0)
    monkeypatch.setattr("parties.estimates.estimate.cores", lambda: 1)
    assert (seconds(turns, together=False), seconds(turns, together=True)) == (12.0, 18.0)
