"""The second backbone as both sides know it: its shape follows from the specification, its weights from one body.

    body    1 byte: with a translator or without · weights as `derive` packs them, other tensors · translator

Under compressed-sync the tensors of a body are encoded with `backbone_bits`; packed weights stay as they are packed.
"""

from collections import OrderedDict
from copy import deepcopy
from itertools import pairwise

import torch
from torch import nn

from vfl.codecs import InvalidBody
from vfl.codecs.parameters import Format, Shape, decode_parameters, encode_parameters, expected_bytes
from vfl.horizontal.backbone_decoder.packing import AS_THEY_ARE, PACKINGS, Packing
from vfl.horizontal.network import network_of
from vfl.horizontal.update_encoding import RAW, like
from vfl.models.networks import BLOCKS, build, from_arrays, load_parameters, parameters_of, to_arrays
from vfl.models.split import cut
from vfl.spec.network_names import block_names, square_blocks, width_after, widths_of
from vfl.spec.rounds import RoundsSpec
from vfl.spec.rounds_settings import BackboneDecoder

TRANSLATOR = "translator"
"""Name of the last block of a second backbone that has one."""
LARGEST_SHARE = 1 / 8
"""Of the first backbone's parameters, for a student whose widths are not given (R1.2)."""
CODECS_OF_BACKBONES = {"none": 32, "half": 16}
"""Bits a codec has whatever the terms say; a codec for replies or sums gives way to rotation."""


def terms_of(spec: RoundsSpec) -> BackboneDecoder:
    terms = spec.backbone_decoder
    if terms is None:
        raise ValueError("the job does not derive a second model")
    return terms


def blank_backbone(spec: RoundsSpec) -> nn.Sequential:
    """The second backbone without its translator; its weights mean nothing yet."""
    terms = terms_of(spec)
    if terms.derive == "student":
        return blank_student(spec)
    first = cut(network_of(spec, None), terms.cut).backbone
    return RESHAPED[terms.derive](first, spec) if terms.derive in RESHAPED else first


def blank_decoder(spec: RoundsSpec, whole: nn.Sequential) -> nn.Sequential:
    """What travels: the blocks of `whole` behind the cut. Without a translator they read the student's width."""
    terms, model = terms_of(spec), spec.model
    if not narrow_decoder(spec):
        return cut(whole, terms.cut).decoder
    widths = list(widths_of(model.network, model.hidden))
    widths[block_names(model.network, model.hidden).index(terms.cut)] = student_widths(spec)[-1]
    return cut(_network(spec, tuple(widths), None), terms.cut).decoder


def narrow_decoder(spec: RoundsSpec) -> bool:
    """Whether the second decoder is of another shape than the first."""
    terms, model = terms_of(spec), spec.model
    return (
        terms.derive == "student"
        and not terms.translator
        and student_widths(spec)[-1] != width_after(model.network, model.hidden, terms.cut)
    )


