"""What no party.toml can raise: numbers a clock or a database holds, words a terminal shows, the work of a plan.

A specification comes from an operator's keyboard or from a peer, so it is held to these before anything is computed.
"""

import unicodedata
from collections.abc import Iterator

from parties.channel import CONTROL_LIMIT
from vfl.errors import ImpossibleJob, SpecError
from vfl.job import JobSpec, read_spec

SPEC_BYTES = CONTROL_LIMIT - (1 << 10)
"""A proposal is one control message; the rest of it is the commitment and what the label party fills in."""
WORD_LETTERS, PURPOSE_LETTERS = 200, 2000
STEPS = 1_000_000
NUMBERS = {
    "train.epochs": 100_000,
    "train.batch_rows": 1 << 31,
    "job.classes": 1000,
    "job.deadline_seconds": 366 * 86_400,
    "job.seed": (1 << 63) - 1,
    "encryption.values_per_key": 1 << 31,
    "train.optimiser.rate": 1_000_000,
    "train.optimiser.weight_decay": 1_000_000,
    "protection.cut_noise.scale": 1_000_000,
    "model.top.hidden": 2048,
    "model.bottom.hidden": 2048,
    "model.bottom.out": 2048,
}
"""Of a network's layers the widths: a peer chooses them, and our worker holds the weights."""
LAYERS = 8
INVISIBLE = {"Cc", "Cf", "Cs"}
"""Unicode categories of control and format characters and of half surrogate pairs: they can redraw a terminal."""


def read_limited(text: str) -> JobSpec:
    """An operator's TOML, read and held to the limits. Raises SpecError."""
    try:
        spec = read_spec(text)
    except (RecursionError, ValueError) as error:
        raise SpecError("job specification: it nests too deeply, or holds a number too long to read") from error
    check_limits(spec)
    return spec


def check_limits(spec: JobSpec) -> None:
    """Raises SpecError, naming the key and its limit."""
    for key, number in _numbers(spec):
        if not -NUMBERS[key] <= number <= NUMBERS[key]:
            raise SpecError(f"job specification: {key} is {_short(number)}; {NUMBERS[key]} is the most it can be")
    for key, widths in _networks(spec):
        if len(widths) > LAYERS:
            raise SpecError(f"job specification: {key} has {len(widths)} layers; {LAYERS} is the most")
    for key, word in _words(spec):
        most = PURPOSE_LETTERS if key == "job.purpose" else WORD_LETTERS
        if len(word) > most:
            raise SpecError(f"job specification: {key} holds a text of {len(word)} letters; {most} is the most")
        if any(unicodedata.category(letter) in INVISIBLE for letter in word):
            raise SpecError(f"job specification: {key} holds control characters: {word!a}")
    size = len(spec.encoded())
    if size > SPEC_BYTES:
        raise SpecError(
            f"job specification: it has {size} bytes, more than the {SPEC_BYTES} one proposal carries",
            fix="Bring fewer columns, or shorter names.",
        )


def check_steps(spec: JobSpec, rows: int) -> None:
    """Before a plan is made, which looks at every step. Raises ImpossibleJob."""
    steps = max(1, rows // spec.train.batch_rows) * spec.train.epochs
    if steps > STEPS:
        raise ImpossibleJob(
            f"{rows} rows in batches of {spec.train.batch_rows} over {spec.train.epochs} epochs are {steps} steps; "
            f"{STEPS} is the most",
            fix="Raise train.batch_rows or lower train.epochs.",
        )


def _networks(spec: JobSpec) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield "model.top.hidden", spec.model.top.hidden
    if spec.model.bottom is not None:
        yield "model.bottom.hidden", spec.model.bottom.hidden


def _numbers(spec: JobSpec) -> Iterator[tuple[str, float]]:
    yield "train.epochs", spec.train.epochs
    yield "train.batch_rows", spec.train.batch_rows
    yield "job.classes", spec.job.classes
    yield "job.deadline_seconds", spec.job.deadline_seconds
    yield "encryption.values_per_key", spec.encryption.values_per_key
    yield "train.optimiser.rate", spec.train.optimiser.rate
    yield "train.optimiser.weight_decay", spec.train.optimiser.weight_decay
    if spec.protection is not None:
        yield "protection.cut_noise.scale", spec.protection.cut_noise.scale
    if spec.model.bottom is not None:
        yield "model.bottom.out", spec.model.bottom.out
    for key, widths in _networks(spec):
        for width in widths:
            yield key, width
    if isinstance(spec.job.seed, int):
        yield "job.seed", spec.job.seed


def _words(spec: JobSpec) -> Iterator[tuple[str, str]]:
    yield "job.name", spec.job.name
    yield "job.purpose", spec.job.purpose.replace("\n", " ")
    yield "encryption.preset", spec.encryption.preset
    for party, brought in spec.data.items():
        yield f"data.{party}.dataset", brought.dataset
        yield f"data.{party}.label", brought.label
        for column in brought.columns:
            yield f"data.{party}.columns", column


def _short(number: float) -> str:
    return f"{number:g}" if isinstance(number, float) else str(number) if abs(number) < 10**20 else _LONG


_LONG = "a number of more than twenty digits"
