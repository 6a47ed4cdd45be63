"""One encrypted step of a network on as many rows as the command line says; prints the process's peak memory in KiB."""

import resource
import sys

import numpy as np

from vfl.flow import Delivery, Flow, Receive, Send
from vfl.kinds import flow_of, read_spec_as
from vfl.message import Message
from vfl.planning.training import resolve
from vfl.reports import Outcome
from vfl.setup import Setup, Table
from vfl.spec.training import TrainingSpec

HELD_OUT = 64

batch = int(sys.argv[1])
rows = batch + HELD_OUT
spec = resolve(
    read_spec_as(
        TrainingSpec,
        f"""
    job = {{ name = "one step", task = "binary" }}
    roster = {{ label = "l", features = ["f"] }}
    split = {{ test = {HELD_OUT / rows} }}
    model = {{ top = {{ kind = "mlp", hidden = [4] }} }}
    train = {{ epochs = 1, batch_rows = {batch} }}
    [data]
    l = {{ dataset = "l", label = "y" }}
    f = {{ dataset = "f", columns = ["a", "b", "c", "d", "e", "f", "g", "h"] }}
    """,
    )
)
columns = np.random.Generator(np.random.Philox(0)).standard_normal((rows, 8))
labels = (columns[:, 0] > 0).astype(np.float64)
tables = {"l": Table(b"", np.zeros((rows, 0)), labels), "f": Table(b"", columns)}
flows: dict[str, Flow[Outcome]] = {
    party: flow_of(Setup(spec, party, {"rows": table}, b"joint", party.encode())) for party, table in tables.items()
}
queues: dict[str, list[Message]] = {party: [] for party in flows}
waiting: set[str] = set()


def advance(party: str) -> None:
    """One effect of one role; a message is dropped as soon as it is read, as between processes."""
    if party in waiting and not queues[party]:
        return
    answer = Delivery(queues[party].pop(0)) if party in waiting else None
    waiting.discard(party)
    match flows[party].send(answer):
        case Send(to, message):
            queues[to].append(message)
        case Receive():
            waiting.add(party)


while flows:
    for role in list(flows):
        # The sender of blocks waits until they are read, as the bounded mailbox between two servers makes it wait.
        if role == "f" and queues["l"]:
            continue
        try:
            advance(role)
        except StopIteration:
            del flows[role]
sys.stdout.write(f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}\n")
