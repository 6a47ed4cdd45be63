"""A backup is a party in one file, of one moment, without what opens its keys; it comes back whole or not at all."""

import io
import tarfile
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sql
from debian_postgresql import DebianPostgresql
from identities import acquaint
from proposed_jobs import BANK, TELCO, request
from registered_tables import register

from parties.backup import CONTENTS_FILE, make_backup, restore
from parties.database_errors import BackupUnreadable, RestoreRefused
from parties.settings import init_party, load, load_identity
from parties.storage import grants, lifetime, owner
from parties.storage.database import Job, Store, now
from parties.storage.engine import LAST_CHANGE, METADATA, Database
from parties.storage.negotiated import Negotiated
from parties.storage.passed import AUDIT_LOG, Passed
from parties.storage.traffic import Count, TrafficKey
from parties.trust.grants import grant_for
from parties.trust.leaves import Event, decode

WEIGHTS = b"what a job has learned"
Rows = dict[str, list[tuple[Any, ...]]]


@pytest.fixture
def party(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / TELCO
    init_party(folder, TELCO, operator_port=7101, peer_port=7102)
    monkeypatch.delenv("VFL_STORAGE__URL", raising=False)
    return folder


def fill(folder: Path, url: str = "") -> None:
    """Rows in most tables, and a model."""
    register(folder, {"table": "table.csv"}, url)
    acquaint(folder, {BANK: "127.0.0.1:9"}, url)
    store, asked = Store(folder, url=url), request()
    job = Job(
        id="job", name="n", state="proposed", role="b", party=TELCO, peers=[BANK], spec_digest="", created_at=now()
    )
    store.add(job, asked.spec.encoded(), b"agreement")
    owner.claim(store.database, TELCO)
    with store.database.writing() as connection:
        lifetime.open_budget(connection, "job", TELCO, asked.budget, 1.0)
        grants.add(connection, grant_for(asked, "calls", uses=1).sign(load_identity(folder, load(folder))))
        AUDIT_LOG.tell(connection, Event.JOB_APPROVED, "job")
    word, line = Negotiated("job", "sent", BANK, b"envelope"), TrafficKey("job", "sent", BANK, "Kind")
    store.add_passed(Passed({line: Count(1, 5 << 32, b"digest")}, words=[word, word]))
    store.record("job", "progress", "one \u20ac", {"value": 1.5}, words={BANK: b"word"}, error={"code": "x"})
    store.close()
    (folder / "models" / "job").mkdir(parents=True, mode=0o700)
    (folder / "models" / "job" / "model.safetensors").write_bytes(WEIGHTS)


def rows(folder: Path, url: str = "") -> Rows:
    """Of a party; by which mark a database knows its last change is its own."""
    with closing(Database(folder, url=url)) as database, database.reading() as connection:
        tables = [table for table in METADATA.sorted_tables if table is not LAST_CHANGE]
        return {table.name: sorted(map(tuple, connection.execute(table.select()))) for table in tables}


@pytest.mark.parametrize("of_other_kind", [False, True], ids=["to the same kind", "to the other kind"])
def test_a_party_comes_back_as_it_was_in_either_kind_of_database(
    party: Path,
    tmp_path: Path,
    database_url: str,
    postgresql: DebianPostgresql,
    monkeypatch: pytest.MonkeyPatch,
    *,
    of_other_kind: bool,
) -> None:
    monkeypatch.setenv("VFL_STORAGE__URL", database_url)
    fill(party, database_url)
    before = rows(party, database_url)
    contents = make_backup(party, tmp_path / "backup")
    assert (contents.party, contents.leaves) == (TELCO, 1)

    target = postgresql.new_schema() if bool(database_url) != of_other_kind else ""
    monkeypatch.setenv("VFL_STORAGE__URL", target)
    restored = restore(tmp_path / "backup", tmp_path / "elsewhere")
    after = rows(tmp_path / "elsewhere", target)
    (told,) = (decode(leaf) for number, leaf in after.pop("audit_leaves")[1:])
    assert (told.event, told.detail) == (Event.RESTORED, {"leaves": 1})
    assert after.pop("owner") == [(TELCO, 1)]
    assert {name: after[name] for name in after if name != "audit_subtrees"} == {
        name: before[name] for name in after if name != "audit_subtrees"
    }
    assert (tmp_path / "elsewhere" / "models" / "job" / "model.safetensors").read_bytes() == WEIGHTS
    assert restored.missing == (str(tmp_path / "elsewhere" / "identity.passphrase"),)
    with closing(Store(tmp_path / "elsewhere", url=target)) as store:  # words are still told apart by their order
        store.add_passed(
            Passed({TrafficKey("job", "sent", BANK, "Kind"): Count()}, words=[Negotiated("job", "sent", BANK, b"next")])
        )
        assert [word.envelope for word in store.negotiated("job")] == [b"envelope", b"envelope", b"next"]


def test_what_opens_the_key_and_what_commands_the_party_is_not_in_a_backup(party: Path, tmp_path: Path) -> None:
    (party / "own.pem").write_text("a certificate")
    (party / "own.key").write_text("a private key")
    with (party / "party.toml").open("a") as settings:
        settings.write(
            '\n[server.tls]\ncertificate = "own.pem"\nkey = "own.key"\n'.replace("[server.tls]", "[server.tls]")
        )
    fill(party)
    make_backup(party, tmp_path / "backup")
    assert (tmp_path / "backup").stat().st_mode & 0o777 == 0o600
    data = (tmp_path / "backup").read_bytes()
    for name in ("identity.passphrase", "operator.token", "operator.token.sha256", "own.key"):
        assert (party / name).read_bytes().strip() not in data, name
    restored = restore(tmp_path / "backup", tmp_path / "elsewhere")
    assert [Path(each).name for each in restored.missing] == ["identity.passphrase", "own.key"]
    token = (tmp_path / "elsewhere" / "operator.token").read_text()
    assert token != (party / "operator.token").read_text()
    assert {
        path.stat().st_mode & 0o077 for path in (tmp_path / "elsewhere").rglob("*") if path.name != "party.lock"
    } == {0}
    (tmp_path / "elsewhere" / "identity.passphrase").write_bytes((party / "identity.passphrase").read_bytes())
    folder = tmp_path / "elsewhere"
    assert load_identity(folder, load(folder)).key == load_identity(party, load(party)).key


def test_a_backup_is_of_one_moment_while_the_server_writes(
    party: Path, tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each commit has one leaf and one message of traffic."""
    monkeypatch.setenv("VFL_STORAGE__URL", database_url)
    fill(party, database_url)
    over, line = threading.Event(), TrafficKey("job", "received", BANK, "Kind")
    store = Store(party, url=database_url)

    def write() -> None:
        while not over.is_set():
            store.add_passed(Passed({line: Count(1, 1, b"")}, [b"leaf"]))

    writing = threading.Thread(target=write)
    writing.start()
    try:
        backups = [tmp_path / f"backup-{number}" for number in range(3)]
        leaves = [make_backup(party, backup).leaves for backup in backups]
    finally:
        over.set()
        writing.join()
        store.close()
    assert leaves == sorted(set(leaves))
    monkeypatch.setenv("VFL_STORAGE__URL", "")
    for backup, count in zip(backups, leaves, strict=True):
        folder = tmp_path / f"of-{backup.name}"
        restore(backup, folder)
        with closing(Store(folder)) as copy:
            job = copy.job("job")
            assert job is not None
            assert [each.messages for each in job.traffic if each.direction == "received"] == [count - 1]


def changed_bit(data: bytes) -> bytes:
    place = data.index(WEIGHTS)
    return data[:place] + b"W" + data[place + 1 :]


def with_a_file_outside(data: bytes) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(data)) as old, tarfile.open(fileobj=packed, mode="w") as new:
        member = tarfile.TarInfo("../outside")
        new.addfile(member, io.BytesIO())
        for each in old:
            new.addfile(each, old.extractfile(each))
    return packed.getvalue()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (changed_bit, "was changed: models/job/model.safetensors"),
        (lambda data: data[: len(data) // 2], "no whole backup"),
        (lambda data: data.replace(b"vfl-backup-1", b"vfl-backup-2"), "of a later release"),
        (lambda _: b"something else" * 100, "no whole backup"),
        (lambda _: b"", "no whole backup"),
        (with_a_file_outside, "which no backup has"),
    ],
    ids=["a bit", "the end", "the form", "another file", "nothing", "a file outside"],
)
def test_a_backup_that_was_changed_restores_nothing(party: Path, tmp_path: Path, change: object, told: str) -> None:
    fill(party)
    make_backup(party, tmp_path / "backup")
    assert callable(change)
    (tmp_path / "backup").write_bytes(change((tmp_path / "backup").read_bytes()))
    with pytest.raises(BackupUnreadable, match=told):
        restore(tmp_path / "backup", tmp_path / "elsewhere")
    assert [path.name for path in (tmp_path / "elsewhere").iterdir()] == ["party.lock"]
    assert not (tmp_path / "outside").exists()


def test_a_party_that_is_there_is_not_overwritten(
    party: Path, tmp_path: Path, postgresql: DebianPostgresql, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(party)
    make_backup(party, tmp_path / "backup")
    with pytest.raises(RestoreRefused, match="is there already"):
        restore(tmp_path / "backup", party)
    url = postgresql.new_schema()
    monkeypatch.setenv("VFL_STORAGE__URL", url)
    restore(tmp_path / "backup", tmp_path / "first")
    with pytest.raises(RestoreRefused, match="belongs to telco and has 2 entries; with 1 entries its audit log"):
        restore(tmp_path / "backup", tmp_path / "second")
    assert [path.name for path in (tmp_path / "second").iterdir()] == ["party.lock"]


def test_a_backup_names_what_it_holds_last(party: Path, tmp_path: Path) -> None:
    fill(party)
    make_backup(party, tmp_path / "backup")
    with tarfile.open(tmp_path / "backup") as archive:
        names = archive.getnames()
    assert (names[0], names[-1]) == ("party.db", CONTENTS_FILE)
    assert set(names[1:-1]) == {"party.toml", "identity.key", "models/job/model.safetensors"}
    with closing(Database(party)) as database, database.reading() as connection:
        assert set(sql.inspect(connection).get_table_names()) == {*METADATA.tables, "alembic_version"}
