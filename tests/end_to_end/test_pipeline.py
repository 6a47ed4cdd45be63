"""docs/pipeline.md, done as it says: its settings and its two scripts; only the ports are free ones."""

import csv
import json
import os
import re
import shutil
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import ROOT, enrol, free_ports, run, serving

PAGE = (ROOT / "docs" / "pipeline.md").read_text("utf-8")
SECONDS = 300
KNOWN, NEW, ABSENT = 1500, 1100, 150
"""Rows of each file, and how many of them the other party does not have."""

pytestmark = pytest.mark.skipif(
    not (shutil.which("curl") and shutil.which("jq")), reason="the scripts of the page need curl and jq"
)


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def write_table(path: Path, ids: list[str], columns: dict[str, Any], draws: np.random.Generator) -> None:
    """Rows in an order of the file's own."""
    lines = [[name, *(values[at] for values in columns.values())] for at, name in enumerate(ids)]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["customer", *columns])
        writer.writerows(lines[at] for at in draws.permutation(len(lines)))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    ports = iter(free_ports(4))
    draws = np.random.default_rng(0)
    for party, peer in (("bank", "telco"), ("telco", "bank")):
        made = run(tmp_path, "party", "init", party, "--name", party)
        path = tmp_path / party / "party.toml"
        own = path.read_text("utf-8")
        for name in ("operator_port", "peer_port"):
            own = own.replace(f"{name} = {made[name]}", f"{name} = {next(ports)}")
        agreed = blocks("toml")[0].replace('peers = ["telco"]', f'peers = ["{peer}"]')
        path.write_text(f"{own}\n{agreed}", "utf-8")
    for table, rows in (("customers", KNOWN), ("applicants", NEW + ABSENT)):
        columns = draws.normal(size=(rows + ABSENT, 4)).round(6)
        ids = [f"{table[0]}-{at:05}" for at in range(rows + ABSENT)]
        bank, telco = slice(0, rows), slice(ABSENT, rows + ABSENT)
        ours = {"income": columns[bank, 0], "debt": columns[bank, 1]}
        if table == "customers":
            ours["default"] = (columns[bank, 0] - columns[bank, 2] + draws.normal(size=rows) > 0).astype(int)
        write_table(tmp_path / "bank" / f"{table}.csv", ids[bank], ours, draws)
        theirs = {"calls": columns[telco, 2], "data_gb": columns[telco, 3]}
        write_table(tmp_path / "telco" / f"{table}.csv", ids[telco], theirs, draws)
    return tmp_path


def addresses(folder: Path) -> dict[str, str]:
    written = {party: (folder / party / "party.toml").read_text("utf-8") for party in ("bank", "telco")}
    ports = {party: re.findall(r"operator_port = (\d+)", text)[0] for party, text in written.items()}
    return {f"{party.upper()}_API": f"http://127.0.0.1:{port}/v1" for party, port in ports.items()}


def test_two_scripts_of_curl_and_jq_align_train_score_and_fetch_what_proves_it(folder: Path) -> None:
    scripts = dict(zip(("telco", "bank"), blocks("sh"), strict=True))
    environment = os.environ | addresses(folder)
    with serving(folder, "bank"), serving(folder, "telco"):
        enrol(folder, "bank", "telco")
        started = {
            party: subprocess.Popen(
                ["sh", "-c", script],
                cwd=folder,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for party, script in scripts.items()
        }
        try:
            said = {party: process.communicate(timeout=SECONDS)[0] for party, process in started.items()}
        finally:
            for process in started.values():
                process.kill()
    assert [process.returncode for process in started.values()] == [0, 0], said
    with (folder / "scores.csv").open(encoding="utf-8") as file:
        scores = {line["customer"]: float(line["score"]) for line in csv.DictReader(file)}
    assert set(scores) == {f"a-{at:05}" for at in range(ABSENT, NEW + ABSENT)}
    assert json.loads(said["bank"][said["bank"].index("{") :])["auc"] > 0.7
    assert said["telco"].count("default score, contract 2026-114") == 4
    with zipfile.ZipFile(folder / "bank-audit.zip") as bundle:
        assert "leaves.bin" in bundle.namelist()
