"""The example of docs/protocols/rounds.md, done as it says: tables, settings and job; only the ports are free ones."""

import csv
import itertools
import json
import re
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from command_line import ROOT, enrol, free_ports, run, serving

PAGE = (ROOT / "docs" / "protocols" / "rounds.md").read_text("utf-8")
PARTIES = ("institute", "clinic-a", "clinic-b", "clinic-c")


def block(containing: str) -> str:
    """The page's block of TOML that contains this text."""
    blocks = re.findall(r"^```toml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    (found,) = (text for text in blocks if containing in text)
    return str(found)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    ports = dict(zip((f"7{n}0{m}" for n in "1234" for m in "12"), map(str, free_ports(8)), strict=True))
    settings = {"institute": block('name = "institute"')}
    for at, clinic in enumerate(PARTIES[1:], start=2):
        text = block('name = "clinic-a"').replace("clinic-a", clinic)
        settings[clinic] = text.replace("7201", f"7{at}01").replace("7202", f"7{at}02")
    for party, text in settings.items():
        assert f"$ vfl party init {party} --name {party}\n" in PAGE
        assert f"$ vfl party serve {party}\n" in PAGE
        run(tmp_path, "party", "init", party, "--name", party)
        (tmp_path / party / "party.toml").write_text(re.sub(r"7[1234]0[12]", lambda port: ports[port[0]], text))
    assert "$ python examples/05_clinic_visits.py .\n" in PAGE
    command = [sys.executable, str(ROOT / "examples" / "05_clinic_visits.py"), "."]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, timeout=60)
    (tmp_path / "readmission.toml").write_text(block("[roster]"))
    return tmp_path


def majority(table: Path) -> float:
    with table.open() as rows:
        back = [float(row["readmitted"]) for row in csv.DictReader(rows)]
    return max(sum(back), len(back) - sum(back)) / len(back)


def test_three_clinics_learn_more_than_the_majority_as_the_page_says(folder: Path) -> None:
    assert "$ vfl job submit readmission.toml --party institute\n" in PAGE
    with ExitStack() as servers:
        for party in PARTIES:
            servers.enter_context(serving(folder, party))
        assert "$ vfl peer invite clinic-a --party institute\n$ vfl peer accept LINE --party clinic-a\n" in PAGE
        added = "vfl data add held-out institute/held_out.csv --id visit --party institute"
        assert f"$ {added}\n$ vfl data add visits clinic-a/visits.csv --id visit --party clinic-a\n" in PAGE
        run(folder, *added.split()[1:])
        for clinic in PARTIES[1:]:
            run(folder, "data", "add", "visits", f"{clinic}/visits.csv", "--id", "visit", "--party", clinic)
            enrol(folder, "institute", clinic)
            assert f"$ vfl grant create readmission.toml --party {clinic}\n" in PAGE
            run(folder, "grant", "create", "readmission.toml", "--party", clinic)
        assert "`vfl peer invite clinic-b --party clinic-a`, and so on for each pair" in PAGE
        for one, other in itertools.combinations(PARTIES[1:], 2):
            enrol(folder, one, other)
        job = run(folder, "job", "submit", "readmission.toml", "--party", "institute")["id"]
        done = run(folder, "job", "watch", job, "--party", "institute")
        client = run(folder, "job", "watch", job, "--party", "clinic-b")
    assert done["state"] == client["state"] == "done"
    assert done["metrics"]["auc"] > 0.8
    assert done["metrics"]["accuracy"] > majority(folder / "institute" / "held_out.csv") + 0.08
    for job_of in (done, client):
        codes = [notice["code"] for notice in job_of["notices"]]
        assert "replies_unlimited" in codes
        assert "loss_standstill" not in codes
    assert done["model_digest"] == client["model_digest"]
    assert scaling(folder / "clinic-b" / "models" / job) == scaling(folder / "institute" / "models" / job)


def scaling(model: Path) -> dict[str, Any]:
    """What the model's file says of its inputs."""
    data = (model / "model.safetensors").read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    found: dict[str, Any] = json.loads(header["__metadata__"]["inputs"])
    assert len(found["zero"]) == len(found["unit"]) == 5
    return found
