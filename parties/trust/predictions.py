"""How often a peer may have the rows of one data set scored: each time it reads one more number of each row.

A job scores a row once, so that the number of jobs in a day bounds how often any row is scored in it.
"""

from collections.abc import Iterable
from typing import Final

from parties.errors import PolicyRefused
from parties.trust.request import Request
from parties.trust.summary import Terms
from vfl.kinds import decode_spec

DAY_SECONDS: Final = 86_400
USUAL: Final = 10


def check_predictions(request: Request, approved: Iterable[Terms], per_day: int) -> None:
    """`approved` are the jobs of the last day. Raises PolicyRefused; a peer reads which rule it is, and no number."""
    if not request.plan.tells_of_each_row or not any(line.columns for line in request.budget):
        return
    mine = {use.dataset for use in request.data}
    scored = [terms for terms in approved if mine & {use.dataset for use in terms.data}]
    today = sum(_is_of(terms, request.spec.coordinator) for terms in scored)
    if today >= per_day:
        raise PolicyRefused(
            f"{request.me} refuses by acceptance.predictions_per_day: {request.spec.coordinator} has had rows of "
            f"{', '.join(map(repr, sorted(mine)))} scored {today} times within a day, and {per_day} are the most",
            fix=f"acceptance.predictions_per_day in {request.me}'s party.toml: wait, or raise it.",
        )


def _is_of(terms: Terms, peer: str) -> bool:
    spec = decode_spec(terms.spec)
    return not spec.learns and bool(spec.applied_model) and spec.coordinator == peer
