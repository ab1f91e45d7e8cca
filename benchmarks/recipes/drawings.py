"""Text as pictures: lines, pages, tables and captchas, drawn from real sentences with the font Pillow carries."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.recipes.photographs import pillow
from benchmarks.recipes.sentences import docstring_sentences

LETTERS = "abcdefghijkmnpqrstuvwxyz23456789"


def phrases(count: int, longest: int, cache: Path, seed: int = 0) -> list[str]:
    """Give beginnings of real sentences.

    Args:
        count: How many.
        longest: Characters at most; words stay whole.
        cache: Folder that keeps downloads between runs.
        seed: Seed of the draw.

    Returns:
        The phrases.
    """
    cut = []
    for sentence in docstring_sentences(count, cache, seed):
        words = sentence.split()
        while len(" ".join(words)) > longest and len(words) > 1:
            words.pop()
        cut.append(" ".join(words)[:longest])
    return cut


def line(text: str, height: int, cache: Path) -> Any:
    """Draw one line of text.

    Args:
        text: What it says.
        height: Pixels.
        cache: Folder that keeps downloads between runs.

    Returns:
        A Pillow image, black on white, as wide as the text and a twelfth of the height at either end, about what a
        text detector leaves. With a quarter PP-OCRv4's recogniser itself reads a space at the end of every second line.
    """
    font = pillow(cache, "ImageFont").load_default(height * 0.7)
    margin = height // 12
    width = int(font.getlength(text)) + 2 * margin
    drawn = pillow(cache).new("RGB", (width, height), "white")
    pillow(cache, "ImageDraw").Draw(drawn).text(
        (margin, height // 2), text, fill="black", font=font, anchor="lm"
    )
    return drawn


def page(texts: list[str], side: int, cache: Path) -> Any:
    """Draw lines of text below each other.

    Args:
        texts: What they say.
        side: Pixels of the square's side.
        cache: Folder that keeps downloads between runs.

    Returns:
        A Pillow image.
    """
    drawn = pillow(cache).new("RGB", (side, side), "white")
    font = pillow(cache, "ImageFont").load_default(side / 16)
    brush = pillow(cache, "ImageDraw").Draw(drawn)
    for row, text in enumerate(texts):
        brush.text((side // 16, side * (row + 0.5) / len(texts)), text, fill="black", font=font, anchor="lm")
    return drawn


def table(texts: list[str], columns: int, side: int, cache: Path) -> Any:
    """Draw a ruled table.

    Args:
        texts: Contents of the cells, row by row.
        columns: Cells a row.
        side: Pixels of the longer side.
        cache: Folder that keeps downloads between runs.

    Returns:
        A Pillow image.
    """
    rows = len(texts) // columns
    wide, high = side // columns, min(side // rows, side // 6)
    drawn = pillow(cache).new("RGB", (wide * columns + 1, high * rows + 1), "white")
    brush = pillow(cache, "ImageDraw").Draw(drawn)
    font = pillow(cache, "ImageFont").load_default(high / 3)
    for index, text in enumerate(texts[: rows * columns]):
        left, top = index % columns * wide, index // columns * high
        brush.rectangle((left, top, left + wide, top + high), outline="black", width=2)
        brush.text((left + 6, top + high // 2), text, fill="black", font=font, anchor="lm")
    return drawn


def captcha(text: str, generator: np.random.Generator, cache: Path) -> Any:
    """Draw letters turned and shifted, with lines and dots across them.

    Args:
        text: The letters.
        generator: Draws angles, places and colours.
        cache: Folder that keeps downloads between runs.

    Returns:
        A Pillow image, 160 x 60.
    """
    image, brushes = pillow(cache), pillow(cache, "ImageDraw")
    drawn = image.new("RGB", (160, 60), (240, 240, 235))
    font = pillow(cache, "ImageFont").load_default(40)
    for index, letter in enumerate(text):
        tile = image.new("RGBA", (48, 56), (0, 0, 0, 0))
        colour = tuple(int(part) for part in generator.integers(0, 120, 3))
        brushes.Draw(tile).text((24, 28), letter, fill=(*colour, 255), font=font, anchor="mm")
        tile = tile.rotate(float(generator.uniform(-20, 20)), resample=image.Resampling.BICUBIC)
        drawn.paste(tile, (4 + index * 36, int(generator.integers(-3, 6))), tile)
    brush = brushes.Draw(drawn)
    for _ in range(3):
        ends = [int(part) for part in generator.integers(0, (160, 60, 160, 60))]
        brush.line(ends, fill=(120, 120, 140), width=1)
    for x, y in generator.integers(0, (160, 60), (60, 2)):
        brush.point((int(x), int(y)), fill=(90, 90, 90))
    return drawn


def captchas(count: int, cache: Path) -> tuple[list[str], list[Any]]:
    """Draw captchas of four letters.

    Args:
        count: How many.
        cache: Folder that keeps downloads between runs.

    Returns:
        The letters and the pictures.
    """
    generator = np.random.default_rng(0)
    texts = ["".join(generator.choice(list(LETTERS), 4)) for _ in range(count)]
    return texts, [captcha(text, generator, cache) for text in texts]
