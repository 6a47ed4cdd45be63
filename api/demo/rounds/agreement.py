"""The job an aggregator and its clients run in a demonstration, and what each one's policy says to it."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from api.demo.folder import PartyFolder
from api.demo.rounds.modes import Mode
from api.demo.rounds.tables import (
    AGGREGATOR,
    BRIGHTEST,
    CLIENTS,
    DIGITS,
    ID,
    LABEL,
    ROWS,
    SIDE,
    DealtTable,
    deal_digits,
)
from api.demo.training.agreement import MINIMUM_ROWS, RelaxedLimit
from parties.wire.control import joint_seed
from vfl.kinds import read_spec_as
from vfl.spec.rounds import RoundsSpec

DEADLINE_SECONDS = 3600
ROUND_SECONDS = 120


@dataclass(frozen=True)
class PartyLimit(RelaxedLimit):
    """A limit that one party alone relaxes."""

    party: str

    def __str__(self) -> str:
        return f"limit relaxed in {self.party}'s party.toml: {super().__str__()}"


@dataclass(frozen=True)
class RoundsAgreement:
    """The specification as text and as parsed, who brings which rows, and the limits they relax for it."""

    mode: Mode
    text: str
    spec: RoundsSpec
    table: DealtTable
    relaxed_limits: tuple[PartyLimit, ...]

    def folder_of(self, party: str) -> PartyFolder:
        """A client knows the aggregator alone."""
        relaxed = {limit.name: limit.relaxed for limit in self.relaxed_limits if limit.party == party}
        acceptance: dict[str, Any] = {
            "datasets": list(self.table.files[party]),
            "schemes": [self.spec.disclosure],
            "fixed_seed": True,
            **relaxed,
        }
        return PartyFolder(party, self.spec.peers_of(party), self.table.files[party], ID, acceptance)


@dataclass(frozen=True)
class RoundsDemonstration:
    """What was agreed, and where it is kept."""

    agreement: RoundsAgreement
    seed: int
    folder: Path


def agree_on_rounds(mode: Mode, *, rounds: int | None, seed: int) -> RoundsAgreement:
    """The job of a mode; rows are dealt from the seed too. Raises what a specification can raise."""
    mode = replace(mode, rounds=rounds or mode.rounds)
    text = _text(mode, seed)
    spec = read_spec_as(RoundsSpec, text)
    table = deal_digits(joint_seed(spec, {}), mode.shares, mode.first_digits)
    rows = {client: table.files[client][ROWS].height for client in CLIENTS}
    limits = tuple(
        PartyLimit("minimum_rows", MINIMUM_ROWS, own, client) for client, own in rows.items() if own < MINIMUM_ROWS
    )
    return RoundsAgreement(mode, text, spec, table, limits)


def _text(mode: Mode, seed: int) -> str:
    clients = ", ".join(f'"{client}"' for client in CLIENTS)
    lines = [
        "spec_version = 1",
        "[job]",
        f'name = "demo-{mode.name}"',
        'protocol = "rounds"',
        'task = "multiclass"',
        f"classes = {DIGITS}",
        'purpose = "demonstration on one machine"',
        f"seed = {seed}",
        f"deadline_seconds = {DEADLINE_SECONDS}",
        "[roster]",
        f'aggregator = "{AGGREGATOR}"',
        f"clients = [{clients}]",
        f"[data.{AGGREGATOR}]",
        *(f'{use} = "{use}"' for use in mode.shares),
        *(line for client in CLIENTS for line in (f"[data.{client}]", f'dataset = "{ROWS}"')),
        "[model]",
        f'network = "{mode.network}"',
        *([f"hidden = {list(mode.hidden)}"] if mode.hidden else []),
        *([f'norm = "{mode.norm}"'] if mode.norm != "none" else []),
        f"input_shape = [1, {SIDE}, {SIDE}]",
        f"input_range = [0.0, {BRIGHTEST}.0]",
        f'label = "{LABEL}"',
        *([f"first_epochs = {mode.first_epochs}"] if "first" in mode.shares else []),
        "[train]",
        f"batch_rows = {mode.batch_rows}",
        f'optimiser = {{ name = "sgd", rate = {mode.rate} }}',
        "[rounds]",
        f"rounds = {mode.rounds}",
        f"local_epochs = {mode.local_epochs}",
        *([f"rate_decay = {mode.rate_decay}"] if mode.rate_decay != 1 else []),
        *([f"clients_per_round = {mode.clients_per_round}"] if mode.clients_per_round else []),
        "min_clients = 2",
        f"deadline_seconds = {ROUND_SECONDS}",
        f'parts = ["{mode.part}"]',
        f"[rounds.{mode.part}]",
        *mode.settings,
    ]
    return "\n".join(lines) + "\n"
