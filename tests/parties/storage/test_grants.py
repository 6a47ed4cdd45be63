"""Grants survive the process; a use is counted in the commit that approves its job, and a revoked one approves none."""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from identities import identity_of
from proposed_jobs import NOW, TELCO, request

from parties.storage import grants
from parties.storage.database import Store
from parties.trust.errors import GrantInvalid, UnknownGrant
from parties.trust.grants import Grant, Uses, grant_for

OWNER = identity_of(TELCO)


@pytest.fixture
def store(tmp_path: Path, database_url: str) -> Iterator[Store]:
    opened = Store(tmp_path, url=database_url)
    yield opened
    opened.close()


def granted(store: Store, uses: Uses = 1, **changes: int) -> Grant:
    grant = msgspec.structs.replace(grant_for(request(), "calls", uses=uses), **changes)
    with store.database.writing() as connection:
        grants.add(connection, grant.sign(OWNER))
    return grant


def use(store: Store, *used: Grant, now: int = NOW) -> None:
    with store.database.writing() as connection:
        grants.count_uses(connection, used, now)


def test_a_grant_is_read_as_it_was_signed_also_by_the_next_server(
    store: Store, tmp_path: Path, database_url: str
) -> None:
    grant = granted(store)
    again = Store(tmp_path, url=database_url)
    with again.database.reading() as connection:
        (stored,) = grants.all_grants(connection)
    again.close()
    assert (stored.grant, stored.used, stored.revoked) == (grant, 0, None)
    assert stored.signed.verified(OWNER.key) == grant


def test_the_newest_grant_is_listed_first_and_the_oldest_is_used_first(store: Store) -> None:
    old, new = granted(store), granted(store, created=NOW + 1)
    with store.database.reading() as connection:
        assert [stored.grant for stored in grants.all_grants(connection)] == [new, old]
        assert grants.usable(connection, OWNER.key) == [(old, 0), (new, 0)]


def test_two_grants_on_the_same_terms_are_two(store: Store) -> None:
    first, second = granted(store), granted(store)
    use(store, first)
    with store.database.writing() as connection:
        grants.revoke(connection, first.id, NOW)
    with store.database.reading() as connection:
        assert grants.usable(connection, OWNER.key) == [(second, 0)]


def test_a_grant_for_one_job_is_used_up_by_it(store: Store) -> None:
    grant = granted(store)
    use(store, grant)
    with pytest.raises(GrantInvalid, match="used up"):
        use(store, grant)


def test_a_standing_grant_is_used_again_and_again_until_it_expires(store: Store) -> None:
    grant = granted(store, "standing")
    for _ in range(3):
        use(store, grant, now=grant.expires - 1)
    with pytest.raises(GrantInvalid, match="expired"):
        use(store, grant, now=grant.expires)
    with store.database.reading() as connection:
        assert grants.usable(connection, OWNER.key) == [(grant, 3)]


def test_where_one_of_two_grants_fails_neither_is_used(store: Store) -> None:
    good, spent = granted(store), granted(store, created=NOW + 1)
    use(store, spent)
    with pytest.raises(GrantInvalid):
        use(store, good, spent)
    with store.database.reading() as connection:
        assert grants.usable(connection, OWNER.key) == [(good, 0), (spent, 1)]


def test_a_revoked_grant_is_shown_and_not_used(store: Store) -> None:
    grant = granted(store, "standing")
    for time in (NOW, NOW + 5):
        with store.database.writing() as connection:
            stored = grants.revoke(connection, grant.id, time)
        assert stored.revoked == NOW
    with pytest.raises(GrantInvalid, match="revoked"):
        use(store, grant)
    with store.database.reading() as connection:
        assert grants.usable(connection, OWNER.key) == []
        assert len(grants.all_grants(connection)) == 1


def test_an_unknown_grant_cannot_be_revoked(store: Store) -> None:
    with pytest.raises(UnknownGrant, match="'nothing'"), store.database.writing() as connection:
        grants.revoke(connection, "nothing", NOW)
