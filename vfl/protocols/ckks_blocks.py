"""Steps 3 to 6 of encrypted training on the blocks of a batch, each in whichever process of the label party is free.

A block is loaded, passed through the top model and multiplied out where it is given. The sums over its rows add up
there, over all blocks that come to that place. What several places have is added here and packed by all of them, branch
by branch. Sums are exact and a tree is always the same, so the places and their number do not show in the result. Seeds
are checked here, because a seed must not return in any block; everything else is checked by the process that loads a
block, before SEAL sees it (threat_model.md).
"""

from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache, reduce
from itertools import islice
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from crypto.ckks import PublicMaterial
from crypto.ckks_evaluator import CkksPublicKey
from crypto.ckks_parameters import PRESETS, RING_DEGREE, CkksPreset
from crypto.ckks_sums import EncryptedSums, PackedSums, UnpackedSums, Words, decoded_words, encoded_words
from crypto.noise import complex_gaussian
from crypto.packing import groups_for
from crypto.pieces import HERE, Place, Pool
from vfl.models.polynomial import PolynomialTop
from vfl.models.scorer import Shape

Floats = NDArray[np.float64]

MOST_BRANCHES, FEWEST_LEAVES = 8, 8
NO_LEAF: Words = np.zeros((0, RING_DEGREE), np.uint64)


class Step(msgspec.Struct, frozen=True):
    """What the blocks of a step share: the key, and the top model as it is."""

    preset: str
    weight_limit: float
    values: int
    public: bytes
    relinearise: bytes
    packing: bytes
    shape: tuple[int, int, int, int]
    loss: str
    encrypt_labels: bool
    weights: dict[str, bytes]
    """Each a matrix of `shape`, float64."""
    mixing: bytes
    """Errors x coordinates of the cut error, float64; empty where none goes back."""
    cut_deviation: float


class Block(msgspec.Struct, frozen=True, tag=True):
    """Rows of a batch: ciphertexts, and what the label party has of them; float64."""

    columns: memoryview
    rows: int
    times: int
    own: bytes
    targets: bytes
    weights: bytes | None


class Finish(msgspec.Struct, frozen=True, tag=True):
    """After all blocks of a place."""

    packed: bool
    """Whether its sums are wanted packed, which only those of all blocks can be."""


class Finished(msgspec.Struct, frozen=True):
    """The answer to Finish, or to the leaves of a branch."""

    sums: memoryview
    operations: dict[str, int]


class SummedStep(NamedTuple):
    """Of all blocks of a step."""

    packed: PackedSums
    cut_errors: list[bytes]
    """By block; empty where none goes back."""
    operations: Counter[str]


