"""A party agrees only within its own rules; each refusal names the rule, the number and the limit."""

from typing import Any

import pytest
import rounds_federation as rounds

from parties.errors import PolicyRefused
from parties.policy import check_agreement, check_plan
from parties.settings import Acceptance
from vfl.kinds import read_spec_as
from vfl.planning.training import plan, resolve
from vfl.spec.training import TrainingSpec

AGREED: dict[str, Any] = {"peers": ("telco",), "datasets": ("table",)}


def spec(seed: str = '"joint"', scheme: str = "ckks", epochs: int = 1, batch_rows: int = 400) -> TrainingSpec:
    return resolve(
        read_spec_as(
            TrainingSpec,
            f"""
job = {{name = "test", task = "binary", seed = {seed}}}
roster = {{label = "bank", features = ["telco"]}}
train = {{epochs = {epochs}, batch_rows = {batch_rows}}}
encryption = {{scheme = "{scheme}"}}
[data]
bank = {{dataset = "table", label = "y"}}
telco = {{dataset = "other", columns = ["a", "b"]}}
""",
        )
    )


@pytest.mark.parametrize(
    ("changes", "acceptance", "rule"),
    [
        ({}, {"peers": ()}, "peers"),
        ({}, {"datasets": ("others",)}, "datasets"),
        ({"scheme": "none"}, {}, "schemes"),
        ({"seed": "3"}, {}, "fixed_seed"),
    ],
)
def test_what_is_not_allowed_by_name_is_refused_by_rule(
    changes: dict[str, Any], acceptance: dict[str, Any], rule: str
) -> None:
    check_agreement(spec(), "bank", Acceptance(**AGREED))
    with pytest.raises(PolicyRefused, match=rf"acceptance\.{rule}:"):
        check_agreement(spec(**changes), "bank", Acceptance(**(AGREED | acceptance)))


def test_a_model_larger_than_agreed_is_refused_with_both_numbers_before_it_is_built() -> None:
    check_agreement(spec(), "bank", Acceptance(**AGREED, maximum_model_bytes=24))  # two columns and an offset
    with pytest.raises(PolicyRefused, match=r"acceptance\.maximum_model_bytes: .* 24 bytes, more than 23"):
        check_agreement(spec(), "bank", Acceptance(**AGREED, maximum_model_bytes=23))
    huge = rounds.spec(hidden=(1_000_000, 1000))
    agreed = Acceptance(peers=tuple(huge.parties), datasets=("test-rows",), schemes=("updates",))
    with pytest.raises(PolicyRefused, match=r"acceptance\.maximum_model_bytes"):
        check_agreement(huge, huge.roster.aggregator, agreed)


def test_a_column_that_was_not_granted_is_refused_so_that_no_peer_can_ask_for_a_label_as_an_input() -> None:
    granted = AGREED | {"peers": ("bank",), "datasets": ("other",), "columns": ("a",)}
    with pytest.raises(PolicyRefused, match=r"acceptance\.columns: 'b' is not in it"):
        check_agreement(spec(), "telco", Acceptance(**granted))
    check_agreement(spec(), "telco", Acceptance(**(granted | {"columns": ("a", "b")})))


def test_rows_themselves_leave_only_where_the_data_set_is_named_for_it() -> None:
    job = rounds.spec(parts=["shared_data"], tables=("test", "shared"), extra='[rounds.shared_data]\nrule = "share"')
    agreed = Acceptance(
        peers=job.roster.clients,
        datasets=("test-rows", "shared-rows"),
        schemes=("updates",),
        handed_out=("shared-rows",),
    )
    check_agreement(job, rounds.AGGREGATOR, agreed)
    with pytest.raises(PolicyRefused, match=r"acceptance\.handed_out: the job hands the rows of 'shared-rows'"):
        check_agreement(job, rounds.AGGREGATOR, agreed.model_copy(update={"handed_out": ()}))


def test_a_job_whose_updates_are_read_is_not_one_of_sums() -> None:
    client: dict[str, Any] = {"peers": (rounds.AGGREGATOR,), "datasets": ("rows",)}
    job, summed = rounds.spec(clients=4), rounds.spec(clients=4, extra="secure_sum = true")
    check_agreement(job, "c0", Acceptance(**client, schemes=("updates",)))
    check_agreement(summed, "c0", Acceptance(**client, schemes=("sums",)))
    with pytest.raises(PolicyRefused, match=r"acceptance\.schemes: 'updates' is not in it"):
        check_agreement(job, "c0", Acceptance(**client, schemes=("sums",)))


def test_a_default_policy_relaxes_no_limit() -> None:
    assert check_plan(plan(spec(epochs=10), 2000), "bank", Acceptance()) == []


@pytest.mark.parametrize(
    ("changes", "rows", "rule", "number", "limit"),
    [
        ({}, 999, "minimum_rows", "999", "1000"),
        ({"batch_rows": 60}, 2000, "minimum_batch_rows", "40", "64"),
        ({"epochs": 100}, 2000, "maximum_rho", "0.25", "0.05"),
    ],
)
def test_a_number_outside_its_limit_is_refused_and_a_relaxed_limit_is_listed(
    changes: dict[str, Any], rows: int, rule: str, number: str, limit: str
) -> None:
    planned = plan(spec(**changes), rows)
    with pytest.raises(PolicyRefused) as refused:
        check_plan(planned, "bank", Acceptance())
    assert rule in str(refused.value)
    assert number in str(refused.value)
    assert limit in str(refused.value)
    relaxed = check_plan(planned, "bank", Acceptance(minimum_rows=10, minimum_batch_rows=10, maximum_rho=1.0))
    assert [line.split()[0] for line in relaxed if line.startswith(rule)] == [rule]
