"""Rounds of which the aggregator reads sums only: updates, counts of rows, evaluations (rounds.md)."""

from dataclasses import replace

import msgspec
import numpy as np
import pytest
import torch
from rounds_federation import AGGREGATOR, roles, run, setups, spec
from safetensors.torch import load
from sum_federation import Change, changing

from vfl.errors import NotAvailable, RemoteProtocolError, SpecConflict, SpecError, TooFewReplies
from vfl.flow import Delivery, Flow, Send, Together, run_together
from vfl.horizontal.client import Participation
from vfl.horizontal.evaluation import measured
from vfl.horizontal.hooks import Examples, SharedModule
from vfl.horizontal.network import network_of
from vfl.horizontal.secure_statistics import TESTED, evaluation_of, evaluation_words
from vfl.kinds import allowed
from vfl.message import Message
from vfl.messages import EvaluationTask, MaskedReply, RoundReply, SealedShares, SumTask, UnmaskShares
from vfl.reports import Outcome, RoundDone
from vfl.setup import Table
from vfl.spec.rounds import RoundsSpec
from vfl.spec.rounds_settings import RoundsData

SECURE = "secure_sum = true"


def secure(
    *, clients: int = 4, rounds: int = 2, norm: str = "none", parts: tuple[str, ...] = (), extra: str = ""
) -> RoundsSpec:
    return spec(clients=clients, rounds=rounds, norm=norm, parts=parts, extra=f"{SECURE}\n{extra}")


def measures(together: Together[Outcome], name: str) -> list[float]:
    return [fact.measures[name] for fact in together.reports[AGGREGATOR] if isinstance(fact, RoundDone)]


def apart(one: bytes, other: bytes) -> float:
    """Relative distance of two models."""
    a, b = load(one), load(other)
    names = [name for name, values in a.items() if values.is_floating_point()]
    difference = sum(float(((a[name] - b[name]) ** 2).sum()) for name in names)
    return float((difference / sum(float((b[name] ** 2).sum()) for name in names)) ** 0.5)


@pytest.mark.parametrize("norm", ["none", "batch"])
def test_the_model_is_that_of_plain_averaging_up_to_the_grid(norm):
    summed, plain = run(secure(norm=norm)), run(spec(clients=4, rounds=2, norm=norm))
    assert apart(summed.results[AGGREGATOR].state, plain.results[AGGREGATOR].state) < 2e-4
    assert measures(summed, "rows") == measures(plain, "rows")


def spoilt(content: bytes) -> bytes:
    return bytes(byte ^ 1 for byte in content)


def announces_other_shares(message: Message) -> Message:
    """As a dealer: true to those who look, forgeries to those who do not."""
    if isinstance(message, SealedShares):
        return msgspec.structs.replace(message, digests=spoilt(message.digests))
    return message


def forges_a_share(message: Message) -> Message:
    """As a holder, once its own words are in the first round's sum."""
    if isinstance(message, UnmaskShares) and message.sum == 2:
        (owner, share), *others = message.self_masks
        return msgspec.structs.replace(message, self_masks=((owner, spoilt(share)), *others))
    return message


@pytest.mark.parametrize(("attack", "sums"), [(announces_other_shares, [1]), (forges_a_share, [1, 2])])
def test_who_spoils_a_sum_is_in_no_further_one_of_the_job_and_the_rest_goes_on(attack: Change, sums: list[int]) -> None:
    job = secure(clients=5)
    flows = roles(setups(job))
    together = run_together(flows | {"c1": changing(flows["c1"], attack)})
    asked = {name: [m.sum for m in received(together, name) if isinstance(m, SumTask)] for name in job.roster.clients}
    assert asked.pop("c1") == sums
    assert all(each[-1] > sums[-1] for each in asked.values())
    assert measures(together, "replies")[-1] == 4.0


def received(together: Together[Outcome], name: str) -> list[Message]:
    return [line.message for line in together.transcript if line.receiver == name and line.message is not None]


def test_no_message_holds_a_clients_parameters_and_all_go_by_the_routes_of_the_job():
    job = secure()
    together = run(job)
    assert not [line for line in together.transcript if isinstance(line.message, RoundReply)]
    assert all(allowed(job, line.sender, line.receiver, line.kind) for line in together.transcript)
    assert not allowed(job, "c0", AGGREGATOR, "RoundReply")
    assert not allowed(spec(clients=4), "c0", AGGREGATOR, "MaskedReply")
    words = [m.words for line in together.transcript if isinstance(m := line.message, MaskedReply)]
    assert len(set(words)) == len(words)


