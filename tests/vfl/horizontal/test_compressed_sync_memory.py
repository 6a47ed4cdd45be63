"""Nothing keeps a model at full precision that need not: clients between rounds and steps, the aggregator ever."""

from collections.abc import Generator

import numpy as np
import pytest
import torch
from census import census
from rounds_federation import AGGREGATOR, roles, run, setups, spec

from vfl.flow import Delivery, Flow, Receive, Send, run_together
from vfl.horizontal.compressed_sync.client import train_in_layers
from vfl.horizontal.compressed_sync.formats import stored_format
from vfl.horizontal.hooks import Work
from vfl.horizontal.network import network_of
from vfl.horizontal.rows import examples_of
from vfl.horizontal.update_encoding import like
from vfl.message import Message
from vfl.messages import RoundTask
from vfl.protocols.rounds import client
from vfl.reports import Outcome
from vfl.spec.rounds import RoundsSpec

ROWS = 60
HIDDEN = (48, 40)
INPUTS = 4 * ROWS * 64
"""Bytes of a client's rows as the network reads them."""
FIRST, SECOND = 4 * 48 * 64, 4 * 40 * 48
"""Bytes of what is compressed in such a network, at full precision."""


def job(terms: str = "", clients: int = 3, rounds: int = 3) -> RoundsSpec:
    return spec(clients, rounds, parts=["compressed_sync"], extra=f"[rounds.compressed_sync]\n{terms}", hidden=HIDDEN)


def messages_to(party: str, sent_in: RoundsSpec) -> list[Message]:
    """What a party was sent in a run of which nothing else is left."""
    transcript = run(sent_in, rows_each=ROWS).transcript
    return [sent.message for sent in transcript if sent.receiver == party and sent.message is not None]


def up_to_the_next_message(flow: Flow[Outcome], message: Message | None) -> None:
    """Hand a role its next message and let it go on until it waits again."""
    effect = flow.send(Delivery(message) if message is not None else None)
    while not isinstance(effect, Receive):
        effect = flow.send(Delivery(None, 1) if isinstance(effect, Send) else None)


@pytest.mark.parametrize("terms", ["", 'storage = "layers"\nreply = "parameters"'])
def test_between_rounds_a_client_keeps_nothing_of_the_model_but_codes(terms):
    training = job(terms)
    tasks = [message for message in messages_to("c0", training) if isinstance(message, RoundTask)]
    assert len(tasks) == 3
    setup = setups(training, rows_each=ROWS)["c0"]
    with census() as alive:
        flow = client(setup)
        up_to_the_next_message(flow, None)
        for task in tasks:
            up_to_the_next_message(flow, task)
            assert alive() == [INPUTS]


def test_the_census_finds_what_a_suspended_role_holds():
    def role() -> Generator[int, None, None]:
        held = {"array": np.zeros((48, 64), np.float32), "module": torch.nn.Linear(48, 40)}
        yield len(held)

    with census() as alive:
        suspended = role()
        next(suspended)
        assert alive() == [SECOND, FIRST]
        suspended.close()
        assert alive() == []


def test_between_steps_no_weight_is_decompressed_and_within_one_only_that_of_the_layer_that_runs():
    training = job('storage = "layers"')
    terms = training.compressed_sync
    assert terms is not None
    (task, *_) = (message for message in messages_to("c0", training) if isinstance(message, RoundTask))
    setup = setups(training, rows_each=ROWS)["c0"]
    work = Work(
        spec=training,
        build=lambda: network_of(training, bytes(32)),
        examples=examples_of(training, setup.table, "training"),
        round=1,
        epochs=2,
        rate=0.1,
        seed=bytes(32),
        reply_bits=4,
    )
    within: list[list[int]] = []
    between: list[list[int]] = []
    with census() as alive:
        module = work.build()
        stored = stored_format(terms, like(dict(module.state_dict())))
        layer = module.get_submodule("features.linear")
        layer.register_forward_hook(lambda *_: within.append([size for size in alive() if size in {FIRST, SECOND}]))
        train_in_layers(module, task.parameters, stored, work, terms, {}, on_step=lambda _step: between.append(alive()))
    assert within == [[SECOND]] * 4
    assert between == [[]] * 4


@pytest.mark.parametrize("parts", [[], ["compressed_sync"]])
def test_the_aggregator_holds_as_many_models_for_nine_clients_as_for_three(parts):
    def sizes(clients: int) -> list[int]:
        training = spec(clients, 1, parts=parts, hidden=HIDDEN)
        given = roles(setups(training, rows_each=21))
        counted: list[list[int]] = []

        def watched(flow: Flow[Outcome]) -> Flow[Outcome]:
            """Counts where the aggregator waits for its last reply: all others have been read."""
            answer, waits = None, 0
            while True:
                try:
                    effect = flow.send(answer)
                except StopIteration as stop:
                    outcome: Outcome = stop.value
                    return outcome
                waits += isinstance(effect, Receive)
                if isinstance(effect, Receive) and waits == 2 * clients:
                    counted.append([size for size in alive() if size in {FIRST, SECOND, 2 * FIRST, 2 * SECOND}])
                answer = yield effect

        with census() as alive:
            run_together({**given, AGGREGATOR: watched(given[AGGREGATOR])})
        return counted[0]

    assert sizes(9) == sizes(3) != []
