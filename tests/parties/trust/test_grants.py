"""A grant covers what it names and nothing else; each refusal names the rule, what was asked and the limit."""

from dataclasses import replace
from typing import Any

import msgspec
import pytest
from identities import identity_of
from proposed_jobs import BANK, DIGEST, NOW, TELCO, request, round_request, specification

from parties.trust.errors import GrantInvalid
from parties.trust.grants import DAY_SECONDS, Grant, SignedGrant, coverage, grant_for, match
from parties.trust.identity import Domain

OWNER = identity_of(TELCO)


def grant(**changes: Any) -> Grant:
    """The narrowest one for the job, changed."""
    fields = msgspec.structs.asdict(grant_for(request(), "calls")) | {"id": "0123456789abcdef"} | changes
    return Grant(**fields)


def test_the_narrowest_grant_covers_its_job_and_says_all_it_allows() -> None:
    narrow = grant()
    assert match(narrow, request()) is None
    assert msgspec.structs.asdict(narrow) == {
        "version": 1,
        "id": "0123456789abcdef",
        "owner": TELCO,
        "peer": BANK,
        "others": (),
        "dataset": "calls",
        "dataset_digest": DIGEST,
        "columns": ("a", "b"),
        "label": "",
        "purpose": "credit scores",
        "protocol": "training",
        "scheme": "ckks",
        "maximum_epochs": 10,
        "minimum_rows": 1600,
        "maximum_opened_values": 560,
        "maximum_rho": 0.025,
        "created": NOW,
        "expires": NOW + 30 * DAY_SECONDS,
        "uses": 1,
        "other_keys": {},
    }


@pytest.mark.parametrize(
    ("job", "rule", "asked", "limit"),
    [
        ({"scheme": "none"}, "scheme", "'none'", "'ckks'"),
        ({"purpose": "advertising"}, "purpose", "'advertising'", "'credit scores'"),
        ({"dataset": "visits"}, "dataset", "'visits'", "'calls'"),
        ({"columns": ["a", "c"]}, "columns", "'c'", "'a', 'b'"),
        ({"epochs": 11}, "maximum_epochs", "11 epochs", "10 is the most"),
        ({"test": 0.5}, "minimum_rows", "1000 rows", "1600 is the least"),
        ({"batch_rows": 200}, "maximum_opened_values", "720 values", "560 is the most"),
    ],
)
def test_a_job_that_asks_for_more_is_not_covered(job: dict[str, Any], rule: str, asked: str, limit: str) -> None:
    refusal = match(grant(), request(specification(**job)))
    assert refusal is not None
    assert refusal.rule == rule
    assert f"does not cover the job by its rule {rule}: " in refusal.text
    assert asked in refusal.text
    assert limit in refusal.text


@pytest.mark.parametrize(
    ("changes", "rule", "asked", "limit"),
    [
        ({"owner": "shop"}, "owner", "telco", "shop"),
        ({"created": NOW - DAY_SECONDS, "expires": NOW}, "expires", "2027-01-15T08:00", "2027-01-15T08:00"),
        ({"peer": "shop"}, "peer", "bank", "shop"),
        ({"protocol": "rounds"}, "protocol", "'training'", "'rounds'"),
        ({"dataset_digest": "cd" * 32}, "dataset_digest", "abababababab", "cdcdcdcdcdcd"),
        ({"maximum_rho": 0.02}, "maximum_rho", "0.025", "0.02"),
    ],
)
def test_a_narrower_grant_does_not_cover_the_job(changes: dict[str, Any], rule: str, asked: str, limit: str) -> None:
    refusal = match(grant(**changes), request())
    assert refusal is not None
    assert refusal.rule == rule
    assert asked in refusal.text
    assert limit in refusal.text


def test_a_grant_is_good_for_one_job_unless_it_says_otherwise() -> None:
    spent = match(grant(), request(), used=1)
    assert spent is not None
    assert (spent.rule, "1 jobs have used it, and 1 is the most" in spent.text) == ("uses", True)
    assert match(grant(uses=3), request(), used=2) is None
    assert match(grant(uses="standing"), request(), used=1000) is None


def test_without_a_purpose_a_grant_is_for_every_purpose() -> None:
    assert match(grant(purpose=""), request(specification(purpose="advertising"))) is None


def test_every_party_of_the_job_must_be_named() -> None:
    asked = round_request("c0", clients=4)
    full = grant_for(asked, "rows")
    assert (full.peer, full.others, match(full, asked)) == ("hub", ("c1", "c2", "c3"), None)
    refusal = match(msgspec.structs.replace(full, others=("c1", "c2")), asked)
    assert refusal is not None
    assert refusal.rule == "others"
    assert "c3 would take part" in refusal.text


