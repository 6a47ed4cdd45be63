"""What has passed the door of this party, and what it has decided, on its way to the database: stored in one commit."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import sqlalchemy as sql

from parties.storage.audit_log import AuditLog
from parties.storage.engine import METADATA, NUMBER, insert
from parties.storage.lifetime import BudgetKey
from parties.storage.negotiated import Negotiated
from parties.storage.traffic import Count, TrafficKey
from parties.trust.bundle import SignedReceipt

AUDIT_LOG = AuditLog(METADATA)
_RECEIPTS = sql.Table(
    "receipts",
    METADATA,
    sql.Column("job", sql.String, primary_key=True),
    sql.Column("receiver", sql.String, primary_key=True),
    sql.Column("attempt", NUMBER, primary_key=True, autoincrement=False),
    sql.Column("next", NUMBER, nullable=False),
    sql.Column("last", sql.LargeBinary, nullable=False),
    sql.Column("signature", sql.LargeBinary, nullable=False),
)


class ReceiptKey(NamedTuple):
    """Of the newest receipt for what was said in one attempt."""

    job: str
    receiver: str
    attempt: int


@dataclass
class Passed:
    counts: dict[TrafficKey, Count] = field(default_factory=dict)
    leaves: list[bytes] = field(default_factory=list)
    """Of the audit log, in order."""
    spent: Counter[BudgetKey] = field(default_factory=Counter)
    """How many messages that reveal something are among these leaves."""
    receipts: dict[ReceiptKey, SignedReceipt] = field(default_factory=dict)
    words: list[Negotiated] = field(default_factory=list)
    """About jobs, in order."""

    def __bool__(self) -> bool:
        return bool(self.counts or self.leaves or self.receipts)

    def take_receipt(self, receipt: SignedReceipt) -> None:
        """The one that goes furthest is kept."""
        key = ReceiptKey(receipt.job, receipt.receiver, receipt.attempt)
        last = self.receipts.get(key)
        if last is None or last.next < receipt.next:
            self.receipts[key] = receipt

    def add(self, later: "Passed") -> None:
        """What has passed after this."""
        for line, count in later.counts.items():
            self.counts.setdefault(line, Count()).add(count)
        self.leaves += later.leaves
        self.spent += later.spent
        self.words += later.words
        for receipt in later.receipts.values():
            self.take_receipt(receipt)


def keep_receipts(connection: sql.Connection, receipts: Mapping[ReceiptKey, SignedReceipt]) -> None:
    if not receipts:
        return
    rows = [
        {**key._asdict(), "next": receipt.next, "last": receipt.last, "signature": receipt.signature}
        for key, receipt in receipts.items()
    ]
    new = insert(connection, _RECEIPTS)
    newer = {name: new.excluded[name] for name in ("next", "last", "signature")}
    same, later = _RECEIPTS.primary_key.columns, new.excluded.next > _RECEIPTS.c.next
    connection.execute(new.on_conflict_do_update(index_elements=same, set_=newer, where=later), rows)


def receipts(connection: sql.Connection) -> Iterable[SignedReceipt]:
    """All that are kept, in a fixed order."""
    query = _RECEIPTS.select().order_by(_RECEIPTS.c.job, _RECEIPTS.c.receiver, _RECEIPTS.c.attempt)
    return [SignedReceipt(**row) for row in connection.execute(query).mappings()]
