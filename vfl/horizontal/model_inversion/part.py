"""Model-inversion: rows found in models balance what clients lack and stand in for rows the aggregator never sees.

    client k (R2.2)                                         aggregator (R2.3)
    receives the model
    inverts it, for classes of which it has few rows
    draws from what it found until classes are even
    trains on both, inverted rows weighing less; sends  ->  inverts each client's model
                                                            averages them
                                                            trains the average on all it found

US12236370B2; model_inversion.md. Messages are those of averaging: no row, real or found, and no class count is sent.
Nothing is inverted before `warm_up`, nor at the aggregator while its test rows show a mean no better than guessing
among half the classes (R2.5). Where the filter keeps less than a tenth, the part does nothing that round.
"""

from collections.abc import Mapping

import torch

from vfl.horizontal.hooks import AggregatorHooks, ClientHooks, Part
from vfl.horizontal.model_inversion.aggregator import Observing, Retraining
from vfl.horizontal.model_inversion.client import Augmentation
from vfl.horizontal.model_inversion.inversion import invert
from vfl.horizontal.model_inversion.search import Find, Inverter
from vfl.setup import Setup
from vfl.spec.rounds import RoundsSpec
from vfl.spec.rounds_settings import ModelInversion


def terms_of(spec: RoundsSpec) -> ModelInversion:
    terms = spec.model_inversion
    if terms is None:
        raise ValueError("this job has no model_inversion")
    return terms


def part(find: Find = invert) -> Part:
    """The part, with a way to invert."""

    def aggregator(setup: Setup[RoundsSpec], _saved: Mapping[str, torch.Tensor]) -> AggregatorHooks:
        inverter = Inverter(setup.spec, terms_of(setup.spec), find)
        if inverter.terms.where == "none":
            return AggregatorHooks()
        return Observing(inverter) if inverter.terms.where == "clients" else Retraining(setup, inverter)

    def client(setup: Setup[RoundsSpec]) -> ClientHooks:
        inverter = Inverter(setup.spec, terms_of(setup.spec), find)
        if inverter.terms.where == "none":
            return ClientHooks()
        return Augmentation(setup, inverter)

    return Part("model_inversion", aggregator, client, remembers=lambda spec: terms_of(spec).where != "none")


PART = part()
