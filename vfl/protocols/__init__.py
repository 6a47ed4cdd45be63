"""The protocols by name. A literal dict of functions that import on demand, and the only registry there is."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from vfl.flow import Flow
from vfl.reports import Outcome
from vfl.setup import Setup
from vfl.spec.sections import Role


@dataclass(frozen=True)
class Protocol:
    """A protocol is its name and one flow per role."""

    name: str
    roles: dict[Role, Callable[[Setup[Any]], Flow[Outcome]]]


def _split_training() -> Protocol:
    from vfl.protocols.split_training import PROTOCOL  # noqa: PLC0415 - torch only when a job asks for it

    return PROTOCOL


def _ckks_training() -> Protocol:
    from vfl.protocols.ckks_training import PROTOCOL  # noqa: PLC0415 - tenseal only when a job asks for it

    return PROTOCOL


def _rounds() -> Protocol:
    from vfl.protocols.rounds import PROTOCOL  # noqa: PLC0415 - torch only when a job asks for it

    return PROTOCOL


PROTOCOLS: dict[str, Callable[[], Protocol]] = {
    "split_training": _split_training,
    "ckks_training": _ckks_training,
    "rounds": _rounds,
}
