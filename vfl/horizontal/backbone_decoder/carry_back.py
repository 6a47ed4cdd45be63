"""From the trained second decoder back to the first model's (R1.6)."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import nn

from vfl.horizontal.rows import derived
from vfl.models.local_training import features, train
from vfl.models.networks import Parameters, load_parameters, parameters_of
from vfl.spec.rounds_settings import BackboneDecoder
from vfl.spec.sections import Optimiser

DISTIL = Optimiser(name="adam", rate=1e-3)
DISTIL_BATCH_ROWS = 64


@dataclass(frozen=True)
class Rows:
    """Public rows as each backbone embeds them."""

    first: torch.Tensor
    second: torch.Tensor


@dataclass(frozen=True)
class Decoders:
    first: Parameters
    """The first model's, as it was before round 1."""
    started: Parameters
    """The second one's before round 1."""
    trained: Parameters
    """The second one's now."""
    build_first: Callable[[], nn.Sequential]
    """A module of the first one's shape; what it holds is overwritten."""
    build_second: Callable[[], nn.Sequential]

    @property
    def alike(self) -> bool:
        """Whether both decoders are of one shape."""
        return all(values.shape == self.first[name].shape for name, values in self.trained.items())


def rules_of(terms: BackboneDecoder, *, public: bool, validation: bool) -> tuple[str, ...]:
    """Which rules are tried: `best` compares all where there are validation rows, else it distils where it can."""
    if terms.carry_back != "best":
        return (terms.carry_back,)
    distil = ("distil",) if public else ()
    return ("copy", "delta", *distil) if validation else distil or ("copy",)


def carried(
    rules: Iterable[str],
    terms: BackboneDecoder,
    decoders: Decoders,
    public: Rows | None,
    seed: bytes,
    *,
    regression: bool,
) -> dict[str, Parameters]:
    """The first model's decoder by each of these rules that applies here."""
    decoders_by_rule: dict[str, Parameters] = {}
    for name in rules:
        if name == "distil" and public is not None:
            decoders_by_rule[name] = _distilled(terms, decoders, public, seed, regression=regression)
        elif name == "copy" and decoders.alike:
            decoders_by_rule[name] = dict(decoders.trained)
        elif name == "delta" and decoders.alike:
            decoders_by_rule[name] = _moved(decoders, terms.delta_scale)
    return decoders_by_rule


def _moved(decoders: Decoders, scale: float) -> Parameters:
    """D1 + a (D2 - D2 at the start); buffers as trained."""
    trained = {name for name, _ in decoders.build_first().named_parameters()}
    return {
        name: decoders.first[name] + scale * (values - decoders.started[name]) if name in trained else values
        for name, values in decoders.trained.items()
    }


def _distilled(
    terms: BackboneDecoder, decoders: Decoders, public: Rows, seed: bytes, *, regression: bool
) -> Parameters:
    """Least mean KL( softmax D2(B2 x) || softmax D1(B1 x) ), which is their cross-entropy up to a constant; of a
    regression the squared difference. It starts from D2 where shapes agree, else from D1."""
    teacher, student = decoders.build_second(), decoders.build_first()
    load_parameters(teacher, decoders.trained)
    load_parameters(student, decoders.trained if decoders.alike else decoders.first)
    scores = features(teacher, public.second)
    train(
        student,
        public.first,
        scores[:, 0] if regression else scores.softmax(1),
        epochs=terms.distil_epochs,
        batch_rows=DISTIL_BATCH_ROWS,
        optimiser=DISTIL,
        seed=derived(seed, "distillation"),
        regression=regression,
    )
    return parameters_of(student)
