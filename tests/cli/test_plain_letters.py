"""A terminal that knows ASCII alone, as LANG=C in a pipe: text in its nearest letters, JSON with the same values."""

import json
import os
import subprocess
import sys
from pathlib import Path

PLAIN = {"LANG": "C", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
SECONDS = 120
NAME = "Größe → 中"
SPEC = f"""
job = {{ name = "{NAME}", protocol = "rounds", task = "multiclass", classes = 10 }}
train = {{ batch_rows = 32 }}
rounds = {{ rounds = 1 }}
simulation = {{ dataset = "digits", clients = 3 }}
model = {{ network = "mlp", hidden = [4], input_shape = [64], input_range = [0.0, 16.0], label = "digit" }}
"""


def plainly(folder: Path, *arguments: str) -> str:
    """What a command prints, as ASCII."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONIOENCODING"} | PLAIN
    done = subprocess.run(
        [sys.executable, "-m", "vfl", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    done.stderr.decode("ascii")
    return done.stdout.decode("ascii")


def test_a_demonstration_prints_its_squared_metric(tmp_path: Path) -> None:
    out = plainly(tmp_path, "demo", "--dataset", "diabetes", "--scheme", "none", "--epochs", "1")
    assert out.splitlines()[2].split()[:2] == ["model", "R2"]
    assert " ".join(out.split()).count("warning both parties: nothing is encrypted") == 1


def test_names_from_a_specification_are_written_in_the_nearest_letters_and_kept_in_json(tmp_path: Path) -> None:
    (tmp_path / "job.toml").write_text(SPEC, "utf-8")
    assert plainly(tmp_path, "run", "job.toml").startswith("Gro\\xdfe -> \\u4e2d: 3 clients")
    assert json.loads(plainly(tmp_path, "job", "check", "job.toml", "--format", "json"))["data"]["name"] == NAME
