"""The demonstration's model is all-MiniLM-L6-v2, not noise: it knows which sentences mean the same."""

from __future__ import annotations

import math
from importlib import metadata
from pathlib import Path

import minilm
import numpy as np
import pytest
from minilm import DIMENSIONS, MiniLM, packaged_model

from fakes.models import flip_bit, minilm_directory
from weighbridge.attester.weights import measure

PAIRS = [
    ("A man is eating food.", "A man is eating a piece of bread."),
    ("The harbour froze in January.", "In winter the port was covered with ice."),
    ("How do I reset my password?", "I forgot my login credentials, how can I recover my account?"),
    ("The stock market fell sharply today.", "Shares dropped steeply on Wall Street."),
    ("She plays the violin in an orchestra.", "The musician performs on a string instrument."),
]
SENTENCES = [sentence for pair in PAIRS for sentence in pair]


@pytest.fixture(scope="module")
def model() -> MiniLM:
    return MiniLM.load(packaged_model())


def similarities(model: MiniLM, sentences: list[str]) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    vectors = model.embed(sentences).vectors
    return vectors @ vectors.T


def test_pairs_of_like_meaning_stand_out(model: MiniLM) -> None:
    """Measured: pairs score 0.56 to 0.76, everything else -0.10 to 0.14."""
    found = similarities(model, SENTENCES)
    same = [found[2 * index, 2 * index + 1] for index in range(len(PAIRS))]
    other = [found[i, j] for i in range(len(SENTENCES)) for j in range(i) if i // 2 != j // 2]
    assert min(same) > 0.5
    assert max(other) < 0.25


def test_agrees_with_the_published_example(model: MiniLM) -> None:
    """The similarities that sbert.net prints for this model in its first example, to four digits."""
    found = similarities(model, ["The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium."])
    assert found == pytest.approx(
        np.array([[1.0, 0.6660, 0.1046], [0.6660, 1.0, 0.1411], [0.1046, 0.1411, 1.0]]), abs=1e-4
    )


def test_vectors_have_length_one_and_do_not_depend_on_the_batch(model: MiniLM) -> None:
    together = model.embed(SENTENCES)
    assert together.vectors.shape == (10, DIMENSIONS)
    assert together.vectors.dtype == np.float32
    assert np.linalg.norm(together.vectors, axis=1) == pytest.approx(np.ones(10), abs=1e-5)
    alone = np.concatenate([model.embed([sentence]).vectors for sentence in SENTENCES])
    assert together.vectors == pytest.approx(alone, abs=1e-5)


def test_tokens_are_counted_with_both_marks_and_cut(model: MiniLM) -> None:
    assert model.embed(["A man is eating food.", "word " * 1000]).tokens == (8, 256)


def test_corrupted_weights_give_other_vectors(model: MiniLM, tmp_path: Path) -> None:
    """One exponent bit of the first weight of a layer: that weight counts sixteenfold, and it shows (measured 6e-4)."""
    source = minilm_directory()
    for name in ("model.safetensors", "tokenizer.json"):
        (tmp_path / name).write_bytes((source / name).read_bytes())
    tensors = {tensor.name: tensor for tensor in measure(tmp_path).files[0].tensors}
    offset = tensors["encoder.layer.0.intermediate.dense.weight"].offset
    flip_bit(tmp_path / "model.safetensors", offset + 3, 1)
    corrupted = MiniLM.load(tmp_path).embed(SENTENCES).vectors
    assert np.abs(corrupted - model.embed(SENTENCES).vectors).max() > 1e-4


def test_gelu_is_exact_to_single_precision() -> None:
    points = np.linspace(-8, 8, 4001, dtype=np.float32)
    exact = [0.5 * x * (1 + math.erf(x / math.sqrt(2))) for x in points.astype(float)]
    assert minilm._gelu(points) == pytest.approx(np.array(exact), abs=1e-6)


def test_missing_package_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", missing)
    with pytest.raises(FileNotFoundError, match="scripts/setup"):
        packaged_model()


def test_an_adapter_changes_the_vectors_and_one_of_zeros_does_not(model: MiniLM) -> None:
    random = np.random.default_rng(1)
    a, b = (random.standard_normal(shape).astype(np.float32) for shape in ((4, DIMENSIONS), (DIMENSIONS, 4)))
    before = model.embed(SENTENCES).vectors

    def change(scale: float) -> float:
        adapted = model.adapted({"lora_A.weight": a, "lora_B.weight": b * np.float32(scale)})
        return float(np.abs(adapted.embed(SENTENCES).vectors - before).max())

    assert change(0) == 0
    assert change(0.01) > 1e-3
