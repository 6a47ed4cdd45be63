"""The examples run, are short, and print what they promise."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
LONGEST_EXAMPLE = 60
SECONDS = 120


def run(example: str, *arguments: str) -> str:
    command = [sys.executable, str(ROOT / "examples" / example), *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


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
