"""party.toml and VFL_* either make settings or an error that names the key."""

import resource
import socket
from pathlib import Path

import pytest

from parties.errors import SettingsError, StorageFailed
from parties.settings import init_party, load, token_hash
from parties.trust.identity import Identity
from parties.trust.notes import SignatureType, VerifierKey
from parties.worker.frames import ClusterTerms, PoolTerms
from parties.worker_settings import OwnSettings

OPERATOR = "\n[operator]\n"
WITNESS, URL = "\n[[audit.witness]]\n", "url = 'https://a'\n"
KEY = f"key = '{VerifierKey('auditor', SignatureType.COSIGNATURE, Identity.generate('auditor').key.raw)}'\n"
ACCEPTANCE = """
[acceptance]
minimum_rows = 1000
private_seed = ""
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = init_party(tmp_path / "party", "label-party", operator_port=7101, peer_port=7102)
    path.write_text(path.read_text() + ACCEPTANCE)
    return tmp_path / "party"


@pytest.mark.parametrize("writable_bytes", [50, 100, 500], ids=["a token", "the key", "party.toml"])
def test_a_party_that_finds_no_place_on_the_disk_is_not_left_half_made(tmp_path: Path, writable_bytes: int) -> None:
    """The system lets files grow so far only, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (writable_bytes, before[1]))
    try:
        with pytest.raises(StorageFailed, match="cannot be written") as raised:
            init_party(tmp_path / "party", "label-party", operator_port=7101, peer_port=7102)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert raised.value.safe == "No party was made."
    assert list((tmp_path / "party").iterdir()) == []
    init_party(tmp_path / "party", "label-party", operator_port=7101, peer_port=7102)


def test_settings_that_nest_without_end_are_named(folder: Path) -> None:
    (folder / "party.toml").write_text("x = " + "[" * 5000)
    with pytest.raises(SettingsError, match="nests too deeply"):
        load(folder)


def test_a_new_party_has_the_default_limits_and_a_private_token(folder: Path) -> None:
    settings = load(folder)
    assert settings.name == "label-party"
    assert (settings.acceptance.minimum_rows, settings.acceptance.schemes) == (1000, ("ckks",))
    assert {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()} == {
        "party.toml": 0o600,
        "operator.token": 0o600,
        "operator.token.sha256": 0o600,
        "identity.key": 0o600,
        "identity.passphrase": 0o600,
    }
    assert len((folder / "operator.token").read_text().strip()) == 43
    assert len(token_hash(folder)) == 32


def test_a_file_that_begins_with_a_byte_order_mark_is_read(folder: Path) -> None:
    path = folder / "party.toml"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert load(folder).name == "label-party"


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
    ("variable", "fix"),
    [
        ("VFL_SERVER__OPERATR_PORT", "VFL_SERVER__OPERATOR_PORT"),
        ("VFL_ACCEPTANCE__MINIMUM_ROW", "VFL_ACCEPTANCE__MINIMUM_ROWS"),
        ("VFL_SEVER__PEER_PORT", "VFL_SERVER__PEER_PORT"),
        ("VFL_X", "Remove it"),
    ],
)
def test_a_variable_that_is_no_setting_is_refused_with_the_nearest_one(
    folder: Path, monkeypatch: pytest.MonkeyPatch, variable: str, fix: str
) -> None:
    monkeypatch.setenv(variable, "7777")
    with pytest.raises(SettingsError) as refused:
        load(folder)
    assert f"variable {variable} names no setting" in str(refused.value)
    assert fix in refused.value.fix


