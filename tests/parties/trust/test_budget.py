"""A budget has the numbers of the plan, names the columns they come from, and its cap holds over all jobs together."""

import msgspec
import pytest
from proposed_jobs import BANK, DIGEST, TELCO, request, round_request, specification

from parties.errors import PolicyRefused
from parties.trust.budget import Account, Charge, charges, check_lifetime

EMBEDDINGS = """
model = {layout = "embeddings", bottom = {kind = "mlp", hidden = [4], out = 3}}
protection = {cut_noise = {method = "none"}}
"""


@pytest.mark.parametrize(
    "changes", [{}, {"scheme": "none"}, {"model": EMBEDDINGS}, {"scheme": "none", "model": EMBEDDINGS}]
)
@pytest.mark.parametrize("me", [BANK, TELCO])
def test_a_training_may_reveal_exactly_what_its_plan_prints(changes: dict[str, str], me: str) -> None:
    asked = request(specification(**changes), me)
    printed = {line.message: line.values for line in asked.plan.reveals if line.sender == me and line.values}
    assert {line.message: line.values for line in asked.budget} == printed
    assert {line.message: line.planned for line in asked.budget} == printed


def test_values_name_the_columns_they_are_computed_from() -> None:
    columns = {line.message: [column.name for column in line.columns] for line in request().budget}
    assert columns == {"RowsDigest": [], "OpenedGradient": ["a", "b"], "EncryptedScores": ["a", "b"]}
    errors = request(specification(model=EMBEDDINGS), BANK).budget
    assert {line.message: [column.name for column in line.columns] for line in errors} == {
        "RowsDigest": [],
        "EncryptedError": ["income", "default"],
    }


def test_each_column_bears_the_rho_of_the_plan() -> None:
    asked = request()
    charged = charges(asked.budget)
    assert charged.keys() == {Account(BANK, DIGEST, column, "values") for column in ("a", "b")}
    for charge in charged.values():
        assert charge.rho == pytest.approx(asked.plan.rho)
        assert charge.values == asked.plan.steps * asked.plan.opened_per_step + asked.plan.test_rows


def test_who_opens_no_sums_bears_no_rho() -> None:
    assert request(me=BANK).plan.rho > 0
    assert all(charge.rho == 0 for charge in charges(request(me=BANK).budget).values())


def test_where_rounds_may_be_taken_again_the_budget_has_room_for_five() -> None:
    (reply,) = (line for line in round_request(rounds=20).budget if line.message == "RoundReply")
    assert (reply.planned, reply.values, reply.messages, reply.counted) == (20, 25, 25, "messages")
    assert {column.name for column in reply.columns} == {"pixel_0", "pixel_1", "label"}


def test_where_who_asks_decides_what_a_message_holds_the_whole_is_counted_with_the_first() -> None:
    (scores,) = (line for line in request().budget if line.message == "EncryptedScores")
    on_request = msgspec.structs.replace(scores, messages=scores.planned, counts_whole=True)
    assert [on_request.charge(messages).values for messages in (0, 1, scores.planned)] == [0, *[scores.planned] * 2]
    assert [on_request.rest(messages).values for messages in (0, 1)] == [scores.planned, 0]


def test_a_job_within_what_is_left_of_a_column_passes_and_the_next_one_does_not() -> None:
    lines = request().budget
    used = charges(lines)
    check_lifetime(TELCO, lines, {}, maximum_rho=0.05)
    check_lifetime(TELCO, lines, used, maximum_rho=0.05)
    with pytest.raises(PolicyRefused) as refused:
        check_lifetime(TELCO, lines, {account: charge.plus(charge) for account, charge in used.items()}, 0.06)
    assert str(refused.value) == (
        "telco refuses by acceptance.maximum_rho: on the column 'a' of 'calls' bank has used rho 0.05 of 0.06 over all "
        "jobs, open ones included; this job asks for 0.025, and 0.01 is left"
    )


def test_what_was_read_of_other_columns_or_by_other_peers_does_not_count() -> None:
    lines = request().budget
    others = {
        Account("shop", DIGEST, "a", "values"),
        Account(BANK, DIGEST, "c", "values"),
        Account(BANK, "cd", "a", "values"),
    }
    check_lifetime(TELCO, lines, dict.fromkeys(others, Charge(9999, 1.0)), maximum_rho=0.05)
