"""`vfl job check` as a person and a script meet it: no server, eighty columns, refusals with their code and exit 4."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., tuple[int, str, str]]

SPEC = """
job = {{ name = "digits", protocol = "rounds", task = "multiclass", classes = 10 }}
roster = {{ aggregator = "hub", clients = ["north", "south", "west"] }}
train = {{ batch_rows = 16 }}
[data]
hub = {{ test = "held-out", public = "unlabelled", first = "old" }}
north = {{ dataset = "digits" }}
south = {{ dataset = "digits" }}
west = {{ dataset = "digits" }}
[model]
network = "mlp"
input_shape = [64]
label = "digit"
[rounds]
rounds = 30
min_clients = 2
{rounds}
"""

BOTH = """
parts = ["compressed_sync", "backbone_decoder"]
[rounds.backbone_decoder]
cut = "features"
"""


@pytest.fixture
def spec(tmp_path: Path) -> Callable[[str], Path]:
    def write(rounds: str = "") -> Path:
        path = tmp_path / "job.toml"
        path.write_text(SPEC.format(rounds=rounds))
        return path

    return write


def test_it_tells_sides_sizes_and_warnings_in_eighty_columns(run: Run, spec: Callable[..., Path]) -> None:
    code, out, err = run("job", "check", spec(BOTH))
    assert (code, err) == (0, "")
    assert out.startswith("digits: multiclass, protocol rounds\n")
    words = " ".join(out.split())
    assert "client north, south, west" in words
    assert "kB (averaging " in words
    assert 'acceptance.peers of hub: "north", "south", "west"' in words
    assert 'acceptance.datasets of north, south, west: "digits"' in words
    assert 'acceptance.schemes of every party: "updates"' in words
    assert "carry_back = best without validation rows" in words
    assert max(len(line) for line in out.splitlines()) <= 80


def test_a_job_with_model_inversion_is_warned_of_its_use_and_of_who_can_find_rows(
    run: Run, spec: Callable[..., Path]
) -> None:
    code, out, _ = run("job", "check", spec('parts = ["model_inversion"]'))
    assert code == 0
    assert "model_inversion is unlikely to help where 3 of 3 clients take part" in " ".join(out.split())
    assert "the aggregator inverts each client's own model" in " ".join(out.split())


def test_the_json_is_one_envelope(run: Run, spec: Callable[..., Path]) -> None:
    code, out, err = run("job", "check", spec(), "--format", "json")
    answer = json.loads(out)
    assert (code, err, answer["status"]) == (0, "", "ok")
    data = answer["data"]
    assert data["forecast"]["parameters"] == 64 * 64 + 64 + 64 * 32 + 32 + 32 * 10 + 10
    assert [side["role"] for side in data["sides"]] == ["aggregator", "client"]


@pytest.mark.parametrize(
    ("rounds", "code", "text"),
    [
        ('secure_sum = true\nparts = ["compressed_sync"]\n[rounds.compressed_sync]\ncodec = "rotation"',
         "spec_conflict", "X2"),
        ('parts = ["compressed_sync"]\n[rounds.compressed_sync]\nfeedback = false', "spec_conflict", "X4"),
        ('parts = ["backbone_decoder"]', "spec_conflict", "X9"),
        ('parts = ["shared_rows"]', "invalid_spec", "is no part"),
        ("round = 3", "invalid_spec", "unknown field"),
    ],
)  # fmt: skip
def test_a_refusal_has_the_code_it_has_between_servers_and_exits_with_4(
    run: Run, spec: Callable[..., Path], rounds: str, code: str, text: str
) -> None:
    exit_code, out, _ = run("job", "check", spec(rounds), "--format", "json")
    answer = json.loads(out)
    assert (exit_code, answer["error_code"]) == (4, code)
    assert text in answer["message"]
    assert answer["hint"] or code == "invalid_spec"
    _, _, err = run("job", "check", spec(rounds))
    assert err.endswith(f"[{code}]\n")


def test_a_simulation_is_checked_as_the_job_it_stands_for(run: Run, tmp_path: Path) -> None:
    head, _, rest = SPEC.format(rounds="").partition("roster =")
    _, _, tail = rest.partition("[model]")
    simulated = f'{head}train = {{ batch_rows = 16 }}\n[simulation]\ndataset = "digits"\nclients = 120\n[model]{tail}'
    (tmp_path / "many.toml").write_text(simulated)
    code, out, _ = run("job", "check", tmp_path / "many.toml")
    assert code == 0
    assert "client-001, client-002, client-003, client-004 and 116 more" in " ".join(out.split())


def test_ten_thousand_simulated_clients_are_counted_and_not_built(run: Run, tmp_path: Path) -> None:
    head, _, rest = SPEC.format(rounds="clients_per_round = 20").partition("roster =")
    _, _, tail = rest.partition("[model]")
    simulation = 'train = { batch_rows = 16 }\nsimulation = { dataset = "digits", clients = 10000 }'
    (tmp_path / "many.toml").write_text(f"{head}{simulation}\n[model]{tail}")
    code, out, _ = run("job", "check", tmp_path / "many.toml")
    assert code == 0
    assert "and 9,996 more" in " ".join(out.split())


def test_a_training_asks_for_its_number_of_rows(run: Run, tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "job_specification.md").read_text()
    path = tmp_path / "job.toml"
    path.write_text(page.partition("```toml\n")[2].partition("```")[0])
    without, given = run("job", "check", path)[1], run("job", "check", path, "--rows", "30000")[1]
    assert "needs --rows" in without
    assert "needs --rows" not in given
    assert "EncryptedEmbedding: " in given
    assert max(len(line) for line in (without + given).splitlines()) <= 80


def test_a_file_that_is_missing_is_named(run: Run) -> None:
    code, out, _ = run("job", "check", "none.toml", "--format", "json")
    assert (code, json.loads(out)["error_code"]) == (4, "file_unreadable")


def test_a_file_that_begins_with_a_byte_order_mark_is_read(run: Run, spec: Callable[..., Path]) -> None:
    path = spec()
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert run("job", "check", path)[0] == 0


def test_the_fields_of_its_answer_are_documented(run: Run, spec: Callable[..., Path]) -> None:
    page = (Path(__file__).parents[2] / "docs" / "cli.md").read_text()
    table = page.partition("## Looking at a job")[2].partition("\n## ")[0]
    documented = [name for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) for name in row.split("`")[1::2]]
    assert documented == list(json.loads(run("job", "check", spec(), "--format", "json")[1])["data"])


def test_it_tells_of_model_inversion_who_can_find_whose_rows_and_where_it_is_of_little_use(
    run: Run, spec: Callable[..., Path]
) -> None:
    code, out, _ = run("job", "check", spec('parts = ["model_inversion"]'), "--format", "json")
    assert code == 0
    found = {notice["code"]: notice for notice in json.loads(out)["data"]["warnings"]}
    assert {frozenset(notice) for notice in found.values()} == {frozenset({"kind", "code", "text"})}
    assert "is unlikely to help where 3 of 3 clients take part" in found["inversion_of_little_use"]["text"]
    assert "the aggregator inverts each client's own model" in found["inversion_reveals"]["text"]
    _, clear, _ = run("job", "check", spec('parts = ["model_inversion"]'))
    assert "can find rows like that client's" in " ".join(clear.split())


def test_a_roster_of_two_without_an_agreed_range_is_told_the_way_out(run: Run, tmp_path: Path) -> None:
    two = SPEC.format(rounds="").replace(', "west"]', "]").replace('west = { dataset = "digits" }\n', "")
    (tmp_path / "two.toml").write_text(two)
    code, out, _ = run("job", "check", tmp_path / "two.toml", "--format", "json")
    failure = json.loads(out)
    assert (code, failure["error_code"]) == (4, "spec_conflict")
    assert "a sum over two shows each the other's" in failure["message"]
    assert "model.input_range = [low, high]" in failure["hint"]


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("rounds = 30", "rounds = 1000000000", "rounds.rounds is 1000000000; 100000 is the most"),
        ("input_shape = [64]", "input_shape = [4096, 4096, 4096]\ninput_range = [0.0, 1.0]", "268435456 is the most"),
        ("input_shape = [64]", f"input_shape = [64]\nhidden = {[4096] * 8}", "model.hidden is 4096"),
        (
            "rounds = 30",
            "rounds = 30\nreply_norm_limit = nan",
            "rounds.reply_norm_limit must be a finite number",
        ),
        ("rounds = 30", "rounds = 30\nstop = { gain = inf }", "rounds.stop.gain must be a finite number of at least 0"),
        ("batch_rows = 16", "batch_rows = 16, proximal = inf", "train.proximal must be a finite number of at least 0"),
        ('name = "digits"', 'name = "\\u001b[31mred"', "job.name holds control characters"),
        ('name = "digits"', '"\\u001b[31mname" = 1', "unknown field"),
        ('name = "digits"', f"name = {'[' * 40_000}", "it nests too deeply"),
        ('name = "digits"', f"{'.'.join('a' * 20_000)} = 1", "has more than 16 dots"),
        ('name = "digits"', ".".join(['"b.c"'] * 2_000) + " = 1", "has more than 16 dots"),
        ("min_clients = 2", f"# {'x' * (256 << 10)}", "262144 is the most"),
        ('"north", "south", "west"', ", ".join(f'"client-{n}"' for n in range(10_000)), "[data.*] must name every"),
    ],
)
def test_what_a_server_refuses_is_refused_in_the_same_words_before_anything_is_built(
    run: Run, spec: Callable[..., Path], old: str, new: str, told: str
) -> None:
    path = spec()
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    code, out, err = run("job", "check", path)
    assert (code, out) == (4, "")
    assert told in " ".join(err.split())
    assert "\x1b" not in err
    assert len(err) < 5000


def test_strings_and_comments_may_hold_what_would_be_deep_as_structure(run: Run, spec: Callable[..., Path]) -> None:
    path = spec()
    deep = "[" * 40 + ".".join("a" * 40)
    text = path.read_text().replace('name = "digits"', f'name = "{deep}", purpose = \'{deep} "\'')
    path.write_text(f"# {deep}\n{text}")
    code, out, _ = run("job", "check", path)
    assert (code, "".join(out.split()).startswith(deep)) == (0, True)


def test_a_model_too_large_to_rehearse_is_checked_without_a_forecast(run: Run, spec: Callable[..., Path]) -> None:
    path = spec()
    path.write_text(path.read_text().replace("input_shape = [64]", f"input_shape = [64]\nhidden = {[2048] * 8}"))
    code, out, _ = run("job", "check", path)
    assert code == 0
    assert "too large to rehearse" in " ".join(out.split())
