"""Many clients on one machine: the same roles, the same result whatever the number of processes, named endings."""

import os
import re
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from parties.errors import UnknownColumn, WorkerVanished
from parties.simulation.driver import ClientProcess, simulate
from parties.simulation.specification import Partition, Simulation, load_whole, read_federation, setups
from parties.simulation.synthetic_images import synthetic_images
from vfl.errors import ImpossibleJob, InvalidData, SpecConflict, SpecError
from vfl.flow import run_together
from vfl.kinds import flow_of
from vfl.reports import RoundDone
from vfl.setup import Table

SPEC = """
job = {{ name = "simulated", protocol = "rounds", task = "multiclass", classes = {classes} }}
train = {{ batch_rows = 16, optimiser = {{ rate = {rate} }} }}
[simulation]
{simulation}
[model]
network = "mlp"
hidden = [16]
input_shape = [{inputs}]
input_range = [0.0, 16.0]
label = "label"
{model}
[rounds]
rounds = 3
clients_per_round = 3
{rounds}
"""

SUMS = 'dataset = "digits"\nclients = 4\ntest_at = "clients"'

DIGITS = """
dataset = "digits"
clients = 12
partition = { kind = "dirichlet", alpha = 0.5 }
validation = 0.05
"""


def federation(simulation=DIGITS, *, rate=0.1, classes=10, inputs=64, model="", rounds=""):
    return read_federation(
        SPEC.format(simulation=simulation, rate=rate, classes=classes, inputs=inputs, model=model, rounds=rounds)
    )


def given(*arguments, folder=Path(), **options):
    made = federation(*arguments, **options)
    return setups(made, load_whole(made, folder))


# -- running


def test_results_reports_and_traffic_are_the_same_bit_for_bit_in_one_process_and_in_two():
    one, two = simulate(given(), 1), simulate(given(), 2)
    assert one == two
    assert len(one.results) == 13
    assert one.results["aggregator"].metrics["accuracy"] > 0.2


def test_a_simulation_equals_the_roles_run_together():
    roles = {party: flow_of(setup) for party, setup in given().items()}
    together, simulated = run_together(roles, keep_messages=False), simulate(given())
    assert simulated.results == together.results
    assert simulated.reports == together.reports
    sizes = sorted((s.sender, s.receiver, s.kind, s.payload_bytes) for s in together.transcript)
    assert sorted(line[1:] for line in simulated.traffic) == sizes


def test_traffic_says_in_which_round_each_message_travelled():
    simulated = simulate(given())
    tasks = [line.round for line in simulated.traffic if line.kind == "RoundTask"]
    assert tasks == [1] * 3 + [2] * 3 + [3] * 3
    assert {line.round for line in simulated.traffic if line.kind == "ClientReady"} == {0}
    assert [line.round for line in simulated.traffic if line.kind == "Published"] == [3] * 12


def watched(setups):
    """What came of it, and the aggregator's states by round."""
    states = []

    def watch(_so_far, party, fact):
        if party == "aggregator" and isinstance(fact, RoundDone):
            states.append(fact.state)

    return simulate(setups, watch=watch), states


def test_states_are_seen_as_they_come_and_not_kept():
    simulated, states = watched(given())
    assert all(states)
    facts = [fact for facts in simulated.reports.values() for fact in facts if isinstance(fact, RoundDone)]
    assert len(facts) == 3 + 9
    assert not any(fact.state for fact in facts)


def test_a_run_continued_from_a_state_equals_the_uninterrupted_one():
    whole, states = watched(given())
    again = given()
    again["aggregator"] = replace(again["aggregator"], saved=states[0])
    assert simulate(again).results["aggregator"] == whole.results["aggregator"]


@pytest.mark.parametrize("processes", [1, 2])
def test_an_error_of_a_client_keeps_its_kind_and_names_the_client(processes):
    dealt = dict(given())
    rows = dealt["client-02"].table
    wrong = Table(rows.ids_digest, rows.columns, np.full(len(rows.columns), 99.0))
    dealt["client-02"] = replace(dealt["client-02"], tables={"rows": wrong})
    with pytest.raises(InvalidData, match="client-02: the training rows hold labels outside 0 to 9"):
        simulate(dealt, processes)


def test_a_process_that_dies_is_named_with_its_clients():
    clients = [setup for party, setup in given().items() if party != "aggregator"]
    with ClientProcess(clients) as process:
        assert process.answer("client-01").outgoing
        os.kill(process.pid, signal.SIGKILL)
        with pytest.raises(
            WorkerVanished, match=r"clients client-01, client-02, client-03 and 9 more was ended by signal 9"
        ):
            list(iter(lambda: process.answer("client-02"), None))


