"""Settings of a round that cannot work together, refused before anything is sent (refused_settings.md, X1 to X15).

Each rule is a set of facts that must not hold at once. Facts are read off the terms; a rule whose facts all hold is a
clash, and says why and what to do. A few are kept for ablations and can be waived by name in `rounds.allow`.
"""

from dataclasses import dataclass

from vfl.errors import SpecConflict
from vfl.spec.rounds_settings import BackboneDecoder, CompressedSync, ModelInversion, Rounds, SharedData
from vfl.spec.sections import Optimiser

WAIVABLE = frozenset({"X4", "X5", "undo"})
LARGEST_WORD_BITS = 32
CODECS_WITHOUT_BITS = frozenset({"none", "half"})


@dataclass(frozen=True)
class Facts:
    """What the rules need to know of a job beside its rounds."""

    cohort: int
    clients: int
    """Of the roster."""
    pools_columns: bool
    batch_norm: bool
    regression: bool
    public_rows: bool
    shared_rows: bool
    blocks: tuple[str, ...]
    """Names of the network's blocks; the last cannot be cut behind."""
    widths: tuple[int, ...]
    """Of those blocks, but for the last."""
    client_optimiser: Optimiser


@dataclass(frozen=True)
class Conflict:
    name: str
    facts: frozenset[str]
    why: str
    ways_out: str


def _conflict(name: str, facts: tuple[str, ...], why: str, ways_out: str) -> Conflict:
    return Conflict(name, frozenset(facts), why, ways_out)


CONFLICTS = (
    _conflict(
        "X1",
        ("model_inversion at the aggregator", "secure_sum = true"),
        "inverting needs each client's own model, and the masked sum hides it",
        'Set where = "clients", or secure_sum = false.',
    ),
    _conflict(
        "X2",
        ("secure_sum = true", "a codec other than grid"),
        "masked words add only on one grid that all clients share",
        'Set codec = "grid" (or "auto", which picks it), or secure_sum = false.',
    ),
    _conflict(
        "X2",
        ("secure_sum = true", 'storage = "layers"'),
        "a sum takes each client's whole difference at once, at full precision",
        'Set storage = "model", or secure_sum = false.',
    ),
    _conflict(
        "norm",
        ("secure_sum = true", "reply_norm_limit > 0"),
        "nobody sees a single reply, so none can be measured",
        "Set reply_norm_limit = 0 (clients cut their own differences), or secure_sum = false.",
    ),
    _conflict("X3", ("words of the grid's sum too narrow",), "the sum of the cohort's codes would wrap", ""),
    _conflict(
        "X4",
        ('reply = "parameters"', "fewer than 3 bits"),
        "whole parameters lose each round's small changes at so few bits: training stalls or collapses",
        'Set reply = "difference", or stored_bits and reply_bits to at least 3.',
    ),
    _conflict(
        "X4",
        ("feedback = false", "stored_bits below 5"),
        "what the codec drops each round is lost for good: training stalls or collapses",
        "Set feedback = true, or stored_bits to at least 5.",
    ),
    _conflict(
        "X5",
        ('storage = "layers"', 'rounding = "nearest"'),
        "every update below half a step vanishes",
        'Set rounding = "stochastic", or storage = "model".',
    ),
    _conflict(
        "X5",
        ('storage = "layers"', "an optimiser with state at full precision"),
        "its state is as large as the weights that are kept small",
        "Use sgd without momentum, or keep_optimiser = true, which keeps momentum at 8 bits.",
    ),
    _conflict(
        "X6",
        ("model_inversion", "a regression"),
        "there are no classes to balance",
        "Leave the part out.",
    ),
    _conflict(
        "X7",
        ('model_inversion with space = "inputs"', "backbone_decoder"),
        "the frozen backbone's statistics describe the aggregator's rows, not the clients'",
        'Set space = "features".',
    ),
    _conflict(
        "X8",
        ('derive = "student"', "no public rows"),
        "there are no rows on which a student can be aligned",
        "Name rows without labels under the aggregator's [data] public, or use another derive.",
    ),
    _conflict(
        "X8",
        ('carry_back = "distil"', "no public rows"),
        "there are no rows on which to distil",
        'Name rows without labels under the aggregator\'s [data] public, or use carry_back = "copy" or "delta".',
    ),
    _conflict(
        "X8",
        ("carry_back by copy or delta", "decoders of different shape"),
        "nothing of the trained decoder fits the first model's",
        "",
    ),
    _conflict(
        "X9", ("the model is not cut at a named block",), "the decoder must be the blocks behind a named one", ""
    ),
    _conflict(
        "X10",
        ("shared_data", "no shared rows"),
        "there are no rows on which to adjust the mean",
        "Name labelled rows under the aggregator's [data] shared, or leave the part out.",
    ),
    _conflict(
        "undo",
        ("shared_data", "undo = false"),
        "shared rows with wrong labels would then pull the model down, unseen",
        'Set undo = true; for an ablation, allow = ["undo"].',
    ),
    _conflict(
        "X11",
        ("privacy.epsilon > 0", 'reply = "parameters"'),
        "noise is calibrated to a clipped difference",
        'Set reply = "difference", or epsilon = 0.',
    ),
    _conflict(
        "X12",
        ("privacy.epsilon > 0", 'norm = "batch"'),
        "norm statistics would leave outside the clipped vector, unprotected",
        'Set model.norm = "group" or "none", or epsilon = 0.',
    ),
    _conflict(
        "X14",
        ("secure_sum = true", "fewer than 3 clients per sum"),
        "the sum shows each of two clients the other's update",
        "Choose at least three clients per round, or secure_sum = false.",
    ),
    _conflict(
        "X14",
        ("model.input_range left out", "fewer than 3 clients in the roster"),
        "means and deviations of columns are then pooled by a secure sum, and a sum over two shows each the other's",
        "Agree on ranges: model.input_range = [low, high] for all columns, or { age = [0.0, 120.0], ... } for each.",
    ),
)


