"""Audit logs across rotations of identity keys: what was signed before holds, and nobody can claim a key."""

import base64
from dataclasses import replace
from pathlib import Path

import pytest
from audited_parties import AuditedParty, acquainted, after_a_job, exchange
from bundle_edits import problems_of, texts

from parties.trust import verifier
from parties.trust.bundle import write_bundle
from parties.trust.identity import Identity
from parties.trust.leaves import Event
from parties.trust.rotation import SignedRotation


def rotated() -> tuple[AuditedParty, AuditedParty]:
    """After a job, a rotation of each of which the other has heard, and another job."""
    bank, clinic = after_a_job()
    bank.rotate([clinic])
    clinic.rotate([bank])
    exchange(bank, clinic, "Proposal", job="job-2", attempt=0)
    exchange(clinic, bank, "Acceptance", job="job-2", attempt=0)
    bank.ask_to_cosign(clinic)
    clinic.ask_to_cosign(bank)
    return bank, clinic


def test_logs_verify_across_rotations_and_what_was_signed_before_holds(tmp_path: Path) -> None:
    bank, clinic = rotated()
    assert not texts(tmp_path, bank.export(), clinic.export())
    bank.rotate([clinic])
    assert not texts(tmp_path, bank.export(), clinic.export())
    forgotten = replace(bank.keys, earlier=bank.keys.earlier[:1])
    assert "bank has not signed" in texts(tmp_path, bank.export(me=forgotten))


def test_a_peer_that_has_not_heard_of_the_new_key_yet_was_not_deceived(tmp_path: Path) -> None:
    bank, clinic = after_a_job()
    old = bank.keys
    bank.rotate([])
    assert not texts(tmp_path, bank.export(), clinic.export(peers=[old]))


def test_a_head_that_a_peer_cosigned_before_its_rotation_still_binds(tmp_path: Path) -> None:
    bank, clinic = after_a_job()
    clinic.rotate([bank])
    again = bank.with_leaves(bank.leaves[1:])
    assert "does not extend the head" in texts(tmp_path, again.export(), clinic.export())
    without = replace(clinic.keys, earlier_cosigning=())
    assert "is not signed by both" in texts(tmp_path, clinic.export(me=without))


def test_an_earlier_key_counts_only_if_it_has_signed_that_the_present_one_follows(tmp_path: Path) -> None:
    bank, _ = acquainted("bank", "clinic")
    claimed = replace(bank.keys, earlier=(AuditedParty("mallory").keys.identity,))
    assert "which the present one does not follow" in texts(tmp_path, bank.export(me=claimed))


@pytest.mark.parametrize("changed", ["party", "old", "new", "cosigning", "made_at", "by_old", "by_new"])
def test_a_statement_of_a_new_key_that_was_not_signed_by_both_is_found(tmp_path: Path, changed: str) -> None:
    bank, clinic = acquainted("bank", "clinic")
    signed = bank.rotate([])
    detail = signed.detail()
    name = {"new": "key", "by_new": "by_key"}.get(changed, changed)
    if changed == "made_at":
        detail[name] = int(detail[name]) + 1
    elif changed != "party":
        size = 64 if "by" in name else 32
        detail[name] = base64.b64encode(AuditedParty("mallory").identity.sign(b"")[:size]).decode()
    clinic.log(Event.KEY_ROTATED, peer="clinic" if changed == "party" else "bank", detail=detail)
    (problem,) = problems_of(tmp_path / "bundles", clinic.export())
    assert (problem.leaf, "have not both signed" in problem.text) == (len(clinic.leaves) - 1, True)


def test_two_keys_that_follow_one_show_that_somebody_else_has_it(tmp_path: Path) -> None:
    bank, clinic = acquainted("bank", "clinic")
    stolen = Identity("bank", bank.identity)
    bank.rotate([clinic])
    forged = SignedRotation.of(stolen, Identity.generate("bank"), 1)
    clinic.log(Event.KEY_ROTATED, peer="bank", detail=forged.detail())
    assert "let two keys follow one" in texts(tmp_path, clinic.export())


def test_whoever_knows_an_earlier_key_need_not_be_told_the_present_one(tmp_path: Path) -> None:
    known = {"bank": AuditedParty("bank").keys.identity}
    bank, _ = rotated()
    write_bundle(tmp_path / "bank", bank.export())
    assert verifier.check_all([tmp_path / "bank"], known)[1] == []
    assert verifier.check_all([tmp_path / "bank"], {"bank": bank.keys.identity})[1] == []
    (problem,) = verifier.check_all([tmp_path / "bank"], {"bank": AuditedParty("mallory").keys.identity})[1]
    assert "another key of bank" in problem.text
