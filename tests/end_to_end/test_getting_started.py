"""docs/getting_started.md, done as it says: its settings, its job, its commands; only the ports are free ones."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import ROOT, enrol, free_ports, run, serving

PAGE = (ROOT / "docs" / "getting_started.md").read_text("utf-8")
ROWS = 1200
PORTS = {"bank": ("7101", "7102"), "telco": ("7201", "7202")}
"""Those the page reckons with."""


def block(language: str, containing: str) -> str:
    """The fenced block of the page in this language that contains this text."""
    (found,) = (
        text
        for text in re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
        if containing in text
    )
    return str(found)


def vfl(folder: Path, command: str) -> Any:
    """A command as the page quotes it, run in `folder`; its data."""
    assert f"$ {command}\n" in PAGE
    return run(folder, *command.split()[1:])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Both parties' folders after sections 1 and 2: made by the page's commands, with its settings at the end."""
    ports = dict(zip(("7101", "7102", "7201", "7202"), map(str, free_ports(4)), strict=True))
    draws = np.random.default_rng(0).normal(size=(ROWS, 5))
    defaults = (draws[:, 0] - draws[:, 2] + draws[:, 4] > 0).astype(int)
    for party, file, columns in (("bank", "bank.csv", (0, 1)), ("telco", "telco.csv", (2, 3))):
        made = vfl(tmp_path, f"vfl party init {party} --name {party}")
        path, peer = tmp_path / party / "party.toml", "telco" if party == "bank" else "bank"
        own = path.read_text("utf-8")
        for name, port in zip(("operator_port", "peer_port"), PORTS[party], strict=True):
            own = own.replace(f"{name} = {made[name]}", f"{name} = {ports[port]}")
        pasted = re.sub("7[12]0[12]", lambda port: ports[port[0]], block("toml", f'peers = ["{peer}"]'))
        path.write_text(f"{own}\n{pasted}", "utf-8")
        header = block("csv", "income" if party == "bank" else "calls").splitlines()[0]
        lines = [
            f"c-{row:04},{draws[row, columns[0]]:.6f},{draws[row, columns[1]]:.6f}"
            + (f",{defaults[row]}" if party == "bank" else "")
            for row in range(ROWS)
        ]
        (tmp_path / party / file).write_text("\n".join([header, *lines]) + "\n", "utf-8")
    (tmp_path / "job.toml").write_text(block("toml", "[roster]"), "utf-8")
    return tmp_path


def test_two_organisations_do_what_the_page_says_and_get_a_model(folder: Path) -> None:
    with serving(folder, "bank"), serving(folder, "telco"):
        for command in ("vfl peer invite telco --party bank", "vfl peer accept LINE --party telco"):
            assert f"$ {command}\n" in PAGE
        vfl(folder, "vfl data add customers bank/bank.csv --id customer --label default --party bank")
        vfl(folder, "vfl data add usage telco/telco.csv --id customer --party telco")
        enrol(folder, "bank", "telco")
        vfl(folder, "vfl grant create job.toml --party telco")
        job = vfl(folder, "vfl job submit job.toml --party bank")["id"]
        done = run(folder, "job", "watch", job, "--party", "bank")
        assert [line["id"] for line in vfl(folder, "vfl job list --party bank")["jobs"]] == [job]
        other = run(folder, "job", "watch", job, "--party", "telco")
    assert done["state"] == other["state"] == "done"
    assert done["metrics"]["auc"] > 0.8
    assert not other["metrics"]
    assert done["spec_digest"] == other["spec_digest"]
    for party in ("bank", "telco"):
        kept = folder / party / "models" / job
        assert {"model.safetensors", "manifest.json"} <= {path.name for path in kept.iterdir()}
        assert (folder / party / "operator.token").stat().st_mode & 0o777 == 0o600
