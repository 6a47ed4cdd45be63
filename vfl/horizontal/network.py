"""The network of a job of rounds: built from its specification, and as the aggregator first has it."""

import hashlib

import torch
from safetensors.torch import load, save
from torch import nn

from vfl.horizontal.input_scaling import metadata_of
from vfl.horizontal.rows import derived, examples_of
from vfl.models.local_training import train
from vfl.models.networks import Parameters, build, load_parameters
from vfl.setup import InputScaling, Setup
from vfl.spec.rounds import RoundsSpec


def network_of(spec: RoundsSpec, seed: bytes | None) -> nn.Sequential:
    """The network of a job with fresh weights drawn from a seed; None leaves them to be loaded."""
    generator = None
    if seed is not None:
        generator = torch.Generator().manual_seed(int.from_bytes(hashlib.sha256(seed).digest()[:7], "big"))
    model = spec.model
    return build(
        model.network, model.input_shape, spec.outputs, hidden=model.hidden, norm=model.norm, generator=generator
    )


def first_model(setup: Setup[RoundsSpec]) -> nn.Sequential:
    """Fresh, registered, or trained here on the aggregator's own first rows.

    Raises InvalidData or ImpossibleJob where the registered model is of another shape.
    """
    spec = setup.spec
    module = network_of(spec, derived(setup.joint_seed, "initial weights"))
    if setup.model:
        load_parameters(module, load(setup.model))
    if "first" in setup.tables:
        rows = examples_of(spec, setup.tables["first"], "first", setup.scaling)
        if rows.labels is None:
            raise ValueError("first rows need labels")
        train(
            module,
            rows.inputs,
            rows.labels,
            epochs=spec.model.first_epochs,
            batch_rows=spec.train.batch_rows,
            optimiser=spec.train.optimiser,
            seed=derived(setup.joint_seed, "first model"),
            regression=spec.job.task == "regression",
        )
    return module


def save_parameters(parameters: Parameters, scaling: InputScaling | None = None) -> bytes:
    """As safetensors bytes; a model's say in their metadata how its inputs are scaled."""
    metadata = None if scaling is None else metadata_of(scaling)
    data: bytes = save({name: values.contiguous() for name, values in parameters.items()}, metadata)
    return data