def test_of_the_environment_simulated_clients_have_the_numeric_variables_alone(monkeypatch):
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary")
    clients = [setup for party, setup in given().items() if party != "aggregator"]
    with ClientProcess(clients[:1]) as process:
        assert process.answer("client-01").outgoing
        place = Path(f"/proc/{process.pid}/environ")
        if os.getuid() != 0:  # the process has closed its memory, also to its own user
            with pytest.raises(PermissionError):
                place.read_bytes()
            return
        seen = place.read_bytes().split(b"\0")
    assert b"OPENBLAS_CORETYPE=Haswell" in seen
    assert not any(b"canary" in line for line in seen)


# -- what is simulated


def test_the_specification_is_that_of_a_job_between_servers():
    spec = federation().spec
    assert spec.roster.clients[:2] == ("client-01", "client-02")
    assert spec.tables_of("aggregator").keys() == {"test", "validation"}
    assert {spec.data[client].dataset for client in spec.roster.clients} == {"rows"}


def test_rows_of_the_aggregator_are_drawn_before_the_rest_is_dealt():
    tables = given()
    held = tables["aggregator"].tables
    assert [len(held[use].columns) for use in ("test", "validation")] == [359, 90]
    assert sum(setup.rows for party, setup in tables.items() if party != "aggregator") == 1797 - 359 - 90
    assert min(setup.rows for party, setup in tables.items() if party != "aggregator") >= 10


def test_public_rows_have_no_labels():
    held = given(DIGITS + "public = 0.1").pop("aggregator").tables
    assert held["public"].labels is None
    assert held["test"].labels is not None


def test_clients_hold_out_test_rows_where_the_aggregator_has_none():
    tables = given('dataset = "digits"\nclients = 5\ntest_at = "clients"')
    assert tables.pop("aggregator").tables == {}
    for setup in tables.values():
        assert len(setup.tables["test"].columns) == round(0.2 * (setup.rows + len(setup.tables["test"].columns)))
    assert sum(setup.rows + len(setup.tables["test"].columns) for setup in tables.values()) == 1797


def test_sums_that_hide_single_replies_are_simulated_too():
    secret = simulate(given(SUMS, rounds="secure_sum = true\nparts = ['compressed_sync']"))
    assert not [line for line in secret.traffic if line.kind == "RoundReply"]
    assert {line.round for line in secret.traffic if line.kind == "MaskedReply"} == {0, 1, 2, 3}


@pytest.mark.parametrize(
    ("partition", "fewest", "most", "classes"),
    [
        ('{ kind = "even" }', 287, 288, 10),
        ('{ kind = "shards", per_client = 1 }', 287, 288, 3),
        ('{ kind = "quantity", alpha = 1.0 }', 10, 1000, 10),
        ('{ kind = "dirichlet", alpha = 0.01 }', 10, 1000, 6),
    ],
)
def test_rows_are_dealt_as_the_specification_says(partition, fewest, most, classes):
    clients = [
        s
        for party, s in given(f'dataset = "digits"\nclients = 5\npartition = {partition}').items()
        if party != "aggregator"
    ]
    assert sum(setup.rows for setup in clients) == 1797 - 359
    assert fewest <= min(setup.rows for setup in clients) <= max(setup.rows for setup in clients) <= most
    assert min(len(np.unique(setup.table.labels)) for setup in clients) <= classes


def test_another_seed_deals_other_rows():
    one, other = given()["client-01"], given(DIGITS + "seed = 1")["client-01"]
    assert one.joint_seed != other.joint_seed
    assert one.rows != other.rows or not np.array_equal(one.table.columns, other.table.columns)


@pytest.mark.parametrize("name", ["rows.csv", "rows.parquet"])
def test_a_file_beside_the_specification_is_dealt(tmp_path, name):
    frame = pl.DataFrame({"id": range(90), "a": range(90), "b": [0.5] * 90, "label": [0, 1, 2] * 30})
    frame.write_csv(tmp_path / name) if name.endswith("csv") else frame.write_parquet(tmp_path / name)
    tables = given(f'dataset = "{name}"\nclients = 4', classes=3, inputs=2, folder=tmp_path)
    dealt = np.concatenate([setup.tables[use].columns for setup in tables.values() for use in setup.tables])
    assert sorted(dealt[:, 0]) == list(range(90))