def test_reported_bytes_are_those_of_all_sums_too():
    together = run(secure())
    sent = [line for line in together.transcript if line.sender == AGGREGATOR and line.kind != "Published"]
    received = [line for line in together.transcript if line.receiver == AGGREGATOR and line.kind != "ClientReady"]
    assert sum(measures(together, "bytes_sent")) == sum(line.payload_bytes for line in sent)
    assert sum(measures(together, "bytes_received")) == sum(line.payload_bytes for line in received)


def silent_after(role: Flow[Outcome], replies: int) -> Flow[Outcome]:
    """A client whose masked words stop coming."""
    answer: Delivery | None = None
    try:
        while True:
            effect = role.send(answer)
            if isinstance(effect, Send) and isinstance(effect.message, MaskedReply):
                replies -= 1
                if replies < 0:
                    answer = Delivery(None)
                    continue
            answer = yield effect
    except StopIteration as stop:
        outcome: Outcome = stop.value
        return outcome


def test_a_client_that_drops_out_of_a_sum_is_left_out_of_its_round():
    job = secure(clients=5, rounds=3, extra="quorum = 0.6")
    flows = roles(setups(job))
    flows["c1"] = silent_after(flows["c1"], 2)  # its rows, its first update
    assert measures(run_together(flows), "replies") == [5, 4, 4]


def test_with_too_few_for_the_threshold_nothing_is_learned_and_the_job_says_so():
    job = secure(clients=4, rounds=1)
    flows = roles(setups(job))
    for name in ("c1", "c2"):
        flows[name] = silent_after(flows[name], 1)
    with pytest.raises(TooFewReplies, match="0 usable replies"):
        run_together(flows)


def test_a_run_continued_from_a_saved_state_equals_the_uninterrupted_one():
    job = secure(rounds=3)
    whole = run(job)
    states = [fact.state for fact in whole.reports[AGGREGATOR] if isinstance(fact, RoundDone)]
    assert run(job, saved=states[0]).results[AGGREGATOR].state == whole.results[AGGREGATOR].state


def test_compression_composes_with_sums_on_its_grid():
    job = secure(
        clients=4,
        rounds=2,
        parts=("compressed_sync",),
        extra="[rounds.compressed_sync]\nstored_bits = 8\nreply_bits = 8",
    )
    together, plain = run(job), run(spec(clients=4, rounds=2))
    assert apart(together.results[AGGREGATOR].state, plain.results[AGGREGATOR].state) < 0.05
    words = [m.words for line in together.transcript if isinstance(m := line.message, MaskedReply)]
    values = 64 * 32 + 32 + 32 * 16 + 16 + 16 * 10 + 10
    assert max(map(len, words)) == 2 * (values + 4 + 3 + 4)  # words of 16 bits: 8 and room for four clients


def test_shared_rows_adjust_a_mean_that_is_known_as_a_sum_only():
    job = spec(
        clients=4,
        rounds=2,
        tables=("test", "shared"),
        parts=["shared_data"],
        extra=f'{SECURE}\n[rounds.shared_data]\nrule = "hybrid"\nepochs = 1',
    )
    together = run(job)
    assert apart(together.results[AGGREGATOR].state, run(secure()).results[AGGREGATOR].state) > 1e-4


# Without test rows at the aggregator


def without_test_rows() -> RoundsSpec:
    job = spec(clients=4, rounds=2)
    data = {
        name: msgspec.structs.replace(brought, test="held-out")
        for name, brought in job.data.items()
        if name != AGGREGATOR
    }
    return msgspec.structs.replace(job, data=data)


def test_without_test_rows_the_clients_rows_are_measured_and_only_sums_are_read():
    job = without_test_rows()
    given, whole = setups(job), setups(spec(clients=4, rounds=2))
    test = whole[AGGREGATOR].tables["test"]
    assert test.labels is not None
    for at, name in enumerate(job.roster.clients):
        part = slice(50 * at, 50 * at + 50)
        tables = dict(given[name].tables) | {"test": Table(bytes(32), test.columns[part], test.labels[part])}
        given[name] = replace(given[name], tables=tables)
    given[AGGREGATOR] = replace(given[AGGREGATOR], tables={})
    together, central = run_together(roles(given)), run(spec(clients=4, rounds=2))
    assert measures(together, "accuracy") == pytest.approx(measures(central, "accuracy"))
    assert measures(together, "loss") == pytest.approx(measures(central, "loss"), rel=1e-3)
    assert [line for line in together.transcript if isinstance(line.message, EvaluationTask)]
    assert torch.equal(*(load(t.results[AGGREGATOR].state)["head.weight"] for t in (together, central)))