class StepBlocks:
    """The blocks of one step, given one by one. `key` is the own one, which only joins branches."""

    def __init__(self, pool: Pool, step: Step, key: CkksPublicKey, blocks: int) -> None:
        # One block is done here: another process could only take turns with this one.
        self._pool, self._step, self._key = pool if blocks > 1 else HERE, msgspec.msgpack.encode(step), key
        self._places: Sequence[Place] = self._pool.places(blocks_of_step, self._step)[:blocks]
        self._values, self._given = step.values, 0

    def give(self, columns: bytes, times: int, own: Floats, targets: Floats, weights: Floats | None) -> None:
        """Raises InvalidCiphertext, for this block or one before it."""
        row_weights = None if weights is None else weights.tobytes()
        block = Block(memoryview(columns), len(own), times, own.tobytes(), targets.tobytes(), row_weights)
        self._places[self._given % len(self._places)].give(msgspec.msgpack.encode(block))
        self._given += 1

    def summed(self) -> SummedStep:
        """Raises InvalidCiphertext."""
        alone = len(self._places) == 1
        for place in self._places:
            place.give(msgspec.msgpack.encode(Finish(packed=alone)))
        results = [place.results() for place in self._places]
        finished = [msgspec.msgpack.decode(of_place.pop(), type=Finished) for of_place in results]
        operations = sum((Counter(each.operations) for each in finished), Counter[str]())
        if alone:
            packed = PackedSums.decoded(finished[0].sums, self._values)
        else:
            unpacked = (UnpackedSums.decoded(each.sums, self._values) for each in finished)
            packed = self._packed(reduce(lambda total, more: total.plus(more, self._key.modulus), unpacked), operations)
        cut_errors = [results[number % len(results)][number // len(results)] for number in range(self._given)]
        return SummedStep(packed, cut_errors, operations)

    def _packed(self, sums: UnpackedSums, operations: Counter[str]) -> PackedSums:
        """The trees of all groups, in branches."""
        groups, words = groups_for(self._values), iter(sums.words)
        trees = [[*islice(words, group.values), *[NO_LEAF] * (group.width - group.values)] for group in groups]
        branches = [[tree[start :: _branches(tree)] for start in range(_branches(tree))] for tree in trees]
        pieces = (bytes([len(branch)]) + encoded_words(branch) for of_tree in branches for branch in of_tree)
        packed, whole = self._pool.map(packed_branch, self._step, pieces), []
        for tree in trees:
            of_tree = [msgspec.msgpack.decode(each, type=Finished) for each in islice(packed, _branches(tree))]
            for each in of_tree:
                operations.update(each.operations)
            joined = [np.frombuffer(each.sums, "<u8").reshape(-1, RING_DEGREE) for each in of_tree]
            whole.append(self._key.packing.branches_joined(joined, len(tree)))
        return PackedSums(groups, sums.usual_unit, sums.units, whole)


def _branches(tree: Sequence[Words]) -> int:
    """Into so many a tree is cut: few leaves would cost more on their way than they take."""
    return max(1, min(MOST_BRANCHES, len(tree) // FEWEST_LEAVES))


def step_of(
    preset: CkksPreset, values: int, material: PublicMaterial, top: PolynomialTop, mixing: Floats, cut_deviation: float
) -> Step:
    shape = top.shape
    return Step(
        preset.name,
        preset.weight_limit,
        values,
        *material,
        (shape.embedding, shape.own, shape.hidden, shape.outputs),
        top.loss,
        top.encrypt_labels,
        {name: matrix.tobytes() for name, matrix in top.matrices().items()},
        mixing.tobytes(),
        cut_deviation,
    )


def blocks_of_step(shared: bytes) -> Callable[[bytes], bytes]:
    """KeepingWork: the cut error of each Block, then Finished."""
    return _Blocks(*_read(shared))


class _Blocks:
    def __init__(self, step: Step, key: CkksPublicKey) -> None:
        key.operations.clear()
        self._step, self._shape, self._key = step, Shape(*step.shape), key
        matrices = {
            name: np.frombuffer(step.weights[name]).reshape(of_matrix)
            for name, of_matrix in self._shape.matrices.items()
        }
        self._top = PolynomialTop(self._shape, matrices, step.loss, encrypt_labels=step.encrypt_labels)
        self._mixing = np.frombuffer(step.mixing).reshape(self._shape.joined, -1)
        self._sums = EncryptedSums(step.values)

    def __call__(self, piece: bytes) -> bytes:
        part: Block | Finish = msgspec.msgpack.decode(piece, type=Block | Finish)
        if isinstance(part, Block):
            return self._add(part)
        sums = self._key.pack(self._sums) if part.packed else self._key.words_of_sums(self._sums)
        return msgspec.msgpack.encode(Finished(memoryview(sums.encoded()), dict(self._key.operations)))

    def _add(self, block: Block) -> bytes:
        embedding = self._key.load_checked(block.columns, self._shape.embedding, block.rows, block.times)
        own = np.frombuffer(block.own).reshape(block.rows, self._shape.own)
        targets = np.frombuffer(block.targets).reshape(block.rows, self._shape.outputs)
        weights = None if block.weights is None else np.frombuffer(block.weights)
        passes = self._top.passes(self._key, embedding, own, targets, weights)  # 3 to 6
        self._key.add_products(self._sums, passes.products)
        if not self._mixing.size:
            return b""
        noise = complex_gaussian((block.rows, self._mixing.shape[1]), self._step.cut_deviation)
        return self._key.cut_errors(passes.joined_errors, self._mixing, noise)


def packed_branch(shared: bytes, leaves: bytes) -> bytes:
    """Work: one branch of a tree, Finished."""
    _, key = _read(shared)
    key.operations.clear()
    words = key.packing.of_words(decoded_words(memoryview(leaves)[1:], leaves[0]))
    return msgspec.msgpack.encode(Finished(memoryview(words.tobytes()), dict(key.operations)))


@lru_cache(maxsize=1)
def _read(shared: bytes) -> tuple[Step, CkksPublicKey]:
    step = msgspec.msgpack.decode(shared, type=Step)
    material = PublicMaterial(step.public, step.relinearise, step.packing)
    return step, _public_key(step.preset, step.weight_limit, step.values, material)


@lru_cache(maxsize=1)
def _public_key(preset: str, weight_limit: float, values: int, material: PublicMaterial) -> CkksPublicKey:
    """Kept for the next steps under the same key."""
    return CkksPublicKey(PRESETS[preset].for_weights(weight_limit), material, values)
