"""`vfl demo --mode`: an aggregator and three clients, four servers and four workers, one shared model."""

import io
import json
import re
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import polars as pl
import pytest
from safetensors.numpy import load_file

from api.demo.rounds.agreement import agree_on_rounds
from api.demo.rounds.baselines import in_one_process
from api.demo.rounds.modes import MODES
from api.demo.rounds.part_facts import part_facts
from api.demo.rounds.tables import AGGREGATOR, CLIENTS, PARTIES, ROWS
from parties.storage.models import weights_digest
from vfl.spec.rounds import PARTS

Demo = Callable[..., Any]

OF_SUMS = {"PairKey", "PairKeys", "SealedShares", "SumTask", "MaskedReply", "UnmaskTask", "UnmaskShares"}
"""Messages of a secure sum: shared-data reads class mixes by one."""

RUNS = {
    "backbone-decoder": ("--rounds", "2"),
    "compressed-sync": ("--rounds", "2", "--seed", "5"),
    "model-inversion": ("--rounds", "3"),
    "shared-data": ("--rounds", "2"),
}
"""One run of servers each; found rows need a third round."""


@pytest.fixture(scope="module")
def ended(demo: Demo, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Any]:
    """How a mode's run ended."""
    folder = tmp_path_factory.mktemp("rounds")
    return cache(lambda mode: demo(folder / mode, "--mode", mode, *RUNS[mode]))


@pytest.fixture(params=RUNS)
def each(ended: Callable[[str], Any], request: pytest.FixtureRequest) -> Any:
    return ended(request.param)


@pytest.fixture
def backbone(ended: Callable[[str], Any]) -> Any:
    return ended("backbone-decoder")


@pytest.fixture
def compressed(ended: Callable[[str], Any]) -> Any:
    return ended("compressed-sync")


@pytest.fixture
def inverted(ended: Callable[[str], Any]) -> Any:
    return ended("model-inversion")


@pytest.fixture
def shared(ended: Callable[[str], Any]) -> Any:
    return ended("shared-data")