def test_tables_of_settings_and_what_is_no_setting_are_taken_from_the_environment(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VFL_SERVER", '{"address": "vfl.example.org:7102"}')
    monkeypatch.setenv("vfl_acceptance__minimum_rows", "50")
    monkeypatch.setenv("VFL_DEBUG", "1")
    settings = load(folder)
    assert settings.server.told_address == "vfl.example.org:7102"
    assert settings.acceptance.minimum_rows == 50


def test_a_second_party_beside_the_first_gets_ports_of_its_own(tmp_path: Path) -> None:
    for name in ("bank", "telco"):
        init_party(tmp_path / name, name)
    bank, telco = (load(tmp_path / name).server for name in ("bank", "telco"))
    ports = {bank.operator_port, bank.peer_port, telco.operator_port, telco.peer_port}
    assert len(ports) == 4


def test_a_party_that_is_reached_at_an_address_listens_on_its_port(tmp_path: Path) -> None:
    init_party(tmp_path / "bank", "bank", address="vfl.example.org:7443")
    assert load(tmp_path / "bank").server.peer_port == 7443
    init_party(tmp_path / "telco", "telco", peer_port=7202, address="vfl.example.org:443")  # what is before it forwards
    assert load(tmp_path / "telco").server.peer_port == 7202


def test_a_port_in_use_is_not_given_to_a_new_party(tmp_path: Path) -> None:
    with socket.socket() as taken:
        init_party(tmp_path / "first" / "bank", "bank")
        wanted = load(tmp_path / "first" / "bank").server.peer_port
        taken.bind(("127.0.0.1", wanted))
        taken.listen()
        init_party(tmp_path / "second" / "bank", "bank")
        assert load(tmp_path / "second" / "bank").server.peer_port != wanted


@pytest.mark.parametrize(
    ("old", "new", "told", "fix"),
    [
        ("peer_port", "peer_prot", "unknown key `server.peer_prot`", "Did you mean `peer_port`?"),
        ("\n[acceptance]", "\n[accept]", "unknown key `accept`", "Did you mean `acceptance`?"),
        ("minimum_rows = 1000", "minimum_rows = 'many'", "acceptance.minimum_rows", ""),
        ("[server]", '[server]\npeer_host = "vfl.example.org"', "must be an address of this machine", ""),
        ("[server]", '[server]\naddress = "vfl.example.org"', "must look like vfl.example.org:7102", ""),
        ("[server]", '[server]\naddress = "https://vfl.example.org:7102"', "must look like vfl.example.org:7102", ""),
        ("[server]", '[server]\naddress = "vfl.example.org:70000"', "must look like vfl.example.org:7102", ""),
        ('name = "label-party"', 'name = "Label Party"', "lower-case letters", ""),
        ("peer_port = 7102", "peer_port = 7101", "are the same", ""),
        ("peer_port = 7102", "peer_port = 70000", "server.peer_port", ""),
        ("[server]", "[server", "is not TOML", ""),
        ("\n[acceptance]", "\n[server]\n[acceptance]", "is not TOML", "Each table stands once"),
        ("\n[acceptance]", f"{OPERATOR}host = '0.0.0.0'\n[acceptance]", "allow must name the networks", ""),
        (
            "\n[acceptance]",
            f"{OPERATOR}host = '192.0.2.7'\nallow = []\n[acceptance]",
            "allow must name the networks",
            "",
        ),
        (
            "\n[acceptance]",
            f"{OPERATOR}host = '::'\nallow = ['all']\n[acceptance]",
            "operator.allow.0: value",
            "",
        ),
        ("\n[acceptance]", f"{OPERATOR}allow = ['10.0.0.1/8']\n[acceptance]", "operator.allow.0: value", ""),
        (
            "\n[acceptance]",
            f"{OPERATOR}host = 'bank.example.org'\n[acceptance]",
            "must be an address of this machine",
            "",
        ),
        ("\n[acceptance]", f"{OPERATOR}certificate = 'own.pem'\n[acceptance]", "name both certificate and key", ""),
        ("\n[acceptance]", f"{OPERATOR}allow = ['10.0.0.0/8']\n[acceptance]", "no effect while host is 127.0.0.1", ""),
        ("\n[acceptance]", f"{WITNESS}url = 'http://a'\n{KEY}[acceptance]", "must look like https://", ""),
        ("\n[acceptance]", f"{WITNESS}url = 'https://a?x=1'\n{KEY}[acceptance]", "must look like https://", ""),
        ("\n[acceptance]", f"{WITNESS}url = 'https://a:b'\n{KEY}[acceptance]", "must look like https://", ""),
        ("\n[acceptance]", f"{WITNESS}{URL}key = 'a'\n[acceptance]", "vfl witness init", ""),
        ("\n[acceptance]", f"{WITNESS}{URL}{KEY}urll = ''\n[acceptance]", "audit.witness.0.urll", "`url`"),
        ("\n[acceptance]", 2 * f"{WITNESS}{URL}{KEY}" + "[acceptance]", "two witnesses have one name", ""),
        (
            "\n[acceptance]",
            '\n[peers.telco]\nurl = "http://127.0.0.1:7202"\n[acceptance]',
            "peers no longer stand in party.toml",
            "vfl peer invite",
        ),
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


@pytest.mark.parametrize("url", ["mysql://host/bank", "sqlite:////tmp/bank.db", "postgresql://host", "bank"])
def test_a_database_that_is_not_of_postgresql_is_refused(folder: Path, url: str) -> None:
    path = folder / "party.toml"
    path.write_text(path.read_text() + f"\n[storage]\nurl = '{url}'\n")
    with pytest.raises(SettingsError, match=r"storage\.url: must look like postgresql://user@host/database"):
        load(folder)


def test_the_address_of_a_database_is_not_printed_with_the_settings(folder: Path) -> None:
    path = folder / "party.toml"
    path.write_text(path.read_text() + "\n[storage]\nurl = 'postgresql://vfl:secret@host/bank'\n")
    assert "secret" not in repr(load(folder))


DASK = 'kind = "dask"\nscheduler = "tls://dask:8786"\nca = "ca.pem"\ncertificate = "own.pem"\nkey = "own-key.pem"\n'


def test_a_worker_is_told_how_many_processes_share_its_work_and_of_which_cluster(folder: Path) -> None:
    assert OwnSettings.read(folder, load(folder)).pool == PoolTerms(0, None)
    path = folder / "party.toml"
    path.write_text(f"{path.read_text()}\n[pool]\nprocesses = 3\n{DASK}")
    files = (str(folder / name) for name in ("ca.pem", "own.pem", "own-key.pem"))
    assert OwnSettings.read(folder, load(folder)).pool == PoolTerms(3, ClusterTerms("tls://dask:8786", *files))


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        (DASK.replace('key = "own-key.pem"\n', ""), "needs scheduler, ca, certificate and key"),
        (DASK.replace("tls://", "tcp://"), "work does not travel in clear"),
        (DASK.replace('kind = "dask"\n', ""), "have no effect without"),
        ("processes = -1", "greater than or equal to 0"),
    ],
    ids=["no key", "in clear", "no kind", "fewer than none"],
)
def test_a_cluster_is_named_whole_and_never_in_clear(folder: Path, table: str, reason: str) -> None:
    path = folder / "party.toml"
    path.write_text(f"{path.read_text()}\n[pool]\n{table}")
    with pytest.raises(SettingsError, match=f"pool.*{reason}"):
        load(folder)
