"""A party's own identity keys: on the disk, in the hand of who speaks for it, and after a server that was killed."""

import contextlib
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from identities import acquaint, give_identity, identity_of, peer_named

from parties.errors import SettingsError, StorageFailed
from parties.own_keys import LEAF_SECONDS, OwnKeys
from parties.party import Party
from parties.settings import PartySettings, key_folder, load_identity
from parties.storage.engine import DATABASE_FILE, Database
from parties.trust.identity import Identity
from parties.trust.key_file import FORMER_FILE, KEY_FILE, KeyFolder
from parties.trust.rotation import OVERLAP_SECONDS, SignedRotation

BANK, TELCO, SHOP = "bank", "telco", "shop"
SETTINGS = PartySettings(name=BANK)
NOW = time.time


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    give_identity(tmp_path, BANK)
    made = Database(tmp_path)
    yield made
    made.close()


def keys_in(folder: Path, database: Database) -> OwnKeys:
    return OwnKeys(load_identity(folder, SETTINGS), key_folder(folder, SETTINGS), database)


def later(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    moved = NOW() + seconds
    monkeypatch.setattr("parties.own_keys.time.time", lambda: moved)


def test_a_peer_is_spoken_to_with_the_key_it_pins_until_it_knows_the_new_one(
    tmp_path: Path, database: Database
) -> None:
    keys = keys_in(tmp_path, database)
    old = keys.current
    keys.rotate()
    assert keys.current.key != old.key
    assert keys.for_peer(TELCO).key == keys.for_peer(SHOP).key == old.key
    keys.note_pinned(TELCO, keys.current.key.raw)
    assert keys.for_peer(TELCO).key == keys.current.key
    assert keys.for_peers([TELCO, SHOP]).key == old.key  # who knows the new one takes the old one too
    assert keys.for_peers([TELCO]).key == keys.current.key
    assert keys.counts(old.key.digest)
    assert keys.counts(keys.current.key.digest)
    assert not keys.counts(identity_of(SHOP).key.digest)
    again = keys_in(tmp_path, database)
    assert (again.for_peer(TELCO).key, again.for_peer(SHOP).key) == (keys.current.key, old.key)


def test_after_two_rotations_each_peer_is_told_what_it_has_missed(tmp_path: Path, database: Database) -> None:
    keys = keys_in(tmp_path, database)
    first = keys.current.key.raw
    keys.rotate()
    second = keys.current.key.raw
    keys.note_pinned(TELCO, second)
    keys.rotate()
    led = {peer: [each.read() for each in keys.rotations_since(keys.pinned_by(peer))] for peer in (TELCO, SHOP)}
    assert [(each.old, each.new) for each in led[SHOP]] == [(first, second), (second, keys.current.key.raw)]
    assert led[TELCO] == led[SHOP][1:]
    assert (keys.for_peer(TELCO).key.raw, keys.for_peer(SHOP).key.raw) == (second, first)
    assert keys.for_peers([TELCO, SHOP]).key.raw == first


def test_the_old_key_signs_no_more_after_a_day_and_is_gone_from_the_disk(
    tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = keys_in(tmp_path, database)
    keys.rotate()
    assert (tmp_path / FORMER_FILE).stat().st_mode & 0o777 == 0o600
    assert identity_of(BANK).private.private_bytes_raw() not in (tmp_path / FORMER_FILE).read_bytes()
    later(monkeypatch, OVERLAP_SECONDS - 5)
    keys.forget_old([TELCO])
    assert keys.for_peer(TELCO).key == identity_of(BANK).key
    later(monkeypatch, OVERLAP_SECONDS + 5)
    assert keys.for_peer(TELCO).key == keys.current.key
    assert not keys.counts(identity_of(BANK).key.digest)
    keys.forget_old([TELCO])
    (kept,) = key_folder(tmp_path, SETTINGS).former()
    assert (kept.private, keys.last_leaf(TELCO) is not None) == (b"", True)  # it still opens the door of who was away


def test_the_last_certificate_of_the_old_key_goes_when_all_know_the_new_one_or_after_ninety_days(
    tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = keys_in(tmp_path, database)
    keys.rotate()
    later(monkeypatch, OVERLAP_SECONDS + 5)
    keys.forget_old([TELCO])
    assert (tmp_path / FORMER_FILE).exists()
    later(monkeypatch, LEAF_SECONDS + 5)
    assert keys.last_leaf(TELCO) is None
    keys.forget_old([TELCO])
    assert not (tmp_path / FORMER_FILE).exists()


def test_when_every_peer_knows_the_new_key_nothing_is_kept_longer_than_a_day(
    tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = keys_in(tmp_path, database)
    keys.rotate()
    keys.note_pinned(TELCO, keys.current.key.raw)
    later(monkeypatch, OVERLAP_SECONDS + 5)
    keys.forget_old([TELCO])
    assert not (tmp_path / FORMER_FILE).exists()


def test_a_rotation_that_cannot_be_stored_leaves_the_key_as_it_was(tmp_path: Path) -> None:
    give_identity(tmp_path, BANK)
    database = Database(tmp_path, busy_seconds=0.1)
    keys = keys_in(tmp_path, database)
    with contextlib.closing(sqlite3.connect(tmp_path / DATABASE_FILE, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StorageFailed):
            keys.rotate()
    assert keys.current.key == load_identity(tmp_path, SETTINGS).key == identity_of(BANK).key
    assert not (tmp_path / FORMER_FILE).exists()
    keys.rotate()
    assert load_identity(tmp_path, SETTINGS).key == keys.current.key
    database.close()


def test_a_rotation_that_can_neither_be_stored_nor_be_undone_says_that_the_new_key_counts_from_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    give_identity(tmp_path, BANK)
    database = Database(tmp_path, busy_seconds=0.1)
    keys = keys_in(tmp_path, database)
    write, written = KeyFolder._write, list[str]()

    def until_the_disk_is_full(folder: KeyFolder, path: Path, *content: Any) -> None:
        if KEY_FILE in written:
            raise StorageFailed(f"{path} cannot be written: No space left on device")
        write(folder, path, *content)
        written.append(path.name)

    monkeypatch.setattr(KeyFolder, "_write", until_the_disk_is_full)
    with contextlib.closing(sqlite3.connect(tmp_path / DATABASE_FILE, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StorageFailed) as caught:
            keys.rotate()
    assert keys.current.key == identity_of(BANK).key
    assert "until this server is started again" in caught.value.safe
    monkeypatch.undo()
    again = keys_in(tmp_path, database)
    assert again.current.key == load_identity(tmp_path, SETTINGS).key != identity_of(BANK).key
    assert [former.key for former in again.former] == [identity_of(BANK).key.raw]
    database.close()


class KilledError(BaseException):
    """The process ends here."""


def kill_before(step: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rotate in a process that ends before it has made this step: the file of former keys, the key, the database."""
    done = list[str]()

    def ending(write: Callable[..., None]) -> Callable[..., None]:
        def step_or_end(*arguments: object) -> None:
            if len(done) >= step:
                raise KilledError
            write(*arguments)
            done.append(write.__name__)

        return step_or_end

    database = Database(folder)
    keys = keys_in(folder, database)
    for owner, name in ((KeyFolder, "save_former"), (KeyFolder, "save"), (OwnKeys, "_store")):
        monkeypatch.setattr(owner, name, ending(getattr(owner, name)))
    with pytest.raises(KilledError):
        keys.rotate()
    monkeypatch.undo()
    database.close()
    assert done == ["save_former", "save"][:step]


@pytest.mark.parametrize(("step", "is_rotated"), [(0, False), (1, False), (2, True)])
def test_a_server_that_was_killed_while_it_rotated_has_rotated_or_has_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int, *, is_rotated: bool
) -> None:
    give_identity(tmp_path, BANK)
    acquaint(tmp_path, {TELCO: "127.0.0.1:9"})
    kill_before(step, tmp_path, monkeypatch)
    party = Party(tmp_path, SETTINGS, load_identity(tmp_path, SETTINGS))
    try:
        assert (party.own_keys.current.key != identity_of(BANK).key) == is_rotated
        assert len(party.own_keys.former) == is_rotated
        assert [entry.event for entry in party.audit.entries(0, 9)] == ["key_rotated"] * is_rotated
        assert party.own_keys.for_peer(TELCO).key == identity_of(BANK).key
    finally:
        party.close()


def test_an_old_copy_of_the_key_file_is_not_taken_for_the_key(tmp_path: Path, database: Database) -> None:
    old = (tmp_path / KEY_FILE).read_bytes()
    keys_in(tmp_path, database).rotate()
    (tmp_path / KEY_FILE).write_bytes(old)
    with pytest.raises(SettingsError, match="another key has replaced: an old copy was put back"):
        keys_in(tmp_path, database)


def test_a_peer_counts_with_its_old_key_for_a_day_and_after_its_removal_no_more(tmp_path: Path) -> None:
    give_identity(tmp_path, BANK)
    acquaint(tmp_path, {TELCO: "127.0.0.1:9"})
    party = Party(tmp_path, SETTINGS, load_identity(tmp_path, SETTINGS))
    try:
        old, made_at = identity_of(TELCO), int(time.time())
        new = Identity.generate(TELCO)
        followed = party.peers.follow(TELCO, [SignedRotation.of(old, new, made_at)])
        assert followed.keys(made_at + OVERLAP_SECONDS - 1) == (new.key, old.key)
        assert followed.keys(made_at + OVERLAP_SECONDS) == (new.key,)
        ahead = Identity.generate(TELCO)  # whose clock runs ahead gets no longer time
        (before, _) = party.peers.follow(TELCO, [SignedRotation.of(new, ahead, made_at + 10**6)]).former
        assert before.until <= time.time() + OVERLAP_SECONDS
        party.peers.remove(TELCO)
        party.peers.put(peer_named(TELCO))
        assert party.peers.keys_of(TELCO) == (old.key,)
    finally:
        party.close()
