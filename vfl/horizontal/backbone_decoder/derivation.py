"""Deriving the second model from the first: a backbone clients may hold, and a decoder behind it (R1.1).

What clients will rebuild from the body is what is aligned, measured and used here: nothing at full precision stays
behind that they do not have.
"""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import nn

from vfl.errors import ImpossibleJob, InvalidData
from vfl.horizontal.backbone_decoder import second_backbone as second
from vfl.horizontal.backbone_decoder.feature_alignment import alignment_error, fit_translator, train_aligned
from vfl.horizontal.backbone_decoder.packing import kept_weights
from vfl.horizontal.rows import derived
from vfl.models.local_training import features, one_thread
from vfl.models.networks import BatchNorm, load_parameters, parameters_of
from vfl.models.split import ModelSplit
from vfl.schedule import held_out
from vfl.spec.rounds import RoundsSpec
from vfl.spec.rounds_settings import BackboneDecoder

HELD_OUT = 0.2
"""Share of the public rows on which alignment is measured, and on which nothing is fitted."""
FEWEST_PUBLIC_ROWS = 10
HELPS = 0.05
"""A translator that is not needed stays if it lowers the alignment error by so much."""


@dataclass(frozen=True)
class SecondModel:
    body: bytes
    """Of the backbone, as clients are sent it."""
    decoder: nn.Sequential
    """As it starts."""
    alignment_error: float | None
    """On public rows that nothing was fitted on; None without public rows."""


@dataclass(frozen=True)
class _Public:
    """Public rows and the first backbone's features of them: to fit on, and to measure on."""

    fitting: torch.Tensor
    fitting_targets: torch.Tensor
    held_out: torch.Tensor
    held_out_targets: torch.Tensor


@one_thread()
def derive(spec: RoundsSpec, first: ModelSplit, public: torch.Tensor | None, seed: bytes) -> SecondModel:
    """The second model of the job's terms; `first` is left as it is.

    `public` are inputs (rows, ...) without labels. Raises ImpossibleJob where no translator fits between the two,
    InvalidData for too few public rows.
    """
    terms = second.terms_of(spec)
    rows = None if public is None else _public(first.backbone, public, seed)
    backbone = WEIGHTS[terms.derive](spec, first.backbone, derived(seed, "student"))
    _check_shapes(spec, first.backbone, backbone)
    wider = terms.derive == "student" and _needs_translator(spec)
    translator = second.blank_translator(spec) if wider else None
    if rows is not None and terms.derive in TRAINED:
        _train(terms, backbone, translator, rows, derived(seed, "alignment"))
        if second.narrow_decoder(spec):
            _rescale(backbone, rows)
    body = second.write_backbone(spec, backbone, derived(seed, "backbone"))
    second.read_backbone(spec, backbone, memoryview(body))
    backbone.eval()
    if rows is not None and terms.derive != "identity":
        translator = _fitted(spec, backbone, rows, needed=wider)
    tail = second.write_translator(spec, translator, derived(seed, "translator"))
    if not wider and len(tail) > len(body):  # it costs more than what it corrects
        tail = b""
    whole = second.joined(body, tail)
    error = None
    if rows is not None:
        own_features = features(second.rebuild(spec, whole), rows.held_out)
        error = alignment_error(own_features, rows.held_out_targets)
    if second.narrow_decoder(spec):
        return SecondModel(second.joined(body, b""), _behind(spec, first, translator), error)
    return SecondModel(whole, deepcopy(first.decoder), error)


# Weights before alignment


def _own(_spec: RoundsSpec, first: nn.Sequential, _seed: bytes) -> nn.Sequential:
    return deepcopy(first)


def _student(spec: RoundsSpec, _first: nn.Sequential, seed: bytes) -> nn.Sequential:
    return second.blank_student(spec, seed)


def _fewer_layers(spec: RoundsSpec, first: nn.Sequential, _seed: bytes) -> nn.Sequential:
    return second.RESHAPED["layers"](deepcopy(first), spec)


def _pruned(spec: RoundsSpec, first: nn.Sequential, _seed: bytes) -> nn.Sequential:
    module = deepcopy(first)
    _mask_of(second.terms_of(spec), module)()
    return module


def _low_rank(spec: RoundsSpec, first: nn.Sequential, _seed: bytes) -> nn.Sequential:
    """W = U S V' cut to its rank, the root of S in each factor; what is not factorised is taken over."""
    module = second.RESHAPED["low_rank"](first, spec)
    state = parameters_of(module)
    for name, values in parameters_of(first).items():
        if name in state:
            state[name] = values
            continue
        layer, kind = name.rsplit(".", 1)
        if kind == "bias":
            state[f"{layer}.up.bias"] = values
            continue
        down, up = f"{layer}.down.weight", f"{layer}.up.weight"
        rank = len(state[down])
        u, s, vt = torch.linalg.svd(values.flatten(1).double(), full_matrices=False)
        root = s[:rank].sqrt()
        state[up] = (u[:, :rank] * root).float().reshape(state[up].shape)
        state[down] = (root[:, None] * vt[:rank]).float().reshape(state[down].shape)
    load_parameters(module, state)
    return module