def test_test_rows_are_the_aggregators_or_every_clients():
    job = spec(clients=4)
    some = {name: RoundsData(dataset="rows", test="t" if name == "c0" else "") for name in job.roster.clients}
    with pytest.raises(SpecError, match="no test rows"):
        msgspec.structs.replace(job, data=some)


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"parts": ["compressed_sync"], "extra": f'{SECURE}\n[rounds.compressed_sync]\ncodec = "rotation"'}, "X2"),
        ({"parts": ["compressed_sync"], "extra": f'{SECURE}\n[rounds.compressed_sync]\nstorage = "layers"'}, "X2"),
        ({"extra": f"{SECURE}\nreply_norm_limit = 1.0"}, "norm"),
        ({"clients": 2, "extra": SECURE}, "X14"),
    ],
)
def test_what_secure_sums_hide_cannot_be_asked_for(change, name):
    with pytest.raises(SpecConflict, match=f"{name}: "):
        spec(**{"clients": 4, **change})


def test_noise_for_differential_privacy_is_not_there_yet():
    with pytest.raises(NotAvailable):
        spec(clients=4, extra="privacy = {epsilon = 1.0}")


@pytest.mark.parametrize("task", ["regression", "multiclass"])
def test_evaluations_add_up_whatever_the_size_of_labels_and_losses(task):
    job = msgspec.structs.replace(
        without_test_rows(),
        job=msgspec.structs.replace(spec().job, task=task, classes=10 if task != "regression" else 0),
    )
    module = network_of(job, bytes(32))
    rows = Examples(torch.rand(50, 64), torch.full((50,), 7) if task == "multiclass" else 3e5 + 1e4 * torch.rand(50))
    total = sum((evaluation_words(job, module, rows) for _ in range(40)), start=np.zeros(16, np.uint64))
    found, expected = evaluation_of(job, total), measured(job, SharedModule(module), rows)
    assert found == pytest.approx(expected | {TESTED: 40 * 50}, rel=1e-3)


def test_a_model_that_gives_no_number_is_not_measured_and_sums_nobody_honest_could_give_are_not_believed():
    job = without_test_rows()
    module = network_of(job, bytes(32))
    rows = Examples(torch.rand(5, 64), torch.zeros(5, dtype=torch.int64))
    honest = evaluation_words(job, module, rows)
    with torch.no_grad():
        dict(module.named_parameters())["head.weight"].fill_(float("nan"))
    assert evaluation_of(job, evaluation_words(job, module, rows)) == {}
    lying = honest.copy()
    lying[4] += np.uint64(1 << 30)
    assert evaluation_of(job, lying) == {}
    lying = honest.copy()
    lying[2] += np.uint64(1)  # the third digit of the number of rows
    assert evaluation_of(job, lying) == {}


@pytest.mark.parametrize(
    "asked", [SumTask(1, 1, "rows"), SumTask(1, 0, "class counts of all"), SumTask(1, 1, "updates")]
)
def test_a_client_answers_only_what_its_job_asks(asked):
    side = Participation(setups(secure())["c0"])
    with pytest.raises(RemoteProtocolError, match="where it is not due"):
        side.answer(asked)


def test_a_sum_before_round_one_is_tried_again():
    job = secure(clients=4, extra="quorum = 0.6")

    def silent_once(role: Flow[Outcome]) -> Flow[Outcome]:
        answer, skipped = None, False
        try:
            while True:
                effect = role.send(answer)
                if isinstance(effect, Send) and isinstance(effect.message, MaskedReply) and not skipped:
                    skipped, answer = True, Delivery(None)
                    continue
                answer = yield effect
        except StopIteration as stop:
            outcome: Outcome = stop.value
            return outcome

    flows = roles(setups(job))
    for name in ("c1", "c2"):
        flows[name] = silent_once(flows[name])
    assert measures(run_together(flows), "replies") == [4, 4]
