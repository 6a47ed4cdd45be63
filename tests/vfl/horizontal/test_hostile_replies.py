"""A reply that must not enter is refused by name, whatever is wrong with it, and the round goes on with the rest."""

from collections.abc import Callable
from typing import NamedTuple

import msgspec
import numpy as np
import pytest
import torch
from rounds_federation import AGGREGATOR, roles, setups, spec
from safetensors.torch import load

from vfl.codecs.parameters import Format
from vfl.flow import Flow, Send, Together, run_together
from vfl.horizontal.network import network_of
from vfl.horizontal.update_encoding import RAW, like, read, write
from vfl.message import Message
from vfl.messages import Published, RoundReply
from vfl.models.networks import parameters_of
from vfl.reports import Outcome, Refused
from vfl.spec.rounds import RoundsSpec

CULPRIT = "c1"
HIDDEN = (48, 32)
LIMIT = 2.0
COMPRESSED = Format("rotation", 4, unbiased=True)

Forge = Callable[[RoundReply, RoundsSpec], Message]


def job(parts: tuple[str, ...], norm: str = "none", rounds: int = 2, limit: float = LIMIT) -> RoundsSpec:
    extra = f"quorum = 0.6\nreply_norm_limit = {limit}"
    return spec(4, rounds, parts=parts, extra=extra, hidden=HIDDEN, norm=norm)


def form_of(training: RoundsSpec) -> Format:
    return COMPRESSED if training.rounds.parts else RAW


def forging(flow: Flow[Outcome], forge: Forge, training: RoundsSpec) -> Flow[Outcome]:
    """A client that trains as it should and replies something else."""
    answer = None
    while True:
        try:
            effect = flow.send(answer)
        except StopIteration as stop:
            outcome: Outcome = stop.value
            return outcome
        if isinstance(effect, Send) and isinstance(effect.message, RoundReply):
            effect = Send(effect.to, forge(effect.message, training))
        answer = yield effect


def run_with(forge: Forge, training: RoundsSpec) -> Together[Outcome]:
    given = roles(setups(training))
    return run_together({**given, CULPRIT: forging(given[CULPRIT], forge, training)})


def replaced(reply: RoundReply, **fields: object) -> RoundReply:
    return msgspec.structs.replace(reply, **fields)


def with_body(change: Callable[[bytes], bytes]) -> Forge:
    return lambda reply, _: replaced(reply, parameters=change(reply.parameters))


def scaled(factor: float) -> Forge:
    """The whole reply, in its own format; a difference grows with what it is the difference of."""

    def forge(reply: RoundReply, training: RoundsSpec) -> RoundReply:
        form, shapes = form_of(training), like(parameters_of(network_of(training, bytes(32))))
        sent = read(reply.parameters, shapes, form)
        return replaced(reply, parameters=write({n: factor * v for n, v in sent.items()}, form, b"forged"))

    return forge


def of_another_network(reply: RoundReply, training: RoundsSpec) -> RoundReply:
    wider = parameters_of(network_of(spec(hidden=(50, 32)), bytes(32)))
    return replaced(reply, parameters=write(wider, form_of(training), b"forged"))


def in_format(form: Format) -> Forge:
    def forge(reply: RoundReply, training: RoundsSpec) -> RoundReply:
        return replaced(reply, parameters=write(parameters_of(network_of(training, bytes(32))), form, b"forged"))

    return forge


def of_another_round(by: int) -> Forge:
    return lambda reply, _: replaced(reply, round=reply.round + by)


NAN, INFINITY = np.array(np.nan, "<f4").tobytes(), np.array(np.inf, "<f4").tobytes()


class Case(NamedTuple):
    forge: Forge
    text: str
    """What the refusal says."""


