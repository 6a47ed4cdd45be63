"""A secure sum beside the plain sum of the same words: bytes and seconds per parameter, exact with drop-outs.

    python benchmarks/secure_sum.py [--clients 100] [--parameters 1000000] [--bits 8] [--format json]

Every client has random codes of the grid codec, all in one process. `lost` clients go after they have dealt their
shares and before their masked words, which is the dearest moment for the aggregator. Seconds are processor seconds of a
role, without (de)serialising its messages; a client's are the mean of those that stayed. `bytes`: of encoded messages,
up and down, of one client that stayed. The plain sum sends the same words, packed to W bits and unmasked, and adds
them. Each sum is compared with the sum of the codes.
"""

import argparse
import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crypto.masking import machine_word, pack, unpack
from vfl.codecs.grid import word_bits
from vfl.flow import Flow, Send, receive, run_together
from vfl.messages import SumTask
from vfl.protocols.secure_sum import contribute, sum_of
from vfl.secure_sum.terms import SumTerms, majority

AGGREGATOR = "aggregator"
SENT_BEFORE_LOSS = 2
"""PairKey and SealedShares."""

Row = dict[str, float | int | bool]


def clocked(flow: Flow[Any], seconds: Counter[str], role: str, after: int | None = None) -> Flow[Any]:
    """The same role, its own seconds added up; gone after so many messages."""
    answer, sent = None, 0
    while True:
        start = time.process_time()
        try:
            effect = flow.send(answer)
        except StopIteration as stop:
            return stop.value
        finally:
            seconds[role] += time.process_time() - start  # type: ignore[assignment]
        if isinstance(effect, Send):
            if sent == after:
                return None
            sent += 1
        answer = yield effect


def member(terms: SumTerms, me: str, words: NDArray[np.unsignedinteger]) -> Flow[Any]:
    task = yield from receive(SumTask, AGGREGATOR)
    return (yield from contribute(terms, task, words, me, AGGREGATOR))


def secure(terms: SumTerms, codes: Callable[[int], NDArray[np.unsignedinteger]], lost: int) -> Row:
    seconds: Counter[str] = Counter()
    roles = {AGGREGATOR: clocked(sum_of(terms, 1, terms.roster, 1.0), seconds, AGGREGATOR)}
    for number, me in enumerate(terms.roster):
        role = member(terms, me, codes(number))
        roles[me] = clocked(role, seconds, me, SENT_BEFORE_LOSS if number < lost else None)
    done = run_together(roles, keep_messages=False)
    stayed = terms.roster[lost:]
    expected = sum(codes(number).astype(np.uint64) for number in range(lost, len(terms.roster)))
    last = stayed[-1]
    up = sum(sent.payload_bytes for sent in done.transcript if sent.sender == last)
    down = sum(sent.payload_bytes for sent in done.transcript if sent.receiver == last)
    return {
        "lost": lost,
        "exact": bool(np.array_equal(done.results[AGGREGATOR].words, expected)),
        "client_bytes_up": up,
        "client_bytes_down": down,
        "client_seconds": sum(seconds[me] for me in stayed) / len(stayed),
        "aggregator_seconds": seconds[AGGREGATOR],
        "overhead_bytes_per_parameter": (up + down - terms.body_bytes) / terms.words,
    }


def plain(terms: SumTerms, codes: Callable[[int], NDArray[np.unsignedinteger]]) -> Row:
    client = aggregator = 0.0
    total = np.zeros(terms.words, machine_word(terms.word_bits))
    for number in range(len(terms.roster)):
        words = codes(number)
        start = time.process_time()
        body = pack(words, terms.word_bits)
        sent = time.process_time()
        total += unpack(body, terms.word_bits)
        aggregator += time.process_time() - sent
        client += sent - start
    return {
        "client_bytes_up": terms.body_bytes,
        "client_seconds": client / len(terms.roster),
        "aggregator_seconds": aggregator,
    }


def measure(clients: int, parameters: int, bits: int) -> Iterator[tuple[str, Row]]:
    width = word_bits(bits, clients)
    terms = SumTerms(
        job=hashlib.sha256(b"benchmark").digest(),
        round=1,
        purpose="updates",
        roster=tuple(f"client-{number}" for number in range(clients)),
        words=parameters,
        word_bits=width,
        threshold=majority(clients),
    )

    def codes(number: int) -> NDArray[np.unsignedinteger]:
        generator = np.random.Generator(np.random.Philox(number))
        return generator.integers(0, 2**bits, parameters, machine_word(width).type)

    yield "plain", {"word_bits": width, **plain(terms, codes)}
    for lost in (0, 1, clients - terms.threshold):
        yield f"secure, {lost} lost", secure(terms, codes, lost)


def main() -> None:
    parser = argparse.ArgumentParser(description="A secure sum beside the plain sum of the same words.")
    parser.add_argument("--clients", type=int, default=100)
    parser.add_argument("--parameters", type=int, default=1_000_000)
    parser.add_argument("--bits", type=int, default=8)
    parser.add_argument("--format", choices=["text", "json"], default="text")
    arguments = parser.parse_args()
    rows = dict(measure(arguments.clients, arguments.parameters, arguments.bits))
    if arguments.format == "json":
        print(json.dumps(rows))
        return
    for name, row in rows.items():
        print(name, *(f"{key} {value:.6g}" for key, value in row.items()), sep="\n    ")
    if not all(row.get("exact", True) for row in rows.values()):
        raise SystemExit("a secure sum differs from the plain sum")


if __name__ == "__main__":
    main()
