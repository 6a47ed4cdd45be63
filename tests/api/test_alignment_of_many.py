"""Three real servers align their tables; two of them train on the rows that all three have."""

from collections.abc import Callable, Iterator
from functools import reduce
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load

PARTIES = ("bank", "telco", "shop")
ROWS = 400
ALIGNMENT = """
[job]
name = "common"
protocol = "alignment"
[roster]
parties = ["bank", "telco", "shop"]
[data]
bank = { dataset = "people", id = ["id"] }
telco = { dataset = "people", id = ["id"] }
shop = { dataset = "people", id = ["id"] }
[align]
minimum_ids = 100
"""
TRAINING = """
[job]
name = "scores"
task = "binary"
[rows]
alignment = "{alignment}"
[roster]
label = "bank"
features = ["telco"]
[data.bank]
dataset = "people"
label = "y"
[data.telco]
dataset = "people"
columns = ["b"]
[train]
epochs = 1
batch_rows = 64
[encryption]
scheme = "none"
"""


def ids_of(party: str) -> list[str]:
    first = 100 * PARTIES.index(party)
    return [f"c-{row:04}" for row in range(first, first + ROWS)][:: 1 if party != "telco" else -1]


def write_table(path: Path, party: str) -> None:
    lines = [f"{identifier},{int(identifier[2:]) % 2},{int(identifier[2:]) % 7}" for identifier in ids_of(party)]
    header = "id,y,x" if party == "bank" else "id,b,x"
    path.write_text("\n".join([header, *lines]) + "\n", "utf-8")


@pytest.fixture(scope="module")
def three(
    tmp_path_factory: pytest.TempPathFactory, new_party: Callable[..., Any], some_ports: Callable[[int], list[int]]
) -> Iterator[list[Any]]:
    root, ports = tmp_path_factory.mktemp("three"), some_ports(6)
    urls = {party: f"https://127.0.0.1:{ports[2 * at + 1]}" for at, party in enumerate(PARTIES)}
    servers = []
    for at, party in enumerate(PARTIES):
        peers = {peer: url for peer, url in urls.items() if peer != party and "bank" in {peer, party}}
        server = new_party(root / party, party, peers, {"people": "people.csv"}, ports[2 * at : 2 * at + 2])
        settings = server.folder / "party.toml"
        text = settings.read_text("utf-8").replace('"updates"]', '"common_ids", "common_size"]')
        settings.write_text(text, "utf-8")
        write_table(server.folder / "people.csv", party)
        servers.append(server)
    servers[0].granting = servers[1:]
    try:
        yield [server.start() for server in servers]
    finally:
        for server in servers:
            server.close()


@pytest.fixture(scope="module")
def aligned(three: list[Any]) -> list[dict[str, Any]]:
    job = three[0].submit(ALIGNMENT)["id"]
    ended = [party.over(job) for party in three]
    assert [each["state"] for each in ended] == ["done"] * 3, [each["error"] for each in ended]
    return ended


def test_all_three_find_the_rows_of_a_plain_intersection_in_one_order(aligned: list[dict[str, Any]]) -> None:
    found = []
    for job in aligned:
        own = ids_of(job["party"])
        found.append([own[row - 1] for row in load(Path(job["model_path"]).read_bytes())["rows"]])
    assert found[0] == found[1] == found[2]
    assert set(found[0]) == reduce(set.intersection, (set(ids_of(party)) for party in PARTIES))
    assert len({job["result_digest"] for job in aligned}) == 1


def test_what_the_coordinator_learns_beside_is_declared(aligned: list[dict[str, Any]]) -> None:
    learned = {(line["message"], line["sender"], line["receiver"]): line for line in aligned[0]["reveals"]}
    assert "any group of parties" in learned["BlindedList", "shop", "bank"]["learns"]
    assert learned["CommonPlaces", "bank", "shop"]["values"] == 1_000_000
    assert ("PlacesBefore", "shop", "bank") not in learned


def test_two_of_them_train_on_the_rows_that_all_three_have(three: list[Any], aligned: list[dict[str, Any]]) -> None:
    job = three[0].submit(TRAINING.format(alignment=aligned[0]["result_digest"]))["id"]
    ended = [party.over(job) for party in three[:2]]
    assert [each["state"] for each in ended] == ["done", "done"], [each["error"] for each in ended]
    assert [each["plan"]["rows"] for each in ended] == [ROWS - 200] * 2


def test_only_the_size_is_told_where_the_parties_agreed_so(three: list[Any]) -> None:
    job = three[0].submit(ALIGNMENT + 'reveal = "size-only"\n')["id"]
    for party in three:
        ended = party.over(job)
        assert ended["state"] == "done", ended["error"]
        assert ended["metrics"]["common_ids"] == ROWS - 200
        assert not ended["result_digest"]
