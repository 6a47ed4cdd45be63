"""What a specification would do is told before anybody is asked: sizes that come true, warnings, demands."""

import pytest

from parties.job_check import check
from parties.simulation.driver import simulate
from parties.simulation.specification import load_whole, read_federation, setups
from vfl.errors import ImpossibleJob
from vfl.kinds import read_spec

ROUNDS = """
job = {{ name = "digits", protocol = "rounds", task = "multiclass", classes = 10 }}
train = {{ batch_rows = 16, optimiser = {{ rate = 0.1 }} }}
[simulation]
dataset = "digits"
clients = 8
{shares}
[model]
network = "{network}"
hidden = {hidden}
norm = "{norm}"
input_shape = {shape}
input_range = [0.0, 16.0]
label = "digit"
first_epochs = 1
[rounds]
rounds = 5
clients_per_round = 4
reply_norm_limit = {limit}
{rounds}
"""

COMPRESSED = 'parts = ["compressed_sync"]'
BACKBONE = """
parts = ["backbone_decoder"{other}]
[rounds.backbone_decoder]
cut = "features"
student_hidden = [8, 8]
align_epochs = 1
distil_epochs = 1
carry_back = "distil"
"""
HELD = "first = 0.1\npublic = 0.1"


def federation(rounds="", *, shares="", network="mlp", hidden="[64, 32]", norm="none", shape="[64]", limit="1e6"):
    return read_federation(
        ROUNDS.format(rounds=rounds, shares=shares, network=network, hidden=hidden, norm=norm, shape=shape, limit=limit)
    )


def warnings(*arguments, **options):
    return texts(check(federation(*arguments, **options).spec))


def texts(found):
    assert {notice.kind for notice in found.warnings} <= {"warning"}
    return tuple(notice.text for notice in found.warnings)


TRAINING = """
job = {{ name = "loans", task = "binary" {seed} }}
roster = {{ label = "bank", features = ["telco"] }}
train = {{ epochs = 20, batch_rows = {batch} }}
encryption = {{ scheme = "{scheme}" }}
[data.bank]
dataset = "loans"
columns = ["income"]
label = "default"
[data.telco]
dataset = "usage"
columns = ["calls", "data"]
"""


def training(*, scheme="ckks", batch=4096, seed=""):
    return read_spec(TRAINING.format(scheme=scheme, batch=batch, seed=seed))


# -- rounds


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"rounds": COMPRESSED},
        {"rounds": BACKBONE.format(other=""), "shares": HELD},
        {"rounds": BACKBONE.format(other=', "compressed_sync"'), "shares": HELD},
        {"rounds": "secure_sum = true\n" + COMPRESSED, "shares": 'test_at = "clients"', "limit": "0.0"},
        {"network": "small_cnn", "hidden": "[8, 8, 16]", "shape": "[1, 8, 8]", "norm": "batch"},
    ],
    ids=["averaging", "compressed", "backbone", "both", "sums", "images"],
)
def test_the_sizes_it_tells_come_true(given, tmp_path):
    told = federation(**given)
    forecast = check(told.spec).forecast
    assert forecast is not None
    traffic = simulate(setups(told, load_whole(told, tmp_path))).traffic
    aggregator = told.spec.roster.aggregator
    down = sum(line.payload_bytes for line in traffic if line.sender == aggregator)
    up = sum(line.payload_bytes for line in traffic if line.sender != aggregator)
    assert up == pytest.approx(forecast.total_up, rel=0.05 if "secure_sum" in str(given) else 0.01)
    assert down == pytest.approx(forecast.total_down, rel=0.15 if "backbone" in str(given) else 0.01)


def test_it_tells_what_parts_save_and_what_is_sent_once():
    forecast = check(federation(BACKBONE.format(other=""), shares=HELD).spec).forecast
    assert forecast is not None
    assert forecast.parameters == 64 * 64 + 64 + 64 * 32 + 32 + 32 * 10 + 10
    assert forecast.without_parts["down"] > 4 * forecast.parameters
    assert forecast.down < forecast.without_parts["down"] / 10
    assert forecast.once_down > forecast.down
    plain = check(federation().spec).forecast
    assert plain is not None
    assert plain.once_down == 0


def test_it_tells_the_role_of_each_party_and_what_each_message_says():
    found = check(federation().spec)
    assert [(side.role, len(side.parties), side.brings) for side in found.sides] == [
        ("aggregator", 1, ("test",)),
        ("client", 8, ("rows",)),
    ]
    assert [(line.receiver, line.message, line.values) for line in found.learned] == [
        ("client", "RoundTask", 5),
        ("aggregator", "RoundReply", 5),
        ("client", "Published", 1),
    ]
    clients = ", ".join(f"client-{number}" for number in range(1, 9))
    quoted = ", ".join(f'"{client}"' for client in clients.split(", "))
    assert found.must_accept == (
        f"acceptance.peers of aggregator: {quoted}",
        'acceptance.datasets of aggregator: "test"',
        f'acceptance.peers of {clients}: "aggregator"',
        f'acceptance.datasets of {clients}: "rows"',
        'acceptance.schemes of every party: "updates"',
    )