def refused(*arguments: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "api.cli.main", "demo", "--format", "json", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 4, done.stdout + done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    assert answer["error_code"] == "invalid_arguments"
    return answer


# -- what was learned


def test_clients_improve_a_model_whose_backbone_they_never_see(backbone: Any) -> None:
    accuracy = backbone.data["accuracy"]
    assert accuracy["federated"] > accuracy["first_model_before"]
    assert accuracy["centralised"] > accuracy["federated"]


def test_the_federated_accuracy_is_that_of_the_last_round(each: Any) -> None:
    data = each.data
    assert data["rounds"] == int(RUNS[data["mode"]][1])
    assert data["curves"][-1]["accuracy"] == pytest.approx(data["accuracy"]["federated"])
    assert len(data["curves"]) == len(data["bytes"]["per_round"]) == data["rounds"]


def test_four_servers_and_four_workers_ran(each: Any) -> None:
    assert (each.data["processes"], each.data["rows"]) == (8, 1797)
    assert each.data["seconds"]["total"] >= each.data["seconds"]["training"] > 0


def test_all_clients_keep_one_model(each: Any) -> None:
    digests = each.data["model_digest"]
    assert set(digests) == set(PARTIES)
    assert len({digests[client] for client in CLIENTS}) == 1


def test_the_aggregator_keeps_its_first_model_and_the_clients_the_second(backbone: Any) -> None:
    assert backbone.data["model_digest"][AGGREGATOR] != backbone.data["model_digest"][CLIENTS[0]]


@pytest.mark.parametrize("mode", ["model-inversion", "shared-data"])
def test_the_servers_compute_what_one_process_computes(ended: Callable[[str], Any], mode: str) -> None:
    data = ended(mode).data
    agreement = agree_on_rounds(MODES[mode], rounds=data["rounds"], seed=data["seed"])
    alone = in_one_process(agreement.spec, ended(mode).folder, data["seed"])
    assert alone.series["accuracy"] == [point["accuracy"] for point in data["curves"]]
    assert weights_digest(alone.state) == data["model_digest"][AGGREGATOR]


def test_plain_averaging_with_the_same_draws_stands_beside_a_part_that_adjusts(inverted: Any, shared: Any) -> None:
    for data in (inverted.data, shared.data):
        assert len(data["averaging"]) == data["rounds"]
        assert data["averaging"][-1] == data["accuracy"]["plain_averaging"]
    # Nothing is inverted in the first two rounds: until then the two runs are one.
    assert inverted.data["averaging"][:2] == [point["accuracy"] for point in inverted.data["curves"][:2]]


def test_shared_rows_move_every_mean_and_are_measured_alone(shared: Any) -> None:
    steps = shared.data["part"]["by_round"]["shared_step"]
    assert len(steps) == 2
    assert steps[0] > 0
    assert shared.data["accuracy"]["federated"] > shared.data["accuracy"]["plain_averaging"]
    assert "shared_rows_alone" in shared.data["accuracy"]


def test_each_client_tells_how_even_its_classes_became_and_how_near_found_rows_come(inverted: Any) -> None:
    clients = inverted.data["part"]["clients"]
    assert set(clients) == set(CLIENTS)
    for client in clients.values():
        before, after, rows = (
            client["by_round"][name] for name in ("entropy_before", "entropy_after", "inverted_rows")
        )
        assert all(0 < one < 1 for one in before)
        # Where the filter kept nothing, classes stay as they are.
        assert [one == later for one, later in zip(before, after, strict=True)] == [not found for found in rows]
        assert client["metrics"]["leak_reply_median"] > 0
        assert 0 <= client["metrics"]["membership_auc_published"] <= 1
        assert any(notice["code"] == "leak_meter" for notice in client["notices"])


# -- what travelled


def test_the_backbone_travels_in_the_first_round_only(backbone: Any) -> None:
    first, *later = backbone.data["bytes"]["per_round"]
    assert len(set(later)) == 1
    sizes = load_file(backbone.folder / CLIENTS[0] / "models" / backbone.data["job"] / "model.safetensors")
    second_model = sum(4 * values.size for values in sizes.values())
    assert first - later[0] > len(CLIENTS) * 0.9 * (second_model - 4 * 650)


def test_compressed_parameters_are_several_times_smaller(compressed: Any) -> None:
    data = compressed.data
    sent = data["bytes"]["aggregator_sent"] + data["bytes"]["clients_sent"]
    assert 6.5 < data["bytes"]["whole_model"] / sent < 8
    metrics = data["metrics"]
    assert metrics["parameter_bytes_at_full_precision"] > 7 * metrics["parameter_bytes_stored"]


def test_bytes_by_round_add_up_to_the_messages(each: Any) -> None:
    data = each.data
    of_rounds = {"RoundTask", "RoundReply", *OF_SUMS}
    in_rounds = sum(line["payload_bytes"] for line in data["messages"] if line["kind"] in of_rounds)
    assert sum(data["bytes"]["per_round"]) == in_rounds
    everything = sum(line["payload_bytes"] for line in data["messages"])
    assert everything == data["bytes"]["aggregator_sent"] + data["bytes"]["clients_sent"]


def test_no_row_travels_where_rows_are_found_or_shared(inverted: Any, shared: Any) -> None:
    untold = OF_SUMS | {"Ask"}  # a heartbeat, which a fast job does not need
    assert {line["kind"] for line in inverted.data["messages"]} - {"Ask"} == {
        line["kind"] for line in shared.data["messages"] if line["kind"] not in untold
    }
    assert "SharedRows" not in {line["kind"] for line in shared.data["messages"]}


def test_the_reveal_table_has_a_line_for_each_message_and_client(backbone: Any) -> None:
    lines = {(line["message"], line["sender"], line["receiver"]) for line in backbone.data["reveals"]}
    for client in CLIENTS:
        assert {("RoundReply", client, AGGREGATOR), ("RoundTask", AGGREGATOR, client)} <= lines
    assert not {line for line in lines if line[1] != AGGREGATOR and line[2] != AGGREGATOR}


# -- what is left


def test_each_party_is_left_with_its_own_rows_only(backbone: Any) -> None:
    ids = {
        party: [set(pl.read_csv(path)["id"]) for path in sorted((backbone.folder / party).glob("*.csv"))]
        for party in PARTIES
    }
    every = [one for sets in ids.values() for one in sets]
    assert sum(map(len, every)) == len(set().union(*every)) == backbone.data["rows"]
    assert [len(ids[client]) for client in CLIENTS] == [1, 1, 1]
    assert "digit" not in pl.read_csv(backbone.folder / AGGREGATOR / "public.csv").columns


def test_the_result_is_the_envelope_that_was_printed(compressed: Any) -> None:
    assert json.loads((compressed.folder / "result.json").read_text()) == compressed.answer
    assert not (compressed.folder / "processes.json").exists()


def test_the_report_is_one_small_page_that_needs_nothing_else(each: Any) -> None:
    page = (each.folder / "report.html").read_text()
    assert len(page.encode()) < 1_000_000
    assert "<script" not in page
    assert not re.findall(r"(?:src|href|url)\s*[=(]\s*[\"']?(?:https?:)?//", page)
    for text in ("RoundReply", "What was not protected", "Who holds what", "minimum_rows", "[rounds]"):
        assert text in page
    assert page.count("<svg") == 3
    # In the legend of the accuracy, and beside each message in the table of what was seen.
    assert ">this run<" in page
    assert f'data-name="from">{AGGREGATOR}<' in page


def test_the_report_tells_what_the_part_did(inverted: Any, shared: Any) -> None:
    assert "leak meter" in (inverted.folder / "report.html").read_text()
    assert "by round: " in (shared.folder / "report.html").read_text()


def test_relaxed_limits_are_printed_and_stand_in_each_clients_settings(compressed: Any) -> None:
    for limit in compressed.data["relaxed_limits"]:
        line = f"{limit['name']} {limit['usual']} -> {limit['relaxed']}"
        assert f"limit relaxed in {limit['party']}'s party.toml: {line}" in compressed.stderr
        settings = (compressed.folder / limit["party"] / "party.toml").read_text()
        assert f"{limit['name']} = {limit['relaxed']}" in settings
        assert 'schemes = ["updates"]' in settings
    assert {limit["party"] for limit in compressed.data["relaxed_limits"]} == set(CLIENTS)


def test_the_screen_is_at_most_80_columns_wide(each: Any) -> None:
    from rich.console import Console

    from api.cli.demo_screen import rounds_screen

    printed = io.StringIO()
    Console(width=80, file=printed).print(rounds_screen(each.data | {"folder": "vfl-demo/backbone-decoder-1"}))
    lines = printed.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert [line for line in lines if line.startswith(MODES[each.data["mode"]].trained)]


# -- what is told of a part


def test_a_step_that_harmed_is_counted() -> None:
    by_round = {"shared_step": [0.5, 0.25], "shared_undone": [0.0, 1.0]}
    assert dict(part_facts({"part": {"by_round": by_round, "clients": {}}})) == {
        "step": "by round: 0.50 0.25",
        "undone": "1 of 2 steps, which harmed on held-out shared rows",
    }


def test_the_leak_meter_tells_of_the_worst_client() -> None:
    near, far = ({"leak_reply_lowest": value, "membership_auc_published": auc} for value, auc in ((0.4, 0.6), (2, 0.5)))
    clients = {name: {"by_round": {}, "metrics": metrics} for name, metrics in (("one", near), ("other", far))}
    (_, nearest), (_, attack) = part_facts({"part": {"by_round": {}, "clients": clients}})
    assert "0.40 times" in nearest
    assert "AUC 0.50 to 0.60" in attack


def test_a_part_that_measures_nothing_has_nothing_to_tell(compressed: Any) -> None:
    assert part_facts(compressed.data) == []


# -- dealing


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
def test_clients_miss_digits_that_others_have(mode: Any) -> None:
    agreement = agree_on_rounds(mode, rounds=None, seed=0)
    seen = [set(agreement.table.files[client][ROWS]["digit"]) for client in CLIENTS]
    assert all(len(digits) < 10 for digits in seen)
    assert set().union(*seen) == set(range(10))


def test_the_first_rows_show_only_the_digits_the_aggregator_knows() -> None:
    agreement = agree_on_rounds(MODES["backbone-decoder"], rounds=2, seed=3)
    assert set(agreement.table.files[AGGREGATOR]["first"]["digit"]) == set(range(5))
    assert agreement.spec.rounds.rounds == 2


def test_another_seed_deals_other_rows() -> None:
    one, other = (agree_on_rounds(MODES["compressed-sync"], rounds=None, seed=seed).table for seed in (0, 1))
    assert one.rows == other.rows == 1797
    assert not np.array_equal(one.files[CLIENTS[0]][ROWS]["id"], other.files[CLIENTS[0]][ROWS]["id"])


# -- what is refused


def test_every_mode_shows_one_part_of_rounds_and_can_be_chosen() -> None:
    from api.cli.demo import Mode

    assert set(MODES) == set(Mode)
    assert {mode.part for mode in MODES.values()} <= set(PARTS)
    assert all(name == mode.name for name, mode in MODES.items())


def test_an_unknown_mode_is_answered_with_the_known_ones() -> None:
    message = refused("--mode", "pigeons")["message"]
    assert all(name in message for name in MODES)


@pytest.mark.parametrize(
    "foreign",
    [
        ("--scheme", "ckks"),
        ("--layout", "features"),
        ("--top", "mlp"),
        ("--epochs", "3"),
        ("--dataset", "diabetes"),
        ("--label-file", "a.csv"),
        ("--task", "binary"),
    ],
    ids=lambda foreign: foreign[0],
)
def test_an_option_of_two_parties_is_refused_by_name(foreign: tuple[str, str]) -> None:
    assert foreign[0] in refused("--mode", "compressed-sync", *foreign)["message"]


def test_rounds_without_a_mode_are_refused() -> None:
    answer = refused("--rounds", "3")
    assert "--rounds" in answer["message"]
    assert "--mode" in answer["hint"]
