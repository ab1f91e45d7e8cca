"""BERT's uncased WordPiece tokenizer (Devlin et al., 2018), enough for English sentences."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

import numpy as np


def encode(sentences: Sequence[str], vocabulary: Sequence[str], length: int) -> dict[str, np.ndarray]:
    """Turn sentences into padded token numbers.

    Args:
        sentences: N sentences.
        vocabulary: Pieces in the order of their numbers; a continued piece starts with `##`.
        length: Tokens per row, with `[CLS]` and `[SEP]`; longer sentences are cut.

    Returns:
        `input_ids` and `attention_mask`, int64, N x length.
    """
    number = {piece: index for index, piece in enumerate(vocabulary)}
    ids = np.full((len(sentences), length), number["[PAD]"], np.int64)
    mask = np.zeros((len(sentences), length), np.int64)
    for row, sentence in enumerate(sentences):
        pieces = [piece for word in split_words(sentence) for piece in split_pieces(word, number)]
        tokens = ["[CLS]", *pieces[: length - 2], "[SEP]"]
        ids[row, : len(tokens)] = [number[token] for token in tokens]
        mask[row, : len(tokens)] = 1
    return {"input_ids": ids, "attention_mask": mask}


def split_words(text: str) -> list[str]:
    """Lower the case, drop accents, and split at spaces and around punctuation.

    Args:
        text: A sentence.

    Returns:
        Its words and punctuation marks.
    """
    plain = "".join(c for c in unicodedata.normalize("NFD", text.lower()) if unicodedata.category(c) != "Mn")
    spaced = "".join(f" {c} " if _is_punctuation(c) else c for c in plain)
    return spaced.split()


def split_pieces(word: str, number: dict[str, int]) -> list[str]:
    """Split a word greedily into the longest known pieces.

    Args:
        word: A word.
        number: The vocabulary.

    Returns:
        Pieces, or `[UNK]` alone where some part is unknown.
    """
    pieces: list[str] = []
    start = 0
    while start < len(word):
        prefix = "##" if start else ""
        end = next((e for e in range(len(word), start, -1) if prefix + word[start:e] in number), None)
        if end is None:
            return ["[UNK]"]
        pieces.append(prefix + word[start:end])
        start = end
    return pieces


def _is_punctuation(character: str) -> bool:
    code = ord(character)
    # ASCII symbols such as $ and ~ count as punctuation, though Unicode does not say so.
    ascii_symbol = 33 <= code <= 47 or 58 <= code <= 64 or 91 <= code <= 96 or 123 <= code <= 126
    return ascii_symbol or unicodedata.category(character).startswith("P")
