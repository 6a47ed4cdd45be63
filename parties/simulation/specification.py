"""One table as many parties would hold it: the job and what each role is given, for a simulation.

The specification is a job's own, without its clients and their data, and one table more, `[simulation]`. The clients it
names and the tables they bring are filled in, so that what runs is an ordinary specification.
"""

import difflib
import hashlib
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from parties.limits import TOO_LONG, check_limits, check_text
from parties.simulation.partition import FEWEST_ROWS, Rows, dirichlet, even, quantity_skew, shards
from parties.simulation.synthetic_images import DRAWS, synthetic_images
from parties.tables.datasets import load
from parties.tables.registered import Registered
from vfl.errors import ImpossibleJob, SpecError
from vfl.kinds import spec_of
from vfl.notices import Notice
from vfl.schedule import held_out, permutation
from vfl.setup import Setup, Table
from vfl.spec.rounds import RoundsSpec
from vfl.spec.sections import PartyId, Section, require

AGGREGATOR = "aggregator"
TABLE = "simulation"
MOST_CLIENTS = 100_000


class Partition(Section, frozen=True, kw_only=True):
    """How rows are dealt to clients."""

    kind: Literal["even", "dirichlet", "shards", "quantity"] = "even"
    alpha: float = 0.5
    """Of `dirichlet` and `quantity`: the smaller, the more clients differ."""
    per_client: int = 2
    """Of `shards`."""


class Simulation(Section, frozen=True, kw_only=True):
    """The table [simulation]."""

    dataset: str
    """A bundled table by name, `synthetic_images`, or the path of a CSV or Parquet file beside the specification."""
    id: str = "id"
    """Id column of a file."""
    rows: int = 0
    """How many rows of `synthetic_images` are drawn."""
    clients: int
    fewest_rows: int = FEWEST_ROWS
    """Of a client."""
    partition: Partition = Partition()
    test: float = 0.2
    """Shares of the rows that the aggregator holds, drawn before the rest is dealt."""
    validation: float = 0.0
    public: float = 0.0
    shared: float = 0.0
    first: float = 0.0
    test_at: Literal["aggregator", "clients"] = "aggregator"
    """Who holds test rows; at clients, each holds out that share of its own, and only sums are read (R0.9)."""
    seed: int = 0
    """Fixes all draws, so that a simulation can be repeated."""
    processes: int = 1

    def __post_init__(self) -> None:
        require(1 <= self.clients <= MOST_CLIENTS, f"simulation.clients must lie in 1 to {MOST_CLIENTS}")
        require(self.fewest_rows >= 1, "simulation.fewest_rows must be at least 1")
        shares = (self.test, self.validation, self.public, self.shared, self.first)
        require(min(shares) >= 0, "simulation: no share of rows is negative")
        require(sum(shares) < 1, "simulation: the shares together leave no rows to clients")
        require(self.test > 0, "simulation.test must be above 0: without test rows nothing is known of the model")
        require(self.processes >= 1, "simulation.processes must be at least 1")
        require(
            (self.dataset == "synthetic_images") == bool(self.rows),
            "simulation.rows is needed for synthetic_images, and only there",
        )

    @property
    def shares(self) -> dict[str, float]:
        """What the aggregator holds, by use."""
        test = {"test": self.test} if self.test_at == "aggregator" else {}
        others = {"validation": self.validation, "public": self.public, "shared": self.shared, "first": self.first}
        return {use: share for use, share in (test | others).items() if share}


class Federation(NamedTuple):
    """A job to simulate."""

    spec: RoundsSpec
    simulation: Simulation

    def digest(self) -> bytes:
        """Of all that its result depends on, 32 bytes."""
        decided = msgspec.structs.replace(self.simulation, processes=1)
        return hashlib.sha256(self.spec.digest() + msgspec.msgpack.encode(decided)).digest()


class Whole(NamedTuple):
    """A table before it is dealt."""

    columns: NDArray[np.float64]
    labels: NDArray[np.float64]
    notices: tuple[Notice, ...] = ()
    """What is worth a look in a file."""


def is_simulation(text: str) -> bool:
    """Whether a specification has the table [simulation]. Raises SpecError where it is no TOML."""
    return TABLE in _document(text)


def read_federation(text: str) -> Federation:
    """A specification with [simulation]. Raises SpecError, SpecConflict, NotAvailable, naming the key."""
    document = _document(text)
    if TABLE not in document:
        raise SpecError(
            "this specification has no table [simulation]",
            fix="Add one, with at least dataset and clients, and leave roster.clients and [data] out.",
        )
    simulation = _simulation(document.pop(TABLE))
    roster = document.get("roster", {})
    if "data" in document or (isinstance(roster, dict) and "clients" in roster):
        raise SpecError(
            "[simulation] names the clients and deals their rows, and so do [data] or roster.clients",
            fix="Leave [data] and roster.clients out; roster.aggregator may stay.",
        )
    aggregator = roster.get("aggregator", AGGREGATOR) if isinstance(roster, dict) else AGGREGATOR
    digits = len(str(simulation.clients))
    names = [f"client-{number:0{digits}}" for number in range(1, simulation.clients + 1)]
    document["roster"] = {"aggregator": aggregator, "clients": names}
    own = {"dataset": "rows"} | ({"test": "test"} if simulation.test_at == "clients" else {})
    document["data"] = {aggregator: {use: use for use in simulation.shares}} | dict.fromkeys(names, own)
    spec = spec_of(document)
    if not isinstance(spec, RoundsSpec):
        raise SpecError(
            f"a job of protocol {spec.job.protocol!r} has no clients to simulate",
            fix='Set job.protocol = "rounds".',
        )
    check_limits(spec)
    return Federation(spec, simulation)


