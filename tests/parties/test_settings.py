"""party.toml and VFL_* either make settings or an error that names the key."""

from pathlib import Path

import pytest

from parties.errors import SettingsError
from parties.settings import init_party, load, token_hash


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    init_party(tmp_path / "party", "label-party")
    return tmp_path / "party"


def test_a_new_party_has_the_policy_floor_and_a_private_token(folder: Path) -> None:
    settings = load(folder)
    assert settings.name == "label-party"
    assert (settings.acceptance.minimum_rows, settings.acceptance.schemes) == (1000, ("ckks",))
    assert {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()} == {
        "party.toml": 0o600,
        "operator.token": 0o600,
        "operator.token.sha256": 0o600,
    }
    assert len((folder / "operator.token").read_text().strip()) == 43
    assert len(token_hash(folder)) == 32


def test_an_existing_party_is_not_overwritten(folder: Path) -> None:
    before = (folder / "operator.token").read_text()
    with pytest.raises(SettingsError, match="exists already"):
        init_party(folder, "other")
    assert (folder / "operator.token").read_text() == before


def test_the_environment_wins_over_the_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VFL_SERVER__OPERATOR_PORT", "7777")
    server = load(folder).server
    assert (server.operator_port, server.peer_port) == (7777, 7102)


@pytest.mark.parametrize(
    ("old", "new", "told", "fix"),
    [
        ("peer_port", "peer_prot", "unknown key `server.peer_prot`", "Did you mean `peer_port`?"),
        ("[acceptance]", "[accept]", "unknown key `accept`", "Did you mean `acceptance`?"),
        ("minimum_rows = 1000", "minimum_rows = 'many'", "acceptance.minimum_rows", ""),
        ("[server]", '[server]\nhost = "0.0.0.0"', "only 127.0.0.1 is possible", ""),
        ('name = "label-party"', 'name = "Label Party"', "lower-case letters", ""),
        ("peer_port = 7102", "peer_port = 7101", "are the same", ""),
        ("peer_port = 7102", "peer_port = 70000", "server.peer_port", ""),
        ("[server]", "[server", "is not TOML", ""),
        ("# [peers.feature-party]", '[peers.telco]\nurl = "ftp://x"', "must look like http://", ""),
        ("# [peers.feature-party]", '[peers.label-party]\nurl = "http://x:1"', "is this party itself", ""),
    ],
)
def test_a_wrong_key_or_value_is_named(folder: Path, old: str, new: str, told: str, fix: str) -> None:
    path = folder / "party.toml"
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(SettingsError) as refused:
        load(folder)
    assert told in str(refused.value)
    assert fix in refused.value.fix


def test_a_folder_without_a_party_says_how_to_make_one(tmp_path: Path) -> None:
    for reads in (load, token_hash):
        with pytest.raises(SettingsError) as refused:
            reads(tmp_path)
        assert "vfl party init" in refused.value.fix


def test_the_private_seed_is_not_printed(folder: Path) -> None:
    path = folder / "party.toml"
    path.write_text(path.read_text().replace('private_seed = ""', 'private_seed = "canary"'))
    assert "canary" not in repr(load(folder))