def student_widths(spec: RoundsSpec) -> tuple[int, ...]:
    """As given, or the first backbone's divided alike until with a translator an eighth of its parameters is left."""
    terms, model = terms_of(spec), spec.model
    if terms.student_hidden:
        return terms.student_hidden
    names = block_names(model.network, model.hidden)
    first = widths_of(model.network, model.hidden)[: names.index(terms.cut) + 1]
    narrowed = first
    for divisor in range(2, max(first) + 1):
        widths = tuple(max(1, width // divisor) for width in first)
        if model.network == "small_cnn" and _equal_neighbours(widths) != _equal_neighbours(first):
            continue  # images would be halved elsewhere
        narrowed = widths
        if _parameters(spec, widths) + (widths[-1] + 1) * first[-1] <= _parameters(spec, first) * LARGEST_SHARE:
            break
    return narrowed


def _equal_neighbours(widths: tuple[int, ...]) -> list[bool]:
    return [one == other for one, other in pairwise(widths)]


def blank_student(spec: RoundsSpec, seed: bytes | None = None) -> nn.Sequential:
    """With first weights from the seed, or with none yet."""
    widths, hidden = student_widths(spec), _whole_widths(spec, student_widths(spec))
    blocks = list(_network(spec, hidden, seed).named_children())[: len(widths)]
    return nn.Sequential(OrderedDict(blocks))


def _network(spec: RoundsSpec, hidden: tuple[int, ...], seed: bytes | None) -> nn.Sequential:
    """The network of the job with other widths."""
    model = spec.model
    generator = None if seed is None else torch.Generator().manual_seed(int.from_bytes(seed[:7], "big"))
    return build(model.network, model.input_shape, spec.outputs, hidden=hidden, norm=model.norm, generator=generator)


def _whole_widths(spec: RoundsSpec, backbone: tuple[int, ...]) -> tuple[int, ...]:
    """Of a network whose first blocks are a backbone of these widths: its last one may be no `features` block."""
    return backbone if terms_of(spec).cut == "features" else (*backbone, 1)


def _parameters(spec: RoundsSpec, backbone: tuple[int, ...]) -> int:
    model = spec.model
    with torch.device("meta"):
        blocks = BLOCKS[model.network](model.input_shape, _whole_widths(spec, backbone), model.norm)
    return sum(values.numel() for block in blocks[: len(backbone)] for values in block.parameters())


def _fewer_layers(first: nn.Sequential, spec: RoundsSpec) -> nn.Sequential:
    terms, model = terms_of(spec), spec.model
    names = [name for name, _ in first.named_children()]
    square = [name for name in square_blocks(model.network, model.hidden) if name in names]
    step = (len(square) - 1) / max(1, terms.layers - 1)
    kept_blocks = {square[round(position * step)] for position in range(terms.layers)}
    return nn.Sequential(
        OrderedDict(
            (name, block) for name, block in first.named_children() if name not in square or name in kept_blocks
        )
    )


def _factorised(first: nn.Sequential, spec: RoundsSpec) -> nn.Sequential:
    """Each layer of more weights than its two factors have becomes `down`, then `up`."""
    module, rank = deepcopy(first), terms_of(spec).rank
    for name, layer in list(module.named_modules()):
        if isinstance(layer, nn.Linear | nn.Conv2d) and _factors_are_fewer(layer, rank):
            module.set_submodule(
                name, nn.Sequential(OrderedDict(zip(("down", "up"), _factors(layer, rank), strict=True)))
            )
    return module


def _factors_are_fewer(layer: nn.Linear | nn.Conv2d, rank: int) -> bool:
    outputs, rest = layer.weight.flatten(1).shape
    return rank * (outputs + rest) < outputs * rest


def _factors(layer: nn.Linear | nn.Conv2d, rank: int) -> tuple[nn.Module, nn.Module]:
    offset = layer.bias is not None
    with torch.device("meta"):
        if isinstance(layer, nn.Linear):
            down: nn.Module = nn.Linear(layer.in_features, rank, bias=False)
            up: nn.Module = nn.Linear(rank, layer.out_features, bias=offset)
        else:
            side = layer.kernel_size[0]  # images keep their size
            down = nn.Conv2d(layer.in_channels, rank, side, padding=side // 2, bias=False)
            up = nn.Conv2d(rank, layer.out_channels, 1, bias=offset)
    return down.to_empty(device="cpu"), up.to_empty(device="cpu")


RESHAPED = {"layers": _fewer_layers, "low_rank": _factorised}
"""By `derive`: the first backbone -> the second one's blocks; of `layers` they are the first one's own."""


def blank_translator(spec: RoundsSpec) -> nn.Module:
    """A linear map from the second backbone's width to the first's, over pixels where features are images."""
    terms, model = terms_of(spec), spec.model
    outputs = width_after(model.network, model.hidden, terms.cut)
    inputs = student_widths(spec)[-1] if terms.derive == "student" else outputs
    has_pixels = model.network == "small_cnn" and terms.cut != "features"
    with torch.device("meta"):
        module = nn.Conv2d(inputs, outputs, 1) if has_pixels else nn.Linear(inputs, outputs)
    return module.to_empty(device="cpu")


def with_translator(backbone: nn.Sequential, translator: nn.Module | None) -> nn.Sequential:
    """T(B2 x), sharing the weights of both."""
    last = [] if translator is None else [(TRANSLATOR, translator)]
    return nn.Sequential(OrderedDict([*backbone.named_children(), *last]))


# The body


def write_backbone(spec: RoundsSpec, backbone: nn.Sequential, seed: bytes) -> bytes:
    """Weights and other tensors of a second backbone without its translator."""
    terms, arrays = terms_of(spec), to_arrays(parameters_of(backbone))
    tensors, packed = _packing(terms).pack({n: a for n, a in arrays.items() if a.ndim > 1}, terms)
    rest = {name: values for name, values in arrays.items() if values.ndim <= 1}
    return encode_parameters(tensors | rest, _form(spec), seed) + packed


def write_translator(spec: RoundsSpec, translator: nn.Module | None, seed: bytes) -> bytes:
    if translator is None:
        return b""
    return encode_parameters(to_arrays(parameters_of(translator)), _form(spec), seed)


def joined(backbone: bytes, translator: bytes) -> bytes:
    """The body that is sent and digested."""
    return bytes([bool(translator)]) + backbone + translator


def rebuild(spec: RoundsSpec, body: bytes) -> nn.Sequential:
    """The frozen second backbone, translator included, in evaluation mode (R1.4). Raises InvalidBody."""
    content, backbone = memoryview(body), blank_backbone(spec)
    if content[:1] not in {b"\0", b"\1"}:
        raise InvalidBody("the bytes are no body of a backbone")
    end = 1 + read_backbone(spec, backbone, content[1:])
    translator = blank_translator(spec) if content[0] else None
    if translator is not None:
        state = decode_parameters(content[end:], like(parameters_of(translator)), _form(spec))
        load_parameters(translator, from_arrays(state))
    elif len(content) != end:
        raise InvalidBody(f"the body has {len(content)} bytes, and {end} are due")
    return with_translator(backbone, translator).eval().requires_grad_(requires_grad=False)


def read_backbone(spec: RoundsSpec, backbone: nn.Sequential, content: memoryview) -> int:
    """Load what `write_backbone` gave into a module of its shape; returns how many bytes that were.

    Raises InvalidBody.
    """
    terms, expected = terms_of(spec), like(parameters_of(backbone))
    weights = {name: shape for name, shape in expected.items() if isinstance(shape, tuple) and len(shape) > 1}
    rest = {name: shape for name, shape in expected.items() if name not in weights}
    packing = _packing(terms)
    tensor_shapes: dict[str, Shape] = {**packing.tensors(weights, terms), **rest}
    middle = expected_bytes(tensor_shapes, _form(spec))
    end = middle + packing.packed_bytes(weights, terms)
    if len(content) < end:
        raise InvalidBody(f"the body has {len(content)} bytes, and {end} are due")
    tensors = decode_parameters(content[:middle], tensor_shapes, _form(spec))
    arrays = packing.unpack(tensors, content[middle:end], weights, terms) | {name: tensors[name] for name in rest}
    load_parameters(backbone, from_arrays(arrays))
    return end


def _packing(terms: BackboneDecoder) -> Packing:
    return PACKINGS.get(terms.derive, AS_THEY_ARE)


def _form(spec: RoundsSpec) -> Format:
    """How tensors of a backbone are encoded: least error, for it is stored and never averaged."""
    terms = spec.compressed_sync
    if terms is None or terms.codec == "none":
        return RAW
    codec = terms.codec if terms.codec in {"half", "uniform", "block"} else "rotation"
    return Format(codec, CODECS_OF_BACKBONES.get(codec, terms.backbone_bits), unbiased=False)
