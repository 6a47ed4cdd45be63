"""What the aggregator says of a second model: its sizes (R1.1), and what it gained whom (backbone_decoder.md)."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from vfl.models.local_training import features
from vfl.notices import Notice
from vfl.spec.rounds_settings import BackboneDecoder


@dataclass(frozen=True)
class Scores:
    """On the aggregator's test rows: accuracy, or R2 of a regression."""

    first_before: float
    second_before: float
    second_after: float
    first_after: float
    by_rule: Mapping[str, float]
    """The first model's, by each way to carry back that was tried."""

    def metrics(self) -> dict[str, float]:
        """`emulator_gap` is how much worse the second model is than the first: what clients cannot take away."""
        return {
            "first_model_before": self.first_before,
            "second_model_before": self.second_before,
            "second_model_after": self.second_after,
            "first_model_after": self.first_after,
            "first_model_gain": self.first_after - self.first_before,
            "second_model_gain": self.second_after - self.second_before,
            "emulator_gap": self.first_before - self.second_before,
        } | {f"first_model_after_{rule}": score for rule, score in self.by_rule.items()}

    def notice(self) -> Notice:
        ways = ", ".join(f"{name} {score:.3f}" for name, score in self.by_rule.items())
        text = (
            f"on test rows the first model had {self.first_before:.3f} before, the second {self.second_before:.3f} "
            f"before and {self.second_after:.3f} after, the first has {self.first_after:.3f} after; by rule: {ways}"
        )
        return Notice("note", "second_model_scores", text)


def carried_notice(rule: str) -> Notice:
    text = f"the first model has the decoder that was carried back by {rule}"
    if not rule:
        text = "no decoder beats the old one on the validation rows: the first model stays as it was"
    return Notice("note", "carried_back", text)


def sizes_notice(derive: str, sizes: Mapping[str, float]) -> Notice:
    def pair(what: str) -> str:
        return f"{sizes[f'second_backbone_{what}']:,.0f} of {sizes[f'first_backbone_{what}']:,.0f}"

    error = sizes.get("second_backbone_alignment_error")
    aligned = "not measured: there are no public rows" if error is None else f"{error:.3g}"
    text = (
        f"second backbone by {derive}: {pair('parameters')} parameters, {pair('bytes')} bytes, "
        f"{pair('multiply_adds')} multiply-adds per row, alignment error {aligned}; "
        f"clients train {sizes['decoder_parameters']:,.0f} parameters and hold {sizes['client_bytes']:,.0f} bytes of "
        f"weights and gradients, {sizes['whole_model_bytes']:,.0f} would be the whole first model's"
    )
    return Notice("note", "second_backbone", text)


def count_parameters(module: nn.Module) -> int:
    return sum(values.numel() for values in module.parameters())


def bytes_of_training(trained: nn.Module, frozen: nn.Module | None = None) -> int:
    """Weights in memory as float32, and a gradient for each that is trained."""
    return 4 * (2 * count_parameters(trained) + (count_parameters(frozen) if frozen is not None else 0))


def kept_parameters(terms: BackboneDecoder, backbone: nn.Module) -> int:
    """Of a second backbone; a pruned one's dropped weights do not count."""
    weights = [values for values in backbone.parameters() if values.ndim > 1]
    dropped = sum(int((values == 0).sum()) for values in weights) if terms.derive == "prune" else 0
    return count_parameters(backbone) - dropped


def multiply_adds(module: nn.Module, input_shape: tuple[int, ...]) -> int:
    """Of one row through all linear and convolution layers; zeros are multiplied as well."""
    counted: list[int] = []

    def count(layer: nn.Module, _inputs: tuple[torch.Tensor, ...], outputs: torch.Tensor) -> None:
        weight = layer.get_parameter("weight")
        counted.append(weight.numel() * outputs[0].numel() // len(weight))

    layers = [layer for layer in module.modules() if isinstance(layer, nn.Linear | nn.Conv2d)]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    features(module, torch.zeros(1, *input_shape))
    for hook in hooks:
        hook.remove()
    return sum(counted)
