"""What one party's messages may reveal in a job, and from which of its columns: its side of the plan's table.

The numbers are those of `Plan.reveals`, which every party computes from the agreed specification and its rows. Where a
job may take steps again, a part that came back sends again what it had sent: the budget has room for a few of those.

A budget is spent message by message: how many of a kind leave and how large each may be bounds what they reveal, and no
message has to be read for that.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import msgspec

from parties.errors import PolicyRefused
from vfl.kind import FRAMING
from vfl.kinds import kind_of
from vfl.message import MESSAGES, Grain, Source
from vfl.planning.plan import Plan, RevealLine
from vfl.spec.job import JobSpec
from vfl.spec.sections import PartyId

NAMES_BYTES = 1 << 10
"""Of a message, beside the values that it holds."""
ROUNDING = 1e-9
"""Of rho, which is added up from the parts that its messages spend."""


class DataUse(msgspec.Struct, frozen=True):
    """What a job takes of one data set of a party."""

    dataset: str
    digest: str
    """SHA-256 of the file, as hexadecimal digits."""
    columns: tuple[str, ...]
    label: str = ""
    handed_out: bool = False
    """The rows themselves go to peers."""


class Column(NamedTuple):
    """One column of one file, and what its owner calls the data set."""

    digest: str
    name: str
    dataset: str


class Account(NamedTuple):
    """What is added up over all jobs: what one peer has read that one column of one file entered."""

    peer: PartyId
    digest: str
    column: str
    counted: str
    """What its numbers count: values, or messages of a kind of job whose values nobody can count beforehand."""


class Charge(NamedTuple):
    """What is put on an account."""

    values: int = 0
    """Or messages."""
    rho: float = 0.0

    def plus(self, other: "Charge") -> "Charge":
        return Charge(self.values + other.values, self.rho + other.rho)


class BudgetLine(msgspec.Struct, frozen=True):
    """What one kind of message may reveal to one peer over the whole job."""

    message: str
    peer: PartyId
    counted: str
    """What `values` counts: values, or messages."""
    planned: int
    """Values, if every step is taken once."""
    planned_messages: int
    messages: int
    """With the steps that may be taken again: never more than this leaves."""
    largest_bytes: int
    """Of one message."""
    rho: float
    """What the planned values add to the rho of each column."""
    columns: tuple[Column, ...]
    """Every column that enters these values."""
    again: int = 0
    """So many more may leave after crashes, as far as the cap of rho leaves room for them when the job is approved."""
    counts_whole: bool = False
    """Whoever asks decides how many values a message holds: with the first one all of them are counted."""

    @property
    def values(self) -> int:
        """With the steps that may be taken again."""
        return self.charge(self.messages).values

    def charge(self, messages: int) -> Charge:
        """What so many of the messages put on the account of each column."""
        if self.counts_whole:
            return Charge(self.planned, self.rho) if messages else Charge()
        return Charge(-(-self.planned * messages // self.planned_messages), self.rho * messages / self.planned_messages)

    def rest(self, messages: int) -> Charge:
        """What the others may still put there, when so many have left."""
        left, whole = self.charge(messages), self.charge(self.messages)
        return Charge(whole.values - left.values, whole.rho - left.rho)

    @property
    def accounts(self) -> tuple[Account, ...]:
        return tuple(Account(self.peer, column.digest, column.name, self.counted) for column in self.columns)


def reveals(kind: str) -> bool:
    """Whether a message of this kind reveals something, so that a budget counts it."""
    return kind in MESSAGES and MESSAGES[kind].reveals.grain is not Grain.NOTHING


def budget_of(spec: JobSpec, plan: Plan, sender: PartyId, data: Sequence[DataUse]) -> tuple[BudgetLine, ...]:
    """Every kind of message by which `sender` reveals something, with the numbers of its plan."""
    revealing = [line for line in plan.reveals if line.sender == sender and line.grain != Grain.NOTHING.value]
    largest = kind_of(spec).largest_messages(spec, plan.rows)
    sums = {line.receiver: 0 for line in revealing}
    for line in revealing:
        sums[line.receiver] += _opened_sums(line)
    return tuple(
        BudgetLine(
            message=line.message,
            peer=line.receiver,
            counted=kind_of(spec).counted,
            planned=line.values,
            planned_messages=line.messages,
            messages=line.messages + (0 if spec.resumes else kind_of(spec).messages_again(spec, plan, line)),
            again=kind_of(spec).messages_again(spec, plan, line) if spec.resumes else 0,
            largest_bytes=NAMES_BYTES + largest.get(line.message, FRAMING),
            rho=plan.rho * _opened_sums(line) / max(1, sums[line.receiver]),
            columns=_columns(MESSAGES[line.message].reveals.source, data),
            counts_whole=plan.opens_on_request,
        )
        for line in revealing
    )


def charges(lines: Iterable[BudgetLine]) -> dict[Account, Charge]:
    """What the whole budget puts on each account."""
    total: dict[Account, Charge] = {}
    for line in lines:
        for account in line.accounts:
            total[account] = total.get(account, Charge()).plus(line.charge(line.messages))
    return total


def with_steps_again(
    lines: Sequence[BudgetLine], used: Mapping[Account, Charge], maximum_rho: float
) -> Iterator[BudgetLine]:
    """The same with steps that may be taken again after crashes: no more than the cap of rho leaves."""
    rho = {account: used.get(account, Charge()).rho + charge.rho for account, charge in charges(lines).items()}
    for line in lines:
        again, each = line.again, line.rho / max(1, line.planned_messages)
        if each and line.accounts:
            left = maximum_rho + ROUNDING - max(rho[account] for account in line.accounts)
            again = min(again, max(0, math.floor(left / each)))
            rho |= {account: rho[account] + again * each for account in line.accounts}
        yield msgspec.structs.replace(line, messages=line.messages + again)


def check_lifetime(
    me: PartyId, lines: Sequence[BudgetLine], used: Mapping[Account, Charge], maximum_rho: float
) -> None:
    """The cap of rho holds for all jobs on a file with a peer together. Raises PolicyRefused, naming the column."""
    datasets = {column.digest: column.dataset for line in lines for column in line.columns}
    for account, charge in charges(lines).items():
        before = used.get(account, Charge()).rho
        if charge.rho > 0 and before + charge.rho > maximum_rho + ROUNDING:
            column, left = f"{account.column!r} of {datasets[account.digest]!r}", max(0.0, maximum_rho - before)
            raise PolicyRefused(
                f"{me} refuses by acceptance.maximum_rho: on the column {column} {account.peer} has used rho "
                f"{before:.3g} of {maximum_rho:g} over all jobs, open ones included; this job asks for "
                f"{charge.rho:.3g}, and {left:.3g} is left",
                fix=f"acceptance.maximum_rho in {me}'s party.toml counts over the life of a file: take fewer epochs, "
                "larger batches or other columns, or raise it.",
            )


def _opened_sums(line: RevealLine) -> int:
    """Of the values that rho is about: each a sum over a batch."""
    return line.values if line.grain == Grain.SUM.value else 0


def _columns(source: Source, data: Sequence[DataUse]) -> tuple[Column, ...]:
    match source:
        case Source.NO_COLUMN:
            return ()
        case Source.LABEL:
            return tuple(Column(use.digest, use.label, use.dataset) for use in data if use.label)
        case Source.EVERY_COLUMN:
            return tuple(
                Column(use.digest, name, use.dataset) for use in data for name in (*use.columns, use.label) if name
            )
