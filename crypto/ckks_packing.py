"""Joins the constant coefficients of many CKKS ciphertexts in one, by a binary tree whose nodes each switch a key.

A key switch rounds, so the tree of a group is the same however its branches are dealt out: a branch is what stands at
every so many leaves, and the branches are joined as the tree would have joined them.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tenseal import sealapi

from crypto.ckks_context import Contexts
from crypto.ckks_parameters import RING_DEGREE
from crypto.seal_stream import ciphertext_payload, identifier, load, read_ciphertext, stream

Words = NDArray[np.uint64]


class Packing:
    """With the keys that one key owner has sent for it."""

    def __init__(self, contexts: Contexts, relin_keys: Any, packing_keys: Any, operations: Counter[str]) -> None:
        self._contexts, self._relin_keys, self._packing_keys = contexts, relin_keys, packing_keys
        self._operations = operations

    def of_words(self, leaves: Sequence[Words]) -> Words:
        """A branch of these leaves, polynomials x ring degree each: 2 x ring degree. Empty words are no leaf."""
        return words_of(self.packed([self._loaded(words) for words in leaves]))

    def branches_joined(self, branches: Sequence[Words], width: int) -> Words:
        """Of branches in the order of their first leaves, the whole of a tree of so many leaves."""
        whole = self._joined([self._loaded(words) for words in branches], width)
        return np.zeros((2, RING_DEGREE), np.uint64) if whole is None else words_of(whole)

    def packed(self, leaves: list[Any]) -> Any:
        """One ciphertext whose coefficients at multiples of N/m are m times the leaves' constant coefficients."""
        if len(leaves) == 1:
            return self._leaf(leaves[0])
        return self._node(self.packed(leaves[0::2]), self.packed(leaves[1::2]), len(leaves))

    def _joined(self, branches: list[Any], width: int) -> Any:
        if len(branches) == 1:
            return branches[0]
        return self._node(self._joined(branches[0::2], width // 2), self._joined(branches[1::2], width // 2), width)

    def _node(self, even: Any, odd: Any, width: int) -> Any:
        """Over so many leaves. None where all of them are empty."""
        level = width.bit_length() - 1
        if even is None and odd is None:
            return None
        evaluator, total, difference = self._contexts.release.evaluator, sealapi.Ciphertext(), sealapi.Ciphertext()
        if odd is None:
            total = difference = even
        else:
            shifted = sealapi.Ciphertext()
            evaluator.multiply_plain(odd, self._contexts.monomials[level], shifted)
            if even is None:
                total = shifted
                evaluator.negate(shifted, difference)
            else:
                shifted.scale = even.scale
                evaluator.add(even, shifted, total)
                evaluator.sub(even, shifted, difference)
        rotated = sealapi.Ciphertext()
        evaluator.apply_galois(difference, (1 << level) + 1, self._packing_keys, rotated)
        evaluator.add_inplace(rotated, total)
        self._operations["pack"] += 1
        return rotated

    def _leaf(self, ciphertext: Any) -> Any:
        if ciphertext is not None and ciphertext.size() > 2:
            self._contexts.relinearise.evaluator.relinearize_inplace(ciphertext, self._relin_keys)
            self._operations["relinearise"] += 1
        return ciphertext

    def _loaded(self, words: Words) -> Any:
        if not words.size:
            return None
        context = self._contexts.release
        body = ciphertext_payload(identifier(context.levels[0]), 1.0, words[:, None])
        return load(sealapi.Ciphertext(), context.seal, stream(body))


def words_of(ciphertext: Any) -> Words:
    """Polynomials x ring degree, at the last level; empty for none."""
    return np.zeros((0, RING_DEGREE), np.uint64) if ciphertext is None else read_ciphertext(ciphertext)[:, 0]