def test_it_tells_which_rows_themselves_leave():
    shared = 'parts = ["shared_data"]\n[rounds.shared_data]\nrule = "{}"'
    told = check(federation(shared.format("share"), shares="shared = 0.1").spec)
    (handed,) = (text for text in told.must_accept if "handed_out" in text)
    aggregator = told.sides[0].parties[0]
    assert handed.startswith(f'acceptance.handed_out of {aggregator}: "')
    kept = check(federation(shared.format("feddu"), shares="shared = 0.1").spec)
    assert not any("handed_out" in text for text in kept.must_accept)


def test_a_job_without_anything_odd_has_no_warning():
    assert warnings() == ()


@pytest.mark.parametrize(
    ("rounds", "warning"),
    [
        ("rounds = 1", "about 4 of 8 clients are never chosen in 1 rounds of 4"),
        ("min_clients = 4", "min_clients is the whole cohort of 4"),
        ("deadline_seconds = 50000", "may take longer than job.deadline_seconds"),
        ("reply_norm_limit = 0", "a reply scaled up on purpose"),
        ("stop = { gigabytes = 0.0002 }", "stop.gigabytes ends the job after about 1 of 5 rounds"),
    ],
)
def test_what_may_surprise_is_warned_about(rounds, warning):
    key = rounds.partition(" ")[0]
    text = "\n".join(
        line
        for line in ROUNDS.format(
            rounds=rounds, shares="", network="mlp", hidden="[64, 32]", norm="none", shape="[64]", limit="1e6"
        ).splitlines()
        if not line.startswith(f"{key} = ") or line == rounds
    )
    assert any(warning in told for told in texts(check(read_federation(text).spec)))


def test_parts_that_gain_nothing_are_warned_about():
    backbone = warnings(BACKBONE.format(other="").replace('"distil"', '"best"'), shares="public = 0.1")
    assert "the first model has fresh weights: a backbone made from it has learned nothing" in backbone
    early = warnings(BACKBONE.format(other="").replace('"features"', '"hidden1"'), shares=HELD)
    assert any("cut later for a smaller decoder" in text for text in early)
    assert any("tensors of fewer than 1,024 values" in text for text in warnings(COMPRESSED, hidden="[8]"))


def test_waivers_are_told():
    waiving = COMPRESSED + '\nallow = ["X4"]\n[rounds.compressed_sync]\nfeedback = false'
    assert check(federation(waiving).spec).waived == ("X4",)


def test_a_network_that_cannot_be_built_is_refused():
    with pytest.raises(ImpossibleJob, match="small_cnn cannot read rows"):
        check(federation(network="small_cnn").spec)


# -- training


def test_without_rows_a_training_tells_what_is_learned_and_not_how_much():
    found = check(training())
    assert [line.message for line in found.learned if line.receiver == "label"] == [
        "RowsDigest",
        "OpenedGradient",
        "EncryptedScores",
    ]
    assert {line.values for line in found.learned} == {None}
    assert (found.steps, found.payload_bytes, found.forecast) == (None, None, None)


def test_with_rows_it_tells_steps_bytes_and_values():
    found = check(training(), 10_000)
    assert found.steps == 40
    assert found.payload_bytes is not None
    assert found.payload_bytes["EncryptedEmbedding"] > 1_000_000
    assert {line.message: line.values for line in found.learned}["EncryptedScores"] == 2000


def test_it_tells_what_the_default_acceptance_would_refuse():
    anyway = (
        'acceptance.peers of bank: "telco"',
        'acceptance.datasets of bank: "loans"',
        'acceptance.peers of telco: "bank"',
        'acceptance.datasets of telco: "usage"',
    )
    assert check(training(), 10_000).must_accept == anyway
    few = check(training(batch=128), 600).must_accept
    assert any("minimum_rows" in text and "600 rows" in text for text in few)
    rules = [text.split()[0] for text in check(training(batch=32), 600).must_accept[len(anyway) :]]
    assert rules == ["acceptance.minimum_rows", "acceptance.minimum_batch_rows", "acceptance.maximum_rho"] * 2
    told = check(training(scheme="none", seed=", seed = 7"), 10_000).must_accept
    assert 'acceptance.schemes of every party: "none"' in told
    assert any("fixed_seed" in text for text in told)


def test_a_training_without_encryption_is_warned_about():
    assert [notice.code for notice in check(training(scheme="none")).warnings if notice.kind == "warning"] == [
        "nothing_encrypted"
    ]


def test_a_linear_model_in_encrypted_steps_is_told_that_one_pass_would_do() -> None:
    of_steps = check(training(), 10_000)
    (advice,) = [notice.text for notice in of_steps.warnings if notice.code == "one_pass_possible"]
    # Two columns times a column, the label and the check column; three pairs of them, and two alone; five folds.
    assert "each row is touched once and not 20 times" in advice
    assert "reads 55 sums in place of 160" in advice
    other = check(training(scheme="none"), 10_000).warnings
    assert "one_pass_possible" not in {notice.code for notice in other}


def test_rows_that_cannot_be_divided_are_refused():
    with pytest.raises(ImpossibleJob, match="1 rows cannot be split"):
        check(training(), 1)
