"""`vfl demo --mode`: an aggregator and three clients, four servers and four workers, one shared model."""

import io
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from safetensors.numpy import load_file

from api.demo.rounds.agreement import agree_on_rounds
from api.demo.rounds.modes import MODES
from api.demo.rounds.tables import AGGREGATOR, CLIENTS, PARTIES, ROWS
from vfl.rounds_spec import PARTS

Demo = Callable[..., Any]

BACKBONE = ("--mode", "backbone-decoder", "--rounds", "8")
COMPRESSED = ("--mode", "compressed-sync", "--rounds", "3", "--seed", "5")


@pytest.fixture(scope="module")
def backbone(demo: Demo, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return demo(tmp_path_factory.mktemp("rounds") / "backbone", *BACKBONE)


@pytest.fixture(scope="module")
def compressed(demo: Demo, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return demo(tmp_path_factory.mktemp("rounds") / "compressed", *COMPRESSED)


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
    assert accuracy["federated"] >= accuracy["first_model_before"] + 0.15
    assert accuracy["federated"] > accuracy["client_alone"]
    assert accuracy["centralised"] > accuracy["federated"]


def test_the_federated_accuracy_is_that_of_the_last_round(backbone: Any, compressed: Any) -> None:
    for data in (backbone.data, compressed.data):
        assert data["curves"][-1]["accuracy"] == pytest.approx(data["accuracy"]["federated"])
        assert len(data["curves"]) == len(data["bytes"]["per_round"]) == data["rounds"]
    assert (backbone.data["rounds"], compressed.data["rounds"]) == (8, 3)


def test_four_servers_and_four_workers_ran(backbone: Any, compressed: Any) -> None:
    for data in (backbone.data, compressed.data):
        assert (data["processes"], data["rows"]) == (8, 1797)
        assert data["seconds"]["total"] >= data["seconds"]["training"] > 0


def test_all_clients_keep_one_model(backbone: Any, compressed: Any) -> None:
    for ended in (backbone, compressed):
        digests = ended.data["model_digest"]
        assert set(digests) == set(PARTIES)
        assert len({digests[client] for client in CLIENTS}) == 1
    # The aggregator keeps its first model, the clients the second one; compressed, it keeps what it has at full width.
    assert backbone.data["model_digest"][AGGREGATOR] != backbone.data["model_digest"][CLIENTS[0]]


def test_two_runs_with_one_seed_give_the_same_models(demo: Demo, compressed: Any, tmp_path: Path) -> None:
    again = demo(tmp_path / "again", *COMPRESSED)
    assert again.data["model_digest"] == compressed.data["model_digest"]
    assert again.data["accuracy"] == compressed.data["accuracy"]
    assert again.data["bytes"] == compressed.data["bytes"]


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


def test_bytes_by_round_add_up_to_the_messages(backbone: Any, compressed: Any) -> None:
    for data in (backbone.data, compressed.data):
        sizes = {line["kind"]: line["payload_bytes"] for line in data["messages"]}
        assert sum(data["bytes"]["per_round"]) == sizes["RoundTask"] + sizes["RoundReply"]
        everything = sum(line["payload_bytes"] for line in data["messages"])
        assert everything == data["bytes"]["aggregator_sent"] + data["bytes"]["clients_sent"]


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


def test_the_report_is_one_small_page_that_needs_nothing_else(backbone: Any, compressed: Any) -> None:
    for ended in (backbone, compressed):
        page = (ended.folder / "report.html").read_text()
        assert len(page.encode()) < 1_000_000
        assert "<script" not in page
        assert not re.findall(r"(?:src|href|url)\s*[=(]\s*[\"']?(?:https?:)?//", page)
        for text in ("RoundReply", "What was not protected", "Who holds what", "minimum_rows", "[rounds]"):
            assert text in page
        assert page.count("<svg") == 3


def test_lowered_floors_are_printed_and_stand_in_each_clients_settings(compressed: Any) -> None:
    for floor in compressed.data["lowered_floors"]:
        line = f"{floor['name']} {floor['usual']} -> {floor['lowered']}"
        assert f"floor lowered in {floor['party']}'s party.toml: {line}" in compressed.stderr
        settings = (compressed.folder / floor["party"] / "party.toml").read_text()
        assert f"{floor['name']} = {floor['lowered']}" in settings
        assert 'schemes = ["updates"]' in settings
    assert {floor["party"] for floor in compressed.data["lowered_floors"]} == set(CLIENTS)


def test_the_screen_is_at_most_80_columns_wide(backbone: Any) -> None:
    from rich.console import Console

    from api.cli.demo_screen import rounds_screen

    printed = io.StringIO()
    Console(width=80, file=printed).print(rounds_screen(backbone.data | {"folder": "vfl-demo/backbone-decoder-1"}))
    lines = printed.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert [line for line in lines if line.startswith("aggregator's model, before")]


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
