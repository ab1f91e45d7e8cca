"""Real English sentences: the docstrings of published packages, read as text and never imported."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import numpy as np

from benchmarks.recipes.packages import fetch_wheel

SOURCES = ("django==5.2.8", "networkx==3.6.1", "nltk==3.9.2")


def docstring_sentences(count: int, cache: Path, seed: int = 0) -> list[str]:
    """Draw sentences of 6 to 60 words.

    Args:
        count: How many.
        cache: Folder that keeps downloads between runs.
        seed: Seed of the draw.

    Returns:
        Distinct sentences in a fixed order.
    """
    found: dict[str, None] = {}
    for requirement in SOURCES:
        for file in sorted(fetch_wheel(requirement, cache).rglob("*.py")):
            for text in _texts(ast.parse(file.read_text(encoding="utf-8"))):
                found.update(dict.fromkeys(_sentences(text)))
    candidates = list(found)
    chosen = np.random.default_rng(seed).choice(len(candidates), count, replace=False)
    return [candidates[index] for index in chosen]


def _texts(tree: ast.Module) -> list[str]:
    return [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]


def _sentences(text: str) -> list[str]:
    flat = re.sub(r"\s+", " ", text)
    pieces = re.split(r"(?<=[.!?]) (?=[A-Z])", flat)
    prose = re.compile(r"[A-Z](?!.*--)[A-Za-z0-9 ,;:'()-]+[.!?]")
    return [piece for piece in pieces if prose.fullmatch(piece) and 6 <= len(piece.split()) <= 60]
