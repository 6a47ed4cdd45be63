"""`vfl align` writes the specification of an alignment, and submits it or prints it."""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command_line import SECONDS, VFL, enrol, free_ports, run, serving

from vfl.kinds import read_spec_as
from vfl.spec.alignment import AlignmentSpec

ROWS = 1200
ALIGN = ("align", "telco", "--data", "people", "--id", "id", "--party", "bank")


@pytest.fixture(scope="module")
def parties(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A bank and a telco that trust each other, with half of their rows in common."""
    folder, ports = tmp_path_factory.mktemp("parties"), free_ports(4)
    for party, peer, offset, own in (("bank", "telco", 0, ports[:2]), ("telco", "bank", ROWS // 2, ports[2:])):
        run(folder, "party", "init", party, "--name", party, "--operator-port", str(own[0]), "--peer-port", str(own[1]))
        lines = [f"c-{row + offset:05}" for row in range(ROWS)]
        (folder / party / "people.csv").write_text("\n".join(["id", *lines]) + "\n", "utf-8")
        with (folder / party / "party.toml").open("a", encoding="utf-8") as settings:
            settings.write(f'\n[acceptance]\npeers = ["{peer}"]\ndatasets = ["people"]\nschemes = ["common_ids"]\n')
    with serving(folder, "bank"), serving(folder, "telco"):
        enrol(folder, "bank", "telco")
        for party in ("bank", "telco"):
            run(folder, "data", "add", "people", f"{party}/people.csv", "--id", "id", "--party", party)
        yield folder


def failed(folder: Path, *arguments: str) -> Any:
    command = [VFL, "align", *arguments, "--party", "bank", "--format", "json"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == 4
    return json.loads(done.stdout)


def test_the_specification_is_printed_for_a_grant_and_nothing_is_sent(parties: Path) -> None:
    options = ("--type", "integer", "--size-only", "--lower", "--purpose", "a test", "--print")
    text = run(parties, "align", "telco", "--data", "people", "--id", "id", *options, "--party", "bank")[
        "specification"
    ]
    spec = read_spec_as(AlignmentSpec, text)
    assert (spec.parties, spec.align.types, spec.align.case) == (("bank", "telco"), ("integer",), "lower")
    assert (spec.tells_rows, spec.job.purpose, spec.align.minimum_ids) == (False, "a test", 1000)
    assert run(parties, "job", "list", "--party", "bank")["jobs"] == []


def test_a_peer_may_have_other_names_for_its_data(parties: Path) -> None:
    options = ("--peer-data", "usage", "--peer-id", "kunde", "--print")
    text = run(parties, "align", "telco", "--data", "people", "--id", "id", *options, "--party", "bank")[
        "specification"
    ]
    spec = read_spec_as(AlignmentSpec, text)
    assert (spec.data["bank"].dataset, spec.data["bank"].id) == ("people", ("id",))
    assert (spec.data["telco"].dataset, spec.data["telco"].id) == ("usage", ("kunde",))


def test_columns_and_types_that_do_not_match_are_told_before_anything_is_sent(parties: Path) -> None:
    answer = failed(parties, "telco", "--data", "people", "--id", "a", "--id", "b", "--type", "text")
    assert answer["error_code"] == "invalid_arguments"
    assert "the same number of times" in answer["message"]


def test_a_data_set_that_this_party_does_not_have_is_told_before_any_rule(parties: Path) -> None:
    answer = failed(parties, "telco", "--data", "poeple", "--peer-data", "people", "--id", "id")
    assert (answer["error_code"], answer["hint"]) == ("unknown_dataset", "Did you mean 'people'?")


def test_two_parties_align_by_one_command_and_a_grant(parties: Path) -> None:
    (parties / "align.toml").write_text(run(parties, *ALIGN, "--print")["specification"], "utf-8")
    run(parties, "grant", "create", "align.toml", "--party", "telco")
    job = run(parties, *ALIGN)["id"]
    for party in ("bank", "telco"):
        run(parties, "job", "watch", job, "--party", party)
        shown = run(parties, "job", "show", job, "--party", party)
        assert shown["metrics"]["common_ids"] == ROWS // 2
    text = subprocess.run(
        [VFL, "job", "show", job, "--party", "bank"], cwd=parties, capture_output=True, text=True, check=True
    ).stdout
    assert re.search(r"^common_ids +600$", text, re.MULTILINE)
    assert shown["result_digest"] in text
    assert "hundredth 100 of 100" in text
