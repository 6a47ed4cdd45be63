"""Coefficients of a linear model in one pass with their standard errors, as a person reads them."""

from typing import Any, NamedTuple

from vfl.kinds import spec_of
from vfl.spec.one_pass import OnePassSpec

LEAST_P = 1e-4


class Coefficient(NamedTuple):
    party: str
    """Owner of the input; empty for the constant."""
    name: str
    value: str
    error: str
    z: str
    p: str


def coefficients_of(job: dict[str, Any]) -> list[Coefficient]:
    """Of a regression at the label party; of any other job none."""
    series, spec = job["series"], spec_of(job["specification"])
    if not isinstance(spec, OnePassSpec) or "coefficient" not in series:
        return []
    columns = (series[name] for name in ("coefficient", "coefficient_error", "coefficient_z", "coefficient_p"))
    return [
        Coefficient(party, name, _number(value, "#.4g"), _number(error, "#.3g"), _number(z, ".2f"), _p(p))
        for (party, name), value, error, z, p in zip(spec.inputs, *columns, strict=True)
    ]


def _number(value: float | None, form: str) -> str:
    """Empty where there is none."""
    return "" if value is None else format(value, form)


def _p(value: float | None) -> str:
    return f"< {LEAST_P:.4f}" if value is not None and value < LEAST_P else _number(value, ".4f")
