"""Parts of the recipes that need no network, against what their formats and papers say."""

from __future__ import annotations

import struct
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.recipes.byte_pairs import byte_letters, encode
from benchmarks.recipes.gguf import read_gguf
from benchmarks.recipes.magika import features
from benchmarks.recipes.photographs import planes
from benchmarks.recipes.ppocr import characters, edits, read
from benchmarks.recipes.sounds import mel_bands, spectrum
from benchmarks.recipes.speech import frames


def text(value):
    return struct.pack("<Q", len(value)) + value.encode()


def test_gguf_holds_what_was_written(tmp_path):
    plain = np.array([[1.5, -2, 3]], np.float32)
    nibbles = np.arange(32) % 16
    packed = (nibbles[:16] | nibbles[16:] << 4).astype(np.uint8)
    q4 = np.array([0.5, -1], np.float16).tobytes() + packed.tobytes()
    codes = np.arange(-16, 16, dtype=np.int8)
    q8 = np.array([0.25], np.float16).tobytes() + codes.tobytes()
    header = struct.pack("<4sIQQ", b"GGUF", 3, 3, 2)
    header += text("name") + struct.pack("<I", 8) + text("tiny")
    header += text("list") + struct.pack("<IIQ3i", 9, 5, 3, 7, -8, 9)
    # Axes are written fastest first.
    for name, shape, kind, at in (("a", (3, 1), 0, 0), ("b", (16, 2), 3, 32), ("c", (32,), 8, 64)):
        header += text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, at)
    body = b"".join(part.ljust(32, b"\0") for part in (plain.tobytes(), q4)) + q8
    path = tmp_path / "tiny.gguf"
    path.write_bytes(header + b"\0" * (-len(header) % 32) + body)
    metadata, tensors = read_gguf(path)
    assert metadata == {"name": "tiny", "list": [7, -8, 9]}
    np.testing.assert_array_equal(tensors["a"], plain)
    np.testing.assert_array_equal(tensors["b"], (nibbles * 0.5 - 1).reshape(2, 16))
    np.testing.assert_array_equal(tensors["c"], codes * 0.25)


def test_other_files_are_no_gguf(tmp_path):
    path = tmp_path / "other"
    path.write_bytes(struct.pack("<4sIQQ", b"GGML", 3, 0, 0))
    with pytest.raises(ValueError, match="not GGUF"):
        read_gguf(path)


def test_bytes_have_the_letters_of_gpt2():
    letters = byte_letters()
    assert len(set(letters.values())) == 256
    assert (letters[ord(" ")], letters[ord("\n")], letters[ord("A")]) == ("Ġ", "Ċ", "A")


def test_earliest_merges_come_first():
    merges = [("l", "o"), ("lo", "w"), ("e", "r"), ("Ġ", "low"), ("Ġlow", "er")]
    ranks = {pair: rank for rank, pair in enumerate(merges)}
    tokens = ["low", "Ġlower", "1", "2", "Ġ", "!", "e", "s", "t"]
    numbers = {token: number for number, token in enumerate(tokens)}
    # Digits stand alone, and a word takes the space before it along.
    found = encode("low lower12 low!", numbers | {"Ġlow": 9}, ranks)
    assert found == [0, 1, 2, 3, 9, 5]


def test_frames_repeat_the_end_of_the_one_before():
    np.testing.assert_array_equal(
        frames(np.arange(1, 8, dtype=np.float32), 3, 2), [[0, 0, 1, 2, 3], [2, 3, 4, 5, 6]]
    )


def test_mel_bands_have_unit_area_and_sit_on_slaneys_scale():
    bands = mel_bands(40, 4096)
    width = 16000 / 4096
    np.testing.assert_allclose(bands.sum(1) * width, 1, rtol=0.02)
    # Linear below 1 kHz: centres lie equally far apart.
    centres = bands.argmax(1)[:10] * width
    np.testing.assert_allclose(np.diff(centres), np.diff(centres).mean(), atol=2 * width)


def test_spectrum_peaks_at_the_tone():
    tone = np.sin(2 * np.pi * 1000 * np.arange(16000) / 16000)
    power = spectrum(tone, 400, 160)
    assert power.shape == (101, 201)
    assert set(power[2:-2].argmax(1)) == {25}


def test_greedy_decoding_drops_repetitions_and_blanks():
    classes = characters({"character": "a\nb"})
    best = [1, 1, 0, 1, 2, 2, 3, 0, 2]
    assert read(np.eye(4)[best], classes) == "aab b"


def test_ends_of_a_file_lose_white_space_and_are_padded():
    row = features(b"  ab ")
    assert row.shape == (2048,)
    assert row[:4].tolist() == [97, 98, 32, 256]
    assert row[-5:].tolist() == [256, 32, 32, 97, 98]


def test_channels_come_first():
    pixels = np.zeros((1, 2, 3, 3), np.uint8)
    pixels[0, 1, 2] = (255, 0, 51)
    np.testing.assert_allclose(planes(pixels, 0.5, 0.5)[0, :, 1, 2], [1, -1, -0.6], rtol=1e-6)


@pytest.mark.parametrize(
    ("text", "other", "least"),
    [("", "", 0), ("", "abc", 3), ("kitten", "sitting", 3), ("saturday", "sunday", 3), ("a b", "ab ", 2)],
)
def test_edits_are_the_fewest(text, other, least):
    assert edits(text, other) == edits(other, text) == least