def setups(federation: Federation, whole: Whole) -> dict[PartyId, Setup[RoundsSpec]]:
    """What each role is given of the federation's table. Raises ImpossibleJob."""
    spec, simulation = federation
    if spec.model.first_model:
        raise ImpossibleJob(
            "model.first_model names a model in a registry, and a simulation has none",
            fix="Leave it out, and give the aggregator rows for a first model: simulation.first.",
        )
    tables = _dealt(spec, simulation, whole)
    joint = _seed(simulation.seed, "joint")
    return {party: Setup(spec, party, tables[party], joint, _seed(simulation.seed, party)) for party in spec.parties}


def _dealt(spec: RoundsSpec, simulation: Simulation, whole: Whole) -> dict[PartyId, dict[str, Table]]:
    order, start = permutation(_seed(simulation.seed, "shares"), "shares", len(whole.labels)), 0
    held: dict[str, Table] = {}
    for use, share in simulation.shares.items():
        rows = np.sort(order[start : start + max(1, round(share * len(order)))])
        held[use] = _table(whole, rows, labelled=use != "public")
        start += len(rows)
    left = np.sort(order[start:])
    dealt = {spec.roster.aggregator: held}
    for client, own in zip(spec.roster.clients, _partition(simulation, whole.labels[left]), strict=True):
        if simulation.test_at == "clients":
            trained, tested = held_out(_seed(simulation.seed, client), len(own), simulation.test)
            dealt[client] = {"rows": _table(whole, left[own[trained]]), "test": _table(whole, left[own[tested]])}
        else:
            dealt[client] = {"rows": _table(whole, left[own])}
    return dealt


def _partition(simulation: Simulation, labels: NDArray[np.float64]) -> Rows:
    terms, clients, fewest = simulation.partition, simulation.clients, simulation.fewest_rows
    seed = _seed(simulation.seed, "partition")
    match terms.kind:
        case "even":
            return even(labels, clients, seed, fewest)
        case "dirichlet":
            return dirichlet(labels, clients, terms.alpha, seed, fewest)
        case "shards":
            return shards(labels, clients, terms.per_client, seed, fewest)
        case "quantity":
            return quantity_skew(labels, clients, terms.alpha, seed, fewest)


def _table(whole: Whole, rows: NDArray[np.int64], *, labelled: bool = True) -> Table:
    return Table(bytes(32), whole.columns[rows], whole.labels[rows] if labelled else None)


def load_whole(federation: Federation, folder: Path) -> Whole:
    """The federation's table; a file is looked for in `folder`. Raises SpecError or InvalidData."""
    spec, simulation = federation
    if simulation.dataset == "synthetic_images":
        drawn = synthetic_images(
            _seed(simulation.seed, DRAWS), simulation.rows, spec.model.input_shape, max(spec.outputs, 2)
        )
        low, high = spec.model.ranges[0] if spec.model.ranges else (0.0, 1.0)
        return Whole(low + drawn.pixels * (high - low), drawn.labels)
    if simulation.dataset in BUNDLED:
        return _bundled(spec, simulation.dataset)
    if not (folder / simulation.dataset).is_file():
        raise SpecError(
            f"simulation.dataset: {simulation.dataset!r} is no file beside the specification and no bundled table",
            fix=f"Bundled are {', '.join(BUNDLED)}, and synthetic_images, which are generated.",
        )
    client = spec.roster.clients[0]
    registered = {"rows": Registered(source=simulation.dataset, id=(simulation.id,))}
    table = load(folder, registered, spec, client)["rows"]
    if table.labels is None:
        raise ValueError("a client's rows carry labels")
    return Whole(table.columns, table.labels, table.notices)


BUNDLED: dict[str, str] = {
    "digits": "load_digits",
    "iris": "load_iris",
    "wine": "load_wine",
    "breast-cancer": "load_breast_cancer",
    "diabetes": "load_diabetes",
}
"""Tables of scikit-learn by name, and what loads them."""


def _bundled(spec: RoundsSpec, name: str) -> Whole:
    from sklearn import datasets  # noqa: PLC0415 - a second, where a bundled table is asked for

    loader: Callable[[], Any] = getattr(datasets, BUNDLED[name])
    bundled = loader()
    columns, names = np.asarray(bundled.data, np.float64), [str(name) for name in bundled.feature_names]
    for column in spec.model.columns:
        if column not in names:
            near = difflib.get_close_matches(column, names, n=1)
            raise SpecError(
                f"model.columns: {name} has no column {column!r}",
                fix=f"Did you mean {near[0]!r}?" if near else f"It has: {', '.join(names[:20])}.",
            )
    chosen = [names.index(column) for column in spec.model.columns] or slice(None)
    return Whole(columns[:, chosen], np.asarray(bundled.target, np.float64))


def _document(text: str) -> dict[str, Any]:
    check_text(text)
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SpecError(f"job specification: {error}") from error
    except ValueError as error:
        raise SpecError(f"job specification: {TOO_LONG}") from error


def _simulation(table: Any) -> Simulation:
    try:
        return msgspec.convert(table, Simulation)
    except msgspec.ValidationError as error:
        keys = [*Simulation.__struct_fields__, *Partition.__struct_fields__]
        unknown = str(error).partition("unknown field `")[2].partition("`")[0]
        near = difflib.get_close_matches(unknown, keys, n=1) if unknown else []
        fix = f"Did you mean `{near[0]}`?" if near else ""
        raise SpecError(f"job specification: [simulation]: {error}", fix=fix) from error


def _seed(seed: int, purpose: str) -> bytes:
    return hashlib.sha256(f"vfl simulation {seed} {purpose}".encode()).digest()
