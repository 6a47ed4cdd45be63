"""A training outlives the crash of any of its processes: real servers and workers, killed in mid training."""

import os
import signal
from collections.abc import Callable
from typing import Any

LABEL, FEATURE = "label-party", "feature-party"
KILLS = ((LABEL, "worker_pid"), (FEATURE, "worker_pid"), (LABEL, ""), (FEATURE, ""))
"""At which party, and its worker or its server."""

Json = dict[str, Any]
Pair = dict[str, Any]


def kill(pair: Pair, job: str, side: str, what: str) -> None:
    """While it trains; a server is started again at once. Returns when its next attempt trains."""
    running = pair[side].wait(job, lambda found: found["step"] > 5 and found["worker_pid"] is not None)
    if what:
        os.kill(running[what], signal.SIGKILL)
    else:
        pair[side].stop(signal.SIGKILL)
        pair[side].start()
    before = running["attempt"]
    for party in pair.values():
        party.wait(job, lambda found: found["attempt"] > before and found["worker_pid"] is not None)


def ended(pair: Pair, job: str) -> dict[str, Json]:
    return {party: pair[party].over(job) for party in (LABEL, FEATURE)}


def test_a_clear_training_whose_processes_are_killed_ends_with_the_model_of_one_that_was_not(
    pair: Pair, job_spec: Callable[..., str]
) -> None:
    text = job_spec(epochs="20\ncheckpoint_steps = 5")
    whole = ended(pair, pair[LABEL].submit(text)["id"])
    assert {found["state"] for found in whole.values()} == {"done"}, [found["error"] for found in whole.values()]
    job = pair[LABEL].submit(text)["id"]
    for side, what in KILLS:
        kill(pair, job, side, what)
    killed = ended(pair, job)
    for party in (LABEL, FEATURE):
        assert killed[party]["state"] == "done", killed[party]["error"]
        assert killed[party]["model_digest"] == whole[party]["model_digest"]
        assert killed[party]["metrics"] == whole[party]["metrics"]


def test_an_encrypted_training_goes_on_under_new_keys_and_counts_what_it_opens_again(
    pair: Pair, job_spec: Callable[..., str]
) -> None:
    text = job_spec(epochs="8\ncheckpoint_steps = 2", batch_rows="152", scheme='"ckks"')
    job = pair[LABEL].submit(text)["id"]
    kill(pair, job, FEATURE, "worker_pid")
    kill(pair, job, LABEL, "")
    for party, found in ended(pair, job).items():
        assert found["state"] == "done", (party, found["error"])
        assert found["step"] == found["steps"] == 24
    sent = {line["kind"]: line["messages"] for line in pair[FEATURE].job(job)["traffic"] if line["direction"] == "sent"}
    assert 24 <= sent["OpenedGradient"] <= 24 + 2 * (2 + 1)
    assert sent["PublicKeys"] >= 3
    assert pair[LABEL].job(job)["metrics"]["auc"] > 0.9
    for party in pair.values():
        assert not (party.folder / "checkpoints" / job).exists()
