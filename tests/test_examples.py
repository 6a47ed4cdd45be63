"""The examples run, are short, and print what they promise."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from vfl.kinds import read_spec

ROOT = Path(__file__).parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
LONGEST_EXAMPLE = 60
SECONDS = 120


def run(example: str, *arguments: str) -> str:
    command = [sys.executable, str(ROOT / "examples" / example), *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_an_example_specification_is_one() -> None:
    (written,) = (ROOT / "examples").glob("*.toml")
    spec = read_spec(written.read_text("utf-8"))
    assert (spec.job.protocol, spec.disclosure) == ("alignment", "common_ids")


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_an_example_is_numbered_and_short(example: Path) -> None:
    assert example.name[:3] == f"{EXAMPLES.index(example) + 1:02}_"
    assert len(example.read_text("utf-8").splitlines()) < LONGEST_EXAMPLE


@pytest.mark.parametrize(
    ("scheme", "message"),
    [("none", "laboratory -> maker: Embedding"), ("ckks", "laboratory -> maker: EncryptedEmbedding")],
)
def test_two_parties_train_in_memory_and_print_the_transcript(scheme: str, message: str) -> None:
    printed = run("01_two_parties_in_memory.py", scheme)
    assert message in printed
    assert float(printed.rsplit(maxsplit=1)[1]) > 0.9


def test_a_job_says_what_it_reveals_and_refuses_what_cannot_be_guarded() -> None:
    printed = run("02_what_a_job_reveals.py")
    assert "bank reads" in printed
    assert "OpenedGradient" in printed
    assert "refused: one step opens 403 values, more than the 200 one key may open" in printed


@pytest.mark.parametrize(("scheme", "message"), [("none", "CutGradient"), ("ckks", "EncryptedError")])
def test_a_module_of_ones_own_learns_and_its_owner_is_told_what_it_reads(scheme: str, message: str) -> None:
    printed = run("03_private_bottom.py", scheme)
    assert f"values of {message}: label-bearing numbers for every row and step" in printed
    assert float(printed.rsplit(maxsplit=1)[1]) > 0.97


def test_visits_are_written_for_every_party_and_for_a_simulation(tmp_path: Path) -> None:
    printed = run("05_clinic_visits.py", str(tmp_path))
    names = [line.partition(":")[0] for line in printed.splitlines()]
    assert set(names) == {str(path.relative_to(tmp_path)) for path in tmp_path.glob("*/*.csv")}
    rows = [len(path.read_text().splitlines()) - 1 for path in tmp_path.glob("clinic-*/visits.csv")]
    assert len((tmp_path / "visits.csv").read_text().splitlines()) - 1 == sum(rows)


def test_forty_clients_learn_on_one_machine_and_four_bits_each_take_a_third_of_the_bytes() -> None:
    def sent_and_accuracy(*arguments: str) -> tuple[int, float]:
        printed = run("04_horizontal_simulation.py", *arguments)
        sent = sum(int(size.replace(",", "")) for size in re.findall(r"Round\w+ ([\d,]+) bytes", printed))
        return sent, float(printed.rsplit(maxsplit=1)[1])

    (whole, accuracy), (small, compressed) = sent_and_accuracy(), sent_and_accuracy("compressed")
    assert min(accuracy, compressed) > 0.8
    assert small < whole / 3