def check(rounds: Rounds, facts: Facts) -> None:
    """Raises SpecConflict for the first clash that is not waived."""
    holds = _holding(rounds, facts)
    for waiver in rounds.allow:
        if waiver not in WAIVABLE:
            raise SpecConflict(
                f"job specification: rounds.allow names {waiver!r}", fix=f"It can waive {', '.join(sorted(WAIVABLE))}."
            )
    for clash in CONFLICTS:
        if clash.facts <= holds.keys() and clash.name not in rounds.allow:
            ways_out = clash.ways_out or next(holds[fact] for fact in clash.facts if holds[fact])
            raise SpecConflict(
                f"job specification: {clash.name}: {' with '.join(sorted(clash.facts))}: {clash.why}", fix=ways_out
            )


def _holding(rounds: Rounds, facts: Facts) -> dict[str, str]:
    """The facts of a job; the value is a way out that depends on its numbers."""
    adjusted = "shared_data" in rounds.parts
    facts_and_truth = {
        "secure_sum = true": rounds.secure_sum,
        "reply_norm_limit > 0": rounds.reply_norm_limit > 0,
        "privacy.epsilon > 0": rounds.privacy.epsilon > 0,
        'norm = "batch"': facts.batch_norm,
        "fewer than 3 clients per sum": facts.cohort < 3,
        "model.input_range left out": facts.pools_columns,
        "fewer than 3 clients in the roster": facts.clients < 3,
        "no public rows": not facts.public_rows,
        "a regression": facts.regression,
        "backbone_decoder": "backbone_decoder" in rounds.parts,
        "shared_data": adjusted,
        "no shared rows": not facts.shared_rows,
        "undo = false": adjusted and not (rounds.shared_data or SharedData()).undo,
    }
    holding = {fact: "" for fact, holds in facts_and_truth.items() if holds}
    if "compressed_sync" in rounds.parts:
        holding |= _of_compression(rounds.compressed_sync or CompressedSync(), facts, secure_sum=rounds.secure_sum)
    if "model_inversion" in rounds.parts:
        holding |= _of_inversion(rounds.model_inversion or ModelInversion())
    if "backbone_decoder" in rounds.parts:
        holding |= _of_backbone(rounds.backbone_decoder or BackboneDecoder(), facts)
    return holding


def _of_compression(terms: CompressedSync, facts: Facts, *, secure_sum: bool) -> dict[str, str]:
    holding: dict[str, str] = {f'reply = "{terms.reply}"': "", f'storage = "{terms.storage}"': ""}
    if terms.codec not in {"auto", "grid"}:
        holding["a codec other than grid"] = ""
    if not terms.feedback:
        holding["feedback = false"] = ""
    if terms.codec not in CODECS_WITHOUT_BITS:
        stored = min([terms.stored_bits, *terms.tensor_bits.values()])
        if min(stored, terms.reply_bits) < 3:
            holding["fewer than 3 bits"] = ""
        if stored < 5:
            holding["stored_bits below 5"] = ""
    if terms.rounding == "nearest":
        holding['rounding = "nearest"'] = ""
    optimiser = facts.client_optimiser
    if optimiser.name != "sgd" or (optimiser.momentum and not terms.keep_optimiser):
        holding["an optimiser with state at full precision"] = ""
    if terms.codec == "grid" or (terms.codec == "auto" and secure_sum):
        holding |= _of_grid(terms, facts.cohort)
    return holding


def _of_grid(terms: CompressedSync, cohort: int) -> dict[str, str]:
    bits, word = max([terms.reply_bits, *terms.tensor_bits.values()]), terms.word_bits or LARGEST_WORD_BITS
    carry = (cohort - 1).bit_length()
    if bits + carry <= word:
        return {}
    ways = [f"at most {1 << (word - bits)} clients per round at {bits} bits"] if word >= bits else []
    ways += [f"at most {word - carry} bits for {cohort} clients"] if word > carry else []
    ways += [f"word_bits = {bits + carry}"] if bits + carry <= LARGEST_WORD_BITS else []
    return {"words of the grid's sum too narrow": f"Choose {', or '.join(ways)}; word_bits = 0 takes what fits."}


def _of_inversion(terms: ModelInversion) -> dict[str, str]:
    if terms.where == "none":  # as if the part were absent
        return {}
    holding = {"model_inversion": "", f'model_inversion with space = "{terms.space}"': ""}
    if terms.where != "clients":
        holding["model_inversion at the aggregator"] = ""
    return holding


def _of_backbone(terms: BackboneDecoder, facts: Facts) -> dict[str, str]:
    holding: dict[str, str] = {f'derive = "{terms.derive}"': "", f'carry_back = "{terms.carry_back}"': ""}
    if terms.carry_back in {"copy", "delta"}:
        holding["carry_back by copy or delta"] = ""
    cuts = facts.blocks[:-1]
    if terms.cut not in cuts:
        holding["the model is not cut at a named block"] = f"Set cut to one of {', '.join(cuts)}."
    elif terms.derive == "student" and not terms.translator:
        width = facts.widths[cuts.index(terms.cut)]
        if terms.student_hidden[-1:] != (width,):
            holding["decoders of different shape"] = (
                f'Set translator = true, end student_hidden with {width}, or set carry_back = "distil" or "best".'
            )
    return holding
