"""The audit log in a real database: what is appended commits or not, together with the rest."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sql
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from parties.storage.audit_log import LEAVES_AT_ONCE, AuditLog
from parties.storage.cosigned_heads import cosigned, keep_cosigned
from parties.storage.engine import Database
from parties.trust.log_keys import cosigning_key, log_key, origin
from parties.trust.merkle import EMPTY_ROOT, Place, grow, is_consistent, is_included, leaf_hash, root
from parties.trust.notes import Checkpoint, Note

KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))
PUBLIC = KEY.public_key().public_bytes_raw()
METADATA = sql.MetaData()
LOG = AuditLog(METADATA)
COUNTERS = sql.Table("counters", METADATA, sql.Column("value", sql.Integer, primary_key=True))


@pytest.fixture
def engine(tmp_path: Path, database_url: str) -> Iterator[sql.Engine]:
    if database_url:
        url = sql.make_url(database_url).set(drivername="postgresql+psycopg")
        schema = str(url.query["options"])
        engine = sql.create_engine(url.set(query={}), connect_args={"options": f"{schema} -c lock_timeout=200"})
    else:
        engine = sql.create_engine(f"sqlite:///{tmp_path / 'party.db'}", connect_args={"timeout": 0.2})
    METADATA.create_all(engine)
    yield engine
    engine.dispose()


def leaves(count: int, first: int = 0) -> list[bytes]:
    return [b"leaf %d" % number for number in range(first, first + count)]


def head(size: int, root_hash: bytes, party: str = "bank") -> Note:
    text = str(Checkpoint(origin(party), size, root_hash))
    return Note(text).signed(log_key(party, PUBLIC).sign(text, KEY.sign))


def test_the_root_is_that_of_all_leaves_however_they_came(engine: sql.Engine) -> None:
    tree: dict[Place, bytes] = grow(0, map(leaf_hash, leaves(100)), lambda place: tree[place])
    with engine.begin() as connection:
        assert (LOG.size(connection), LOG.root(connection, 0)) == (0, EMPTY_ROOT)
    for count in (1, 0, 6, 1, 40, 52):
        with engine.begin() as connection:
            size = LOG.append(connection, leaves(count, LOG.size(connection)))
            assert LOG.size(connection) == size
            assert LOG.root(connection, size) == root(size, tree.__getitem__)
    with engine.connect() as connection:
        assert list(LOG.leaves(connection)) == leaves(100)
        assert list(LOG.leaves(connection, 7, 9)) == leaves(2, 7)


def test_proofs_from_the_database_hold(engine: sql.Engine) -> None:
    with engine.begin() as connection:
        LOG.append(connection, leaves(77))
    with engine.connect() as connection:
        roots = {size: LOG.root(connection, size) for size in (20, 77)}
        path = LOG.inclusion_proof(connection, 41, 77)
        assert is_included(leaf_hash(b"leaf 41"), 41, 77, path, roots[77])
        assert is_consistent(20, 77, LOG.consistency_proof(connection, 20, 77), roots[20], roots[77])


def test_leaves_commit_with_what_they_tell_of_or_not_at_all(engine: sql.Engine) -> None:
    def write(value: int, *, fails: bool) -> None:
        with engine.begin() as connection:
            connection.execute(COUNTERS.insert().values(value=value))
            LOG.append(connection, leaves(3, value))
            if fails:
                raise OSError("disk full")

    write(0, fails=False)
    with pytest.raises(OSError, match="disk full"):
        write(3, fails=True)
    write(3, fails=False)
    with engine.connect() as connection:
        assert list(LOG.leaves(connection)) == leaves(6)
        assert connection.execute(sql.select(COUNTERS.c.value)).scalars().all() == [0, 3]


def test_two_writers_cannot_append_at_one_place(engine: sql.Engine) -> None:
    with engine.begin() as first:
        LOG.append(first, leaves(2))
    with engine.connect() as slow, engine.connect() as fast:
        assert LOG.size(slow) == 2
        LOG.append(fast, [b"fast"])
        with pytest.raises(sql.exc.OperationalError, match="lock"):
            LOG.append(slow, [b"slow"])
        slow.rollback()
        fast.commit()
    with engine.connect() as connection:
        assert list(LOG.leaves(connection)) == [*leaves(2), b"fast"]


def test_a_long_log_is_read_page_by_page(engine: sql.Engine) -> None:
    count = 2 * LEAVES_AT_ONCE + 5
    with engine.begin() as connection:
        LOG.append(connection, leaves(count))
        assert list(LOG.leaves(connection)) == leaves(count)
        assert len(list(LOG.leaves(connection, 5))) == count - 5


def test_heads_are_kept_by_size_with_all_their_cosignatures(engine: sql.Engine) -> None:
    plain = head(5, bytes(32))
    cosigned = plain.signed(cosigning_key("clinic", PUBLIC).cosign(plain.text, 1_700_000_000, KEY.sign))
    with engine.begin() as connection:
        for note in (head(9, bytes(32)), plain, cosigned):
            LOG.keep_head(connection, note)
        assert LOG.heads(connection) == [cosigned, head(9, bytes(32))]


def test_of_each_log_the_newest_head_that_was_cosigned_is_known(tmp_path: Path, database_url: str) -> None:
    database = Database(tmp_path, url=database_url)
    with database.writing() as connection:
        assert cosigned(connection) == {}
        for size, party in [(3, "clinic"), (8, "clinic"), (4, "insurer")]:
            keep_cosigned(connection, head(size, bytes(32), party))
    with database.reading() as connection:
        assert cosigned(connection) == {
            "clinic/audit-log": head(8, bytes(32), "clinic"),
            "insurer/audit-log": head(4, bytes(32), "insurer"),
        }
    database.close()