def test_a_file_that_does_not_fit_the_job_is_refused_as_between_servers(tmp_path):
    (tmp_path / "rows.csv").write_text("id,a\n1,2\n2,3\n")
    for inputs in (1, 2):  # a mistyped label is told as that, whatever the width
        with pytest.raises(UnknownColumn, match="no column 'label'"):
            given('dataset = "rows.csv"\nclients = 3', classes=3, inputs=inputs, folder=tmp_path)
    (tmp_path / "rows.csv").write_text("id,a,label\n1,2,0\n2,3,1\n")
    with pytest.raises(InvalidData, match="has 1 input columns"):
        given('dataset = "rows.csv"\nclients = 3', classes=3, inputs=2, folder=tmp_path)


def test_columns_of_a_bundled_table_are_chosen_by_name():
    model = 'columns = ["petal width (cm)", "sepal length (cm)"]'
    iris = given('dataset = "iris"\nclients = 4', classes=3, inputs=2, model=model)
    assert iris["client-1"].table.columns.shape[1] == 2
    with pytest.raises(SpecError, match="no column 'petal'"):
        given('dataset = "iris"\nclients = 4', classes=3, inputs=2, model='columns = ["petal", "x"]')


def test_pictures_come_from_the_seed_alone():
    one, same = synthetic_images(b"a", 40, (1, 8, 8), 4), synthetic_images(b"a", 40, (1, 8, 8), 4)
    assert np.array_equal(one.pixels, same.pixels)
    assert not np.array_equal(one.pixels, synthetic_images(b"b", 40, (1, 8, 8), 4).pixels)
    assert np.bincount(one.labels.astype(int)).tolist() == [10, 10, 10, 10]
    assert one.pixels.min() >= 0
    assert one.pixels.max() <= 1


@pytest.mark.parametrize(
    ("simulation", "error", "text"),
    [
        ('dataset = "digits"\nclients = 300', ImpossibleJob, "cannot be dealt to 300 clients of at least 10 rows"),
        ('dataset = "digits"\nclients = 0', SpecError, "simulation.clients must lie in 1"),
        ('dataset = "digits"\nclient = 3', SpecError, "unknown field `client`"),
        ('dataset = "digits"\nclients = 3\ntest = 1.0', SpecError, "leave no rows to clients"),
        ('dataset = "synthetic_images"\nclients = 3', SpecError, "simulation.rows is needed for synthetic_images"),
        ('dataset = "synthetic_images"\nclients = 3\nrows = 99', ImpossibleJob, "cannot be generated in shape"),
        ('dataset = "mnist"\nclients = 3', SpecError, "no file beside the specification"),
    ],
)
def test_what_cannot_be_simulated_is_refused_by_name(simulation, error, text):
    with pytest.raises(error, match=text):
        given(simulation)


def test_a_specification_that_names_clients_twice_is_refused():
    with pytest.raises(SpecError, match=r"\[simulation\] names the clients"):
        read_federation(
            SPEC.format(simulation=DIGITS, rate=0.1, classes=10, inputs=64, model="", rounds="")
            + '[data.c]\ndataset = "d"'
        )
    with pytest.raises(SpecError, match="no table"):
        read_federation("[job]\nname = 'x'\n")


def test_clashes_are_those_of_any_job():
    with pytest.raises(SpecConflict, match="X2"):
        read_federation(
            SPEC.format(simulation=DIGITS, rate=0.1, classes=10, inputs=64, model="", rounds="")
            + 'secure_sum = true\nparts = ["compressed_sync"]\n[rounds.compressed_sync]\ncodec = "rotation"'
        )


def test_what_decides_the_result_is_digested_and_the_number_of_processes_is_not():
    assert federation().digest() == federation(DIGITS + "processes = 2").digest()
    assert federation().digest() != federation(DIGITS + "seed = 2").digest()


# -- its page

PAGE = (Path(__file__).parents[3] / "docs" / "simulation.md").read_text()


def test_the_specification_on_the_page_is_one():
    assert read_federation(PAGE.partition("```toml\n")[2].partition("```")[0]).simulation.clients == 20


def test_the_page_lists_every_key():
    table = PAGE.partition("| key of `[simulation]`")[2].partition("\n\n")[0]
    documented = [name for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) for name in row.split("`")[1::2]]
    partition = [f"partition.{field}" for field in Partition.__struct_fields__]
    at = Simulation.__struct_fields__.index("partition")
    assert documented == [*Simulation.__struct_fields__[:at], *partition, *Simulation.__struct_fields__[at + 1 :]]
