"""A model in two parts: backbone and decoder of horizontal rounds, bottom and top of vertical jobs (R1.7)."""

from collections import OrderedDict
from dataclasses import dataclass

from torch import nn

from vfl.errors import SpecError


@dataclass(frozen=True)
class ModelSplit:
    """The decoder maps what the backbone gives to the model's outputs; every block keeps the name it has in the model.

    The parts may be trained, replaced and stored apart, and may come from different models.
    """

    backbone: nn.Sequential
    decoder: nn.Sequential

    def whole(self) -> nn.Sequential:
        """The model of both parts; it shares their weights."""
        return nn.Sequential(OrderedDict([*self.backbone.named_children(), *self.decoder.named_children()]))


def cut(module: nn.Sequential, name: str) -> ModelSplit:
    """Split after the block `name`; the parts share the module's weights.

    Raises SpecError, naming the blocks where it can be cut, if there is no such block or none after it (X9).
    """
    blocks = list(module.named_children())
    names = [block for block, _ in blocks]
    if name not in names[:-1]:
        why = (
            "no cut is named"
            if not name
            else f"a cut after {name!r} leaves no decoder"
            if name in names
            else f"it has no block {name!r}"
        )
        raise SpecError(f"the model cannot be split: {why}", fix=f"Cut after one of {', '.join(names[:-1])}.")
    after = names.index(name) + 1
    return ModelSplit(nn.Sequential(OrderedDict(blocks[:after])), nn.Sequential(OrderedDict(blocks[after:])))
