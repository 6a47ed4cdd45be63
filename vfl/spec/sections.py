"""What specifications of every kind are made of: parties, roles, the table [job], an optimiser, the use of a table.

Sections are frozen msgspec structs that refuse unknown keys; they load neither torch nor an encryption library.
"""

import enum
import re
from typing import Literal, TypeAlias

import msgspec

from vfl.errors import SpecError

PartyId: TypeAlias = str
"""The name a party goes by in specs and envelopes: lower-case letters, digits and hyphens."""

PARTY_ID = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,62}[a-z0-9])?")


class Role(enum.Enum):
    """What a party plays in one job. Each kind of job names its own roles in a subclass."""


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A table of the specification; unknown keys are refused by name."""


class Optimiser(Section, frozen=True, kw_only=True):
    name: Literal["sgd", "adam"] = "sgd"
    rate: float = 0.1
    momentum: float = 0.0
    """Of sgd."""
    weight_decay: float = 0.0


HANDED_OUT_BYTES = 64 << 20
"""Of a table whose rows are handed to peers. Their number stands in no specification: its owner counts them before it
proposes."""
HANDED_OUT_VALUE_BYTES = 4


class IdRules(Section, frozen=True, kw_only=True):
    """How the columns that make an id are read, so that the same id is the same at every party. What a rule does not
    name stays: leading zeros, white space inside, punctuation."""

    types: tuple[Literal["text", "integer"], ...] = ("text",)
    """Of each column, in order: the text 7 and the number 7 are two ids."""
    unicode: Literal["nfc", "nfkc", "none"] = "nfc"
    case: Literal["keep", "lower"] = "keep"
    white_space: Literal["strip", "keep"] = "strip"
    """`strip` takes away white space at both ends, and letters that nobody sees wherever they stand."""
    duplicates: Literal["refuse", "first"] = "refuse"
    minimum_ids: int = 1000
    """Each party must bring so many."""
    maximum_ids: int = 1_000_000
    """Of so many ids of its own at most does a party learn whether another has them."""

    def check(self) -> None:
        """Raises SpecError."""
        require(bool(self.types), "align.types is empty")
        require(self.minimum_ids >= 0, "align.minimum_ids must not be negative")
        require(self.maximum_ids >= max(1, self.minimum_ids), "align.maximum_ids must be at least align.minimum_ids")


class TableUse(Section, frozen=True, kw_only=True):
    """One table a party brings to a job: a registered data set, and which of its columns enter."""

    dataset: str
    columns: tuple[str, ...] = ()
    every_column: bool = False
    """No columns are named and all but id and label enter, in the order of the file."""
    label: str = ""
    positive: str | int = ""
    """The value of a binary label that counts as 1; empty leaves it to the label party."""
    class_values: tuple[str, ...] = ()
    """Values of the label that the job has a weight for."""
    words: tuple[str, ...] = ()
    """Columns whose texts are categories."""
    gaps: tuple[str, ...] = ()
    """Columns whose cells may be empty."""
    label_ignored: str = ""
    """With `every_column`: a label column that is left aside if the file has it."""
    some_classes: bool = False
    """Rows of some classes may be missing here: a peer may have them."""
    width: int = 0
    """How many columns there must be; 0 leaves it open."""
    leaves: bool = False
    """The rows themselves are handed to peers."""
    label_at_peer: str = ""
    """A column that must not be in this party's file, because it is a peer's label."""
    alignment: str = ""
    """Its rows are those of this alignment, in its order: the digest of its result, or the id of its job."""
    is_learned_from: bool = True
    ids_name_results: bool = False
    """What comes out for a row is stored with the id of the row."""
    ids_are_counted: bool = False
    """How often each row is scored is counted by its id."""
    split_by_id: bool = False
    """Which rows are held out follows from a hash of the id of each."""
    split_by_time: str = ""
    """A column that is no input, by which the newest rows are held out; empty for none."""
    ids: IdRules | None = None
    """The columns make the id of a row, by these rules; they hold no numbers to learn from."""


class Job(Section, frozen=True, kw_only=True):
    name: str
    protocol: str = "training"
    """The kind of the job: one of `vfl.kinds.KINDS`."""
    task: Literal["binary", "multiclass", "regression", "none"]
    """`none` is of kinds that learn nothing."""
    classes: int = 0
    """Number of classes of a multiclass job; in a training job the label party fills it in when it proposes."""
    purpose: str = ""
    seed: Literal["joint"] | int = "joint"
    """`joint` is drawn by both sides; an integer needs both policies' consent."""
    deadline_seconds: int = 86_400


def check_optimiser(optimiser: Optimiser) -> None:
    """Raises SpecError."""
    require_amount(optimiser.rate, "train.optimiser.rate", above_zero=True)
    require(0.0 <= optimiser.momentum < 1.0, "train.optimiser.momentum must lie in [0, 1)")
    require_amount(optimiser.weight_decay, "train.optimiser.weight_decay")
    require(optimiser.name == "sgd" or not optimiser.momentum, "train.optimiser.momentum is for sgd")


def require_amount(value: float, key: str, *, above_zero: bool = False) -> None:
    """A finite number that is not negative. Raises SpecError."""
    least = "above 0" if above_zero else "of at least 0"
    holds = (value > 0 if above_zero else value >= 0) and value < float("inf")
    require(holds, f"{key} must be a finite number {least}")


def require(holds: bool, message: str) -> None:  # noqa: FBT001
    if not holds:
        raise SpecError(f"job specification: {message}")