def test_a_label_must_be_granted_by_name() -> None:
    asked = round_request("c0")
    full = grant_for(asked, "rows")
    assert full.label == "label"
    refusal = match(msgspec.structs.replace(full, label=""), asked)
    assert refusal is not None
    assert refusal.rule == "label"
    assert "the job takes the label 'label', and no label may be used" in refusal.text


def test_no_grant_covers_rows_that_are_handed_out() -> None:
    asked = request()
    handed_out = tuple(msgspec.structs.replace(use, handed_out=True) for use in asked.data)
    refusal = match(grant(), replace(asked, data=handed_out))
    assert refusal is not None
    assert refusal.rule == "handed_out"


def test_each_data_set_of_a_job_needs_a_grant_and_without_one_the_operator_decides() -> None:
    asked = request()
    assert coverage([(grant(), 0)], asked) == ((grant(),), "")
    assert coverage([(grant(), 1), (grant(uses=2), 1)], asked) == ((grant(uses=2),), "")
    second = msgspec.structs.replace(asked.data[0], dataset="visits")
    for held, wanted, missing in (
        ([], asked, "no grant lets bank use the data set 'calls'"),
        ([(grant(peer="shop"), 0)], asked, "no grant lets bank use the data set 'calls'"),
        ([(grant(), 0)], replace(asked, data=(*asked.data, second)), "no grant lets bank use the data set 'visits'"),
        ([(grant(), 0)], replace(asked, data=()), "the job takes no data of telco, so no grant can cover it"),
    ):
        assert coverage(held, wanted) == ((), missing)


def test_why_the_newest_grant_for_the_peer_does_not_cover_a_job_is_told() -> None:
    held = [(grant(maximum_epochs=1), 0), (grant(maximum_epochs=3), 0), (grant(peer="shop", maximum_epochs=5), 0)]
    assert "the job takes 10 epochs, and 3 is the most" in coverage(held, request()).missing


def test_a_signed_grant_is_read_as_it_was_made() -> None:
    signed = grant().sign(OWNER)
    assert signed.verified(OWNER.key) == grant()
    assert grant_for(request(), "calls").id != grant_for(request(), "calls").id


@pytest.mark.parametrize("bit", range(0, 8 * 300, 97))
def test_one_changed_bit_of_a_grant_is_refused(bit: int) -> None:
    signed = grant().sign(OWNER)
    changed = bytearray(signed.encoded)
    changed[bit // 8 % len(changed)] ^= 1 << bit % 8
    with pytest.raises(GrantInvalid, match="is not signed by its owner"):
        SignedGrant(bytes(changed), signed.signature).verified(OWNER.key)


def test_a_signature_by_another_key_or_for_another_purpose_is_none() -> None:
    encoded = grant().encoded()
    others = (identity_of(BANK).sign(Domain.GRANT, encoded), OWNER.sign(Domain.ENVELOPE, encoded), bytes(64), b"")
    for signature in others:
        with pytest.raises(GrantInvalid, match="is not signed by its owner"):
            SignedGrant(encoded, signature).verified(OWNER.key)


@pytest.mark.parametrize("encoded", [b"", b"\xc1", msgspec.msgpack.encode({"version": 1})])
def test_signed_bytes_that_are_no_grant_are_refused(encoded: bytes) -> None:
    with pytest.raises(GrantInvalid, match="cannot be read"):
        SignedGrant(encoded, OWNER.sign(Domain.GRANT, encoded)).verified(OWNER.key)


def test_signed_bytes_in_another_order_are_refused() -> None:
    fields = msgspec.msgpack.decode(grant().encoded())
    encoded = msgspec.msgpack.encode(dict(reversed(fields.items())))
    with pytest.raises(GrantInvalid, match="not in canonical form"):
        SignedGrant(encoded, OWNER.sign(Domain.GRANT, encoded)).verified(OWNER.key)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"id": "a grant"}, "has no id"),
        ({"dataset_digest": ""}, "does not name the bytes"),
        ({"dataset": ""}, "names no data set"),
        ({"columns": ()}, "neither columns nor a label"),
        ({"columns": ("a", "a")}, "a column twice"),
        ({"label": "a"}, "its label is among its columns"),
        ({"peer": TELCO}, "or its owner as a peer"),
        ({"others": (BANK,)}, "names a party twice"),
        ({"peer": "Bank of X"}, "is not a party name"),
        ({"uses": 0}, "good for one job at least"),
        ({"maximum_epochs": -1}, "a limit is negative"),
        ({"maximum_rho": float("nan")}, "must be a finite number"),
        ({"expires": NOW}, "good for 0 days"),
        ({"expires": NOW + 367 * DAY_SECONDS}, "good for 367 days; 0 to 366"),
        ({"purpose": "p" * 2001}, "more than 2000 letters"),
    ],
)
def test_a_grant_that_contradicts_itself_cannot_be_made(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(GrantInvalid, match=text):
        grant(**changes)
