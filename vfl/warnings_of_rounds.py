"""What a job of rounds is warned of before anything is sent: it can run, but may not give what its parts are for."""

from collections.abc import Iterator

from vfl.notices import Notice
from vfl.rounds_spec import RoundsSpec

FEW_CHOSEN = 0.5
"""Share of the clients in a cohort from which all are as good as there."""


def warnings(spec: RoundsSpec, classes_held: int | None = None) -> tuple[Notice, ...]:
    """Warnings on model_inversion; `classes_held` is of how many classes this party's own rows are, where known."""
    terms = spec.model_inversion
    if terms is None or terms.where == "none":
        return ()
    of_use = (Notice("warning", "inversion_of_little_use", text) for text in _of_use(spec, classes_held))
    return (*of_use, Notice("warning", "inversion_reveals", _of_privacy(spec)))


def _of_use(spec: RoundsSpec, classes_held: int | None) -> Iterator[str]:
    """Where averaging already works, inverted rows cost up to a point (methods.md 3.7)."""
    terms, clients = spec.model_inversion, len(spec.roster.clients)
    if terms is None:
        return
    if classes_held is not None and 2 * classes_held > spec.outputs:
        yield (
            f"model_inversion is unlikely to help: rows here are of {classes_held} of {spec.outputs} classes, and it "
            "pays where clients miss most"
        )
    elif classes_held is None and spec.cohort >= FEW_CHOSEN * clients and spec.rounds.rounds > 1:
        yield (
            f"model_inversion is unlikely to help where {spec.cohort} of {clients} clients take part in each round, "
            "unless each misses most classes: where each misses few, averaging alone does as well"
        )
    if terms.warm_up > spec.rounds.rounds:
        yield (
            f"model_inversion never acts: it starts in round {terms.warm_up} of {spec.rounds.rounds}; a job of one "
            "round needs warm_up = 1"
        )
    if terms.labels == "soft" and terms.where == "clients":
        yield 'model_inversion.labels = "soft" is for the aggregator, which does not invert here'


def _of_privacy(spec: RoundsSpec) -> str:
    terms = spec.model_inversion
    if terms is None or terms.where == "clients":
        return "model_inversion: rows that clients find in the shared model can resemble rows of other clients"
    return "model_inversion: the aggregator inverts each client's own model, and can find rows like that client's"
