"""How a party's columns become the numbers a training job computes on: said in the specification, fitted by the owner.

What both sides must know is how many numbers each column becomes. So the specification fixes that, and it does not
depend on what stands in the column (job_specification.md).
"""

from collections.abc import Iterator
from typing import Literal, TypeAlias

from vfl.spec.sections import Section, require

MOST_COLUMNS = 100
"""That one column may become."""


class Step(Section, frozen=True, kw_only=True, tag_field="kind"):
    """What is done with some columns."""

    columns: tuple[str, ...] = ()
    """Empty: every column that no other entry names."""

    @property
    def width(self) -> int:
        """How many numbers each of them becomes."""
        return 1

    def names(self, column: str) -> tuple[str, ...]:
        """What each of these numbers is, as far as the specification says it."""
        return (column,)

    @property
    def reads_words(self) -> bool:
        """Whether each different text is a category, and an empty cell one more."""
        return False

    @property
    def takes_gaps(self) -> bool:
        """Whether cells may be empty."""
        return self.reads_words

    @property
    def needs_labels(self) -> bool:
        return False


class Standardise(Step, frozen=True, kw_only=True, tag="standardise"):
    """Mean 0 and deviation 1 on the training rows, clipped at three deviations."""

    missing: Literal["refuse", "median"] = "refuse"
    """`median` fills empty cells with the median of the training rows, and adds a column that says where."""

    @property
    def width(self) -> int:
        return 2 if self.missing == "median" else 1

    def names(self, column: str) -> tuple[str, ...]:
        return (column, f"{column} is empty") if self.missing == "median" else (column,)

    @property
    def takes_gaps(self) -> bool:
        return self.missing == "median"


class Quantile(Standardise, frozen=True, kw_only=True, tag="quantile"):
    """The quantile of a value among the training rows, as the value that a normal distribution has there."""


class OneHot(Step, frozen=True, kw_only=True, tag="one_hot"):
    """A column for each of the most frequent categories; all others share none."""

    categories: int
    """How many have a column of their own, at most."""
    least_rows: int = 20
    """Training rows that a category needs for a column of its own."""

    @property
    def width(self) -> int:
        return self.categories

    def names(self, column: str) -> tuple[str, ...]:
        return tuple(f"{column}, category {place} of {self.width}" for place in range(1, self.width + 1))

    @property
    def reads_words(self) -> bool:
        return True


class Bins(Step, frozen=True, kw_only=True, tag="bins"):
    """A column for each edge: 1 from that edge on."""

    edges: int | tuple[float, ...]
    """The edges themselves, or how many there are, at even shares of the training rows."""
    missing: Literal["refuse", "own_bin"] = "refuse"
    """`own_bin` adds a column that says where a cell is empty."""

    @property
    def width(self) -> int:
        return edge_count(self.edges) + (self.missing == "own_bin")

    def names(self, column: str) -> tuple[str, ...]:
        if isinstance(self.edges, int):
            edges = tuple(f"{column} from edge {place} of {self.edges}" for place in range(1, self.edges + 1))
        else:
            edges = tuple(f"{column} from {edge:g}" for edge in self.edges)
        return (*edges, f"{column} is empty") if self.missing == "own_bin" else edges

    @property
    def takes_gaps(self) -> bool:
        return self.missing == "own_bin"


class WeightOfEvidence(Step, frozen=True, kw_only=True, tag="weight_of_evidence"):
    """The logarithm of how much more frequent a bin or a category is among positive rows; at a label party only."""

    edges: int | tuple[float, ...] = 0
    """As of `bins`; 0 takes the column's categories."""
    least_rows: int = 20
    """Training rows that a bin or a category needs for a value of its own; all others share one."""

    @property
    def reads_words(self) -> bool:
        return self.edges == 0

    @property
    def takes_gaps(self) -> bool:
        return True

    @property
    def needs_labels(self) -> bool:
        return True


PreparationStep: TypeAlias = Standardise | Quantile | OneHot | Bins | WeightOfEvidence
DEFAULT = Standardise()
"""Of a column that nothing is said about."""


def edge_count(edges: int | tuple[float, ...]) -> int:
    return edges if isinstance(edges, int) else len(edges)


def steps_of(columns: tuple[str, ...], prepare: tuple[PreparationStep, ...]) -> tuple[PreparationStep, ...]:
    """What is done with each column, in order."""
    named = {column: step for step in prepare for column in step.columns}
    rest = next((step for step in prepare if not step.columns), DEFAULT)
    return tuple(named.get(column, rest) for column in columns)


def check_preparation(
    columns: tuple[str, ...], prepare: tuple[PreparationStep, ...], at: str, *, binary_labels: bool
) -> None:
    """`binary_labels`: the party has them. Raises SpecError."""
    named = [column for step in prepare for column in step.columns]
    for column in named:
        require(column in columns, f"{at}.prepare names {column!r}, which is not among {at}.columns")
    require(len(set(named)) == len(named), f"{at}.prepare names a column twice")
    require(sum(not step.columns for step in prepare) <= 1, f"{at}.prepare has two entries without columns")
    for step in prepare:
        for holds, message in _rules(step):
            require(holds, f"{at}.prepare: {message}")
        require(
            binary_labels or not step.needs_labels,
            f"{at}.prepare: weight_of_evidence needs labels of two values, and is for the party that has them",
        )


def _rules(step: PreparationStep) -> Iterator[tuple[bool, str]]:
    if isinstance(step, OneHot):
        yield 1 <= step.categories <= MOST_COLUMNS, f"categories must lie between 1 and {MOST_COLUMNS}"
    if isinstance(step, OneHot | WeightOfEvidence):
        yield step.least_rows >= 1, "least_rows must be at least 1"
    if isinstance(step, Bins | WeightOfEvidence):
        least = 1 if isinstance(step, Bins) or step.edges == () else 0
        yield least <= edge_count(step.edges) <= MOST_COLUMNS, f"edges must be {least} to {MOST_COLUMNS} in number"
        if not isinstance(step.edges, int):
            numbers = all(abs(edge) < float("inf") for edge in step.edges)
            yield numbers and list(step.edges) == sorted(set(step.edges)), "edges must be finite and ascend"
