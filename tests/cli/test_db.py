"""`vfl db`: what the operator of a party's database reads, in a terminal and in a script."""

import json
from pathlib import Path
from typing import Any

import pytest

from api.cli.main import main
from parties.folder_lock import hold
from parties.settings import init_party


@pytest.fixture
def bank(tmp_path: Path) -> Path:
    return init_party(tmp_path / "bank", "bank", operator_port=7101, peer_port=7102).parent


def vfl(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, Any]:
    """(exit code, the envelope)."""
    with pytest.raises(SystemExit) as ended:
        main([*words, "--format", "json"])
    assert isinstance(ended.value.code, int)
    return ended.value.code, json.loads(capsys.readouterr().out)


def test_an_upgrade_needs_the_server_to_be_stopped(bank: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, answer = vfl(capsys, "db", "upgrade", str(bank))
    assert (code, answer["data"]["database"]) == (0, "party.db")
    with hold(bank):
        code, answer = vfl(capsys, "db", "upgrade", str(bank))
    assert (code, answer["error_code"]) == (1, "party_in_use")


def test_a_backup_replaces_no_file_unasked_and_is_restored_once(
    bank: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place, elsewhere = str(tmp_path / "backup"), str(tmp_path / "elsewhere")
    code, answer = vfl(capsys, "db", "backup", str(bank), "--output", place)
    assert (code, answer["data"]["party"], answer["data"]["leaves"]) == (0, "bank", 0)
    code, answer = vfl(capsys, "db", "backup", str(bank), "--output", place)
    assert (code, answer["error_code"]) == (4, "file_exists")
    assert vfl(capsys, "db", "backup", str(bank), "--output", place, "--force")[0] == 0
    code, answer = vfl(capsys, "db", "restore", place, elsewhere)
    assert (code, answer["data"]["missing"]) == (0, [f"{elsewhere}/identity.passphrase"])
    code, answer = vfl(capsys, "db", "restore", place, elsewhere)
    assert (code, answer["error_code"]) == (4, "restore_refused")
    code, answer = vfl(capsys, "db", "restore", f"{elsewhere}/party.toml", str(tmp_path / "third"))
    assert (code, answer["error_code"]) == (4, "backup_unreadable")


def test_a_person_is_told_what_to_do_next(
    bank: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for words in (("backup", str(bank), "--output", "backup"), ("restore", "backup", "elsewhere")):
        with pytest.raises(SystemExit):
            main(["db", *words])
    shown = capsys.readouterr()
    assert "keep a copy of that at another place" in shown.err
    assert "Put in place before the server starts: elsewhere/identity.passphrase" in shown.out
    assert "Start it with `vfl party serve elsewhere`" in shown.out