ALWAYS = {
    "NaN": Case(
        with_body(lambda body: body[:-4] + NAN),
        "tensor head.bias cannot be read: the values of the body are not finite",
    ),
    "infinity": Case(with_body(lambda body: body[:-4] + INFINITY), "not finite"),
    "nothing": Case(with_body(lambda _: b""), "0 bytes, and"),
    "a byte too few": Case(with_body(lambda body: body[:-1]), "bytes, and"),
    "a byte too many": Case(with_body(lambda body: body + b"\0"), "bytes, and"),
    "noise": Case(with_body(lambda body: bytes(len(body))), "not a body of parameters"),
    "wrong shapes": Case(of_another_network, "bytes, and"),
    "no codec there is": Case(with_body(lambda body: body[:4] + b"zip" + body[7:]), "the codec is 'zip"),
    "tenfold weights": Case(scaled(10.0), f"rounds.reply_norm_limit is {LIMIT:g}"),
    "a stale round": Case(of_another_round(-1), "and is dropped"),
    "a round to come": Case(of_another_round(1), "it sent RoundReply"),
    "another message": Case(
        lambda reply, _: Published(reply.round, reply.parameters, bytes(32)),
        "owes a reply to round 1: it sent Published",
    ),
    "fewer than no rows": Case(lambda reply, _: replaced(reply, rows=-5), "-5 rows"),
    "more rows than there are": Case(lambda reply, _: replaced(reply, rows=1 << 40), "rows"),
    "a loss that is no number": Case(lambda reply, _: replaced(reply, loss=float("nan")), "a loss of nan"),
}
PLAIN = {
    **ALWAYS,
    "another codec": Case(in_format(Format("half", 16, unbiased=True)), "bytes, and"),
    "codes": Case(in_format(COMPRESSED), "bytes, and"),
}
CODES = {
    **ALWAYS,
    "another codec": Case(in_format(Format("uniform", 4, unbiased=True)), "'uniform', and 'rotation' was agreed"),
    "no codes": Case(in_format(RAW), "bytes, and"),
    "other bits": Case(in_format(Format("rotation", 3, unbiased=True)), "bytes, and"),
    "the other scale": Case(in_format(Format("rotation", 4, unbiased=False)), "another than was agreed"),
    "a scale that is no number": Case(
        with_body(lambda body: body[:53] + NAN + body[57:]),
        "tensor hidden1.linear.weight cannot be read: the scales of the body are not finite",
    ),
    "a scale beyond all parameters": Case(
        with_body(lambda body: body[:53] + np.array(1e20, "<f4").tobytes() + body[57:]), "rounds.reply_norm_limit is"
    ),
}


def refusals(together: Together[Outcome]) -> list[Refused]:
    return [fact for fact in together.reports[AGGREGATOR] if isinstance(fact, Refused)]


@pytest.fixture(scope="module")
def of_the_rest():
    """By parts: the final model where the culprit's replies are empty, and refused."""
    runs = {parts: run_with(ALWAYS["nothing"].forge, job(parts)) for parts in ((), ("compressed_sync",))}
    return {parts: load(together.results[AGGREGATOR].state) for parts, together in runs.items()}


@pytest.mark.parametrize(
    ("parts", "case"),
    [
        *(pytest.param((), case, id=f"plain, {name}") for name, case in PLAIN.items()),
        *(pytest.param(("compressed_sync",), case, id=f"codes, {name}") for name, case in CODES.items()),
    ],
)
def test_a_bad_reply_is_refused_by_name_and_the_rest_go_on(parts, case, of_the_rest):
    together = run_with(case.forge, job(parts))
    refused = refusals(together)
    assert {one.peer for one in refused} == {CULPRIT}
    assert refused[0].text.startswith(CULPRIT)
    assert case.text in refused[0].text
    outcome = together.results[AGGREGATOR]
    assert outcome.series["replies"] == [3.0, 3.0]
    assert {client for client in together.results if client != AGGREGATOR} == {"c0", "c1", "c2", "c3"}
    final = load(outcome.state)
    assert all(torch.equal(values, of_the_rest[parts][name]) for name, values in final.items())


@pytest.mark.parametrize("parts", [(), ("compressed_sync",)])
def test_an_honest_reply_lies_within_the_limit(parts):
    together = run_with(lambda reply, _: reply, job(parts))
    assert refusals(together) == []
    assert together.results[AGGREGATOR].series["replies"] == [4.0, 4.0]


def test_a_variance_below_zero_is_refused():
    def forge(reply: RoundReply, training: RoundsSpec) -> RoundReply:
        shapes = like(parameters_of(network_of(training, bytes(32))))
        sent = read(reply.parameters, shapes)
        sent["features.norm.running_var"] -= 2.0
        return replaced(reply, parameters=write(sent))

    together = run_with(forge, job((), norm="batch", limit=0.0))
    assert "variance below zero" in refusals(together)[0].text
    assert together.results[AGGREGATOR].series["replies"] == [3.0, 3.0]


def test_a_client_that_floods_is_left_out_of_the_round():
    def flooding(flow: Flow[Outcome]) -> Flow[Outcome]:
        answer = None
        while True:
            try:
                effect = flow.send(answer)
            except StopIteration as stop:
                outcome: Outcome = stop.value
                return outcome
            if isinstance(effect, Send) and isinstance(effect.message, RoundReply):
                for _ in range(70):
                    yield Send(effect.to, replaced(effect.message, round=0))
            answer = yield effect

    training = job((), rounds=1)
    given = roles(setups(training))
    together = run_together({**given, CULPRIT: flooding(given[CULPRIT])})
    assert any("sent 64 messages, and none is a reply" in one.text for one in refusals(together))
    assert together.results[AGGREGATOR].series["replies"] == [3.0]
