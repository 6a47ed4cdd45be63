"""Parameters as they travel and are digested where no part says otherwise: raw values, nothing kept, nothing lost."""

import hashlib
from collections.abc import Callable

import msgspec
from torch import nn

from vfl.codecs.parameters import Format, Shape, decode_parameters, encode_parameters, shapes
from vfl.horizontal.hooks import Examples, Updated, UpdateEncoding, Work
from vfl.models.local_training import train
from vfl.models.networks import Parameters, from_arrays, load_parameters, parameters_of, to_arrays
from vfl.models.optimisers import ModuleSteps

RAW = Format(codec="none", bits=32, unbiased=False)


def like(parameters: Parameters) -> dict[str, Shape]:
    """What a body must hold to be read as such parameters."""
    return shapes(to_arrays(parameters))


def write(parameters: Parameters, form: Format = RAW, seed: bytes = b"") -> bytes:
    return encode_parameters(to_arrays(parameters), form, seed)


def read(body: bytes, expected: dict[str, Shape], form: Format = RAW) -> Parameters:
    """Raises InvalidBody."""
    return from_arrays(decode_parameters(body, expected, form))


def raw_encoding(shared_module: Parameters) -> UpdateEncoding:
    expected = like(shared_module)
    return UpdateEncoding(
        broadcast=lambda _round, parameters: write(parameters),
        received=lambda body: read(body, expected),
        read=lambda body, _received, _bits: read(body, expected),
    )


def raw_update(body: bytes, work: Work) -> Updated:
    """One client's round at full precision. Raises InvalidBody where the body does not fit the model."""
    module = work.build()
    received = read(body, like(parameters_of(module)))
    load_parameters(module, received)
    loss = fit_amended(module, received, work)
    return Updated(write(parameters_of(module)), loss)


def fit_amended(module: nn.Sequential, received: Parameters, work: Work, steps: ModuleSteps | None = None) -> float:
    """What parts put before the training, the training, and what they amend after it; returns the loss."""
    trained, examples = work.augmented(module)
    loss = fit(trained, examples, received, work, steps=steps)
    work.amend(module, received)
    return loss


def fit(
    module: nn.Sequential,
    examples: Examples,
    received: Parameters,
    work: Work,
    *,
    steps: ModuleSteps | None = None,
    on_step: Callable[[int], None] | None = None,
) -> float:
    """E local epochs in place on these rows; returns the loss. See `train` for `steps` and `on_step`."""
    spec, labels = work.spec, examples.labels
    if labels is None:
        raise ValueError("a client's rows need labels")
    return train(
        module,
        examples.inputs,
        labels,
        epochs=work.epochs,
        batch_rows=spec.train.batch_rows,
        optimiser=msgspec.structs.replace(spec.train.optimiser, rate=work.rate),
        seed=work.seed,
        regression=spec.job.task == "regression",
        proximal=spec.train.proximal,
        anchor=received,
        weights=examples.weights,
        steps=steps,
        on_step=on_step,
    )


def digest(body: bytes) -> bytes:
    """SHA-256 of a body, 32 bytes: how a model or a backbone is named."""
    return hashlib.sha256(body).digest()