WEIGHTS: dict[str, Callable[[RoundsSpec, nn.Sequential, bytes], nn.Sequential]] = {
    "identity": _own,
    "student": _student,
    "layers": _fewer_layers,
    "prune": _pruned,
    "quantise": _own,  # packing rounds them
    "low_rank": _low_rank,
}
TRAINED = frozenset({"student", "layers", "prune", "low_rank"})
"""What has free weights is trained on public rows; codes have none."""


# Alignment


def _public(first: nn.Sequential, public: torch.Tensor, seed: bytes) -> _Public:
    if len(public) < FEWEST_PUBLIC_ROWS:
        raise InvalidData(
            f"there are {len(public)} public rows, and aligning a second model takes at least {FEWEST_PUBLIC_ROWS}",
            fix="Bring more rows without labels, of the kind the clients have.",
        )
    fitting, measuring = (torch.from_numpy(rows) for rows in held_out(seed, len(public), HELD_OUT))
    targets = features(first, public)
    return _Public(public[fitting], targets[fitting], public[measuring], targets[measuring])


def _needs_translator(spec: RoundsSpec) -> bool:
    outputs, inputs = second.blank_translator(spec).get_parameter("weight").shape[:2]
    return bool(outputs != inputs)


def _check_shapes(spec: RoundsSpec, first: nn.Sequential, backbone: nn.Sequential) -> None:
    """Images must be of one size on both sides: a translator maps channels, not pixels."""
    row = torch.zeros(1, *spec.model.input_shape)
    here, there = features(backbone, row).shape[2:], features(first, row).shape[2:]
    if here != there:
        raise ImpossibleJob(
            f"the second backbone gives images of {tuple(here)} pixels where the first model gives {tuple(there)}",
            fix="Give student_hidden as many widths as the first model's backbone has, equal ones where it has equal "
            'ones; or cut = "features".',
        )


def _train(
    terms: BackboneDecoder, backbone: nn.Sequential, translator: nn.Module | None, rows: _Public, seed: bytes
) -> None:
    """The backbone towards the first one's features; a translator it needs learns with it, from its closed form."""
    if not terms.align_epochs:
        return
    if translator is not None:
        fit_translator(translator, features(backbone, rows.fitting), rows.fitting_targets)
    train_aligned(
        second.with_translator(backbone, translator),
        rows.fitting,
        rows.fitting_targets,
        epochs=terms.align_epochs,
        rate=terms.align_rate,
        seed=seed,
        statistics=terms.derive == "student",
        after_step=_mask_of(terms, backbone),
    )


def _rescale(backbone: nn.Sequential, rows: _Public) -> None:
    """Features as large as the first one's, so that a decoder of its own learns at the same rate: a translator would
    have seen to it. Behind the last layer is a ReLU, so they grow as its parameters do."""
    backbone.eval()
    own, targets = features(backbone, rows.fitting), rows.fitting_targets
    scale = float((targets.double() ** 2).sum() / (own.double() ** 2).sum().clamp_min(1e-30)) ** 0.5
    last = [layer for layer in backbone.modules() if isinstance(layer, nn.Linear | nn.GroupNorm | BatchNorm)][-1]
    with torch.no_grad():
        for parameter in last.parameters():
            parameter.mul_(scale)


def _mask_of(terms: BackboneDecoder, backbone: nn.Sequential) -> Callable[[], None]:
    """Sets to zero what `prune` drops of the weights as they are now; nothing for any other derivation."""
    if terms.derive != "prune":
        return lambda: None
    weights = {name: values for name, values in backbone.named_parameters() if values.ndim > 1}
    kept_masks = kept_weights({name: values.detach().numpy() for name, values in weights.items()}, terms.share)
    masks = {name: torch.from_numpy(mask) for name, mask in kept_masks.items()}

    def drop() -> None:
        with torch.no_grad():
            for name, mask in masks.items():
                weights[name].mul_(mask)

    return drop


def _fitted(spec: RoundsSpec, backbone: nn.Sequential, rows: _Public, *, needed: bool) -> nn.Module | None:
    """The translator in closed form; None where the terms want none, or it is not needed and does not help."""
    if not needed and not second.terms_of(spec).translator:
        return None
    translator = second.blank_translator(spec)
    fit_translator(translator, features(backbone, rows.fitting), rows.fitting_targets)
    if needed:
        return translator
    own = features(backbone, rows.held_out)
    without = alignment_error(own, rows.held_out_targets)
    with_it = alignment_error(features(translator, own), rows.held_out_targets)
    return translator if with_it < without - HELPS else None


def _behind(spec: RoundsSpec, first: ModelSplit, translator: nn.Module | None) -> nn.Sequential:
    """A decoder that reads the student's own features: the first one, with the translator folded into its first layer.

    Both functions are the same where that layer has an offset.
    """
    decoder = second.blank_decoder(spec, first.whole())
    state = {name: values.clone() for name, values in parameters_of(first.decoder).items()}
    name = next(name for name, layer in first.decoder.named_modules() if isinstance(layer, nn.Linear))
    if translator is not None:
        weight = state[f"{name}.weight"].double()
        state[f"{name}.weight"] = (weight @ translator.get_parameter("weight").detach().double()).float()
        if f"{name}.bias" in state:
            offset = weight @ translator.get_parameter("bias").detach().double()
            state[f"{name}.bias"] = (state[f"{name}.bias"].double() + offset).float()
    load_parameters(decoder, state)
    return decoder
