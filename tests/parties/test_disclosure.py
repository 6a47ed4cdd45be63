"""A refusal is no question put to a table: each code is decided on, and what depends on rows or files is neutral."""

import importlib
import pkgutil
from collections.abc import Iterator

import pytest

import parties
import vfl
from parties.disclosure import ABOUT_TABLE, IN_FULL, NEUTRAL, redacted_for_peer
from parties.errors import EnvelopeRefused, Failure, PolicyRefused
from vfl.errors import JobError

OUR_ERRORS = {
    "parties.database_errors",
    "parties.dataset_errors",
    "parties.errors",
    "parties.model_errors",
    "parties.pause_errors",
    "parties.trust.errors",
    "vfl.errors",
}
NEVER_TOLD = {
    "no_scores",
    "rotation_refused",
    "already_paused",
    "backup_unreadable",
    "cannot_pause",
    "database_of_another",
    "dataset_known",
    "envelope_refused",  # answered where it came from, and ends no job
    "enrolment_failed",
    "foreign_model",
    "idempotency_key_reused",
    "invalid_dataset",
    "invalid_grant",
    "invalid_settings",
    "invitation_expired",
    "invitation_unreadable",
    "malformed_leaf",
    "malformed_note",
    "model_known",
    "not_paused",
    "not_the_coordinator",
    "not_waiting",
    "note_not_signed",
    "onnx_missing",
    "party_in_use",
    "paused_by_peer",
    "peer_already_known",
    "peer_misnamed",
    "peer_unreachable",
    "port_in_use",
    "query_failed",
    "request_changed",
    "restore_refused",
    "rewritten_log",
    "schema_differs",
    "stale_head",
    "unknown_grant",
    "unknown_job",
    "unknown_leaf",
    "unknown_log",
    "unknown_peer",
    "words_differ",
}
"""Before a job is proposed, between logs and witnesses, or to this party's own operator alone."""


def codes(kind: type[JobError]) -> Iterator[str]:
    for subclass in kind.__subclasses__():
        yield subclass.code
        yield from codes(subclass)


def known() -> set[str]:
    for package in (parties, vfl):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if module.name in OUR_ERRORS:
                importlib.import_module(module.name)
    return {kind.code for kind in _kinds(JobError) if kind.__module__ in OUR_ERRORS}


def _kinds(kind: type[JobError]) -> Iterator[type[JobError]]:
    for subclass in kind.__subclasses__():
        yield subclass
        yield from _kinds(subclass)


def test_every_code_is_decided_on_once() -> None:
    envelopes = {kind.code for kind in _kinds(EnvelopeRefused)} - IN_FULL
    decided = [*ABOUT_TABLE, *NEUTRAL, *IN_FULL, PolicyRefused.code]
    assert len(decided) == len(set(decided))
    assert known() - envelopes - NEVER_TOLD == set(decided)


@pytest.mark.parametrize("code", sorted({*ABOUT_TABLE, *NEUTRAL, PolicyRefused.code, "a_code_of_tomorrow"}))
def test_nothing_of_a_table_is_told(code: str) -> None:
    message = "bank refuses by acceptance.minimum_rows: its table has 1234 rows, in secret.csv column 'salary'"
    reason = redacted_for_peer(Failure(code, message, fix="lower it", side="bank"))
    for word in ("1234", "secret.csv", "salary"):
        assert word not in reason.message + reason.fix
    assert "bank" in reason.message


def test_which_fault_a_table_has_is_not_told() -> None:
    assert {redacted_for_peer(Failure(code, "", side="bank")) for code in ABOUT_TABLE} == {
        Failure(
            "invalid_data",
            "bank's table does not fit the job; its operator sees where",
            fix="Compare what the specification asks of bank with what its operator reads there.",
        )
    }


def test_a_rule_is_named_with_the_way_to_change_it() -> None:
    message = "bank refuses by acceptance.peers: 'shop' is not in it"
    failure = Failure("policy_refused", message, fix="add it", side="bank")
    assert redacted_for_peer(failure) == Failure("policy_refused", "bank refuses by acceptance.peers", fix="add it")
