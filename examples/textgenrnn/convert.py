"""Keras weights as a PyTorch state dict. Needs h5py: pip install 'rnnprune[keras]'."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from rnnprune.formats.keras import from_keras


def read_arrays(source: Path) -> dict[str, np.ndarray]:
    """`layer/name` -> array; inside the file it is `layer/layer/name:0`."""
    try:
        import h5py
    except ImportError:
        sys.exit("convert: reading Keras weights needs h5py: pip install 'rnnprune[keras]'")
    arrays: dict[str, np.ndarray] = {}

    def keep(path: str, item: object) -> None:
        if isinstance(item, h5py.Dataset):
            arrays[path.partition("/")[2].removesuffix(":0")] = item[...]

    with h5py.File(source, "r") as file:
        file.visititems(keep)
    return arrays


def convert(arrays: dict[str, np.ndarray]) -> dict[str, Tensor]:
    """Keras multiplies rows by matrices [inputs, outputs], torch the other way round."""
    state = {
        "embedding.weight": torch.from_numpy(arrays["embedding/embeddings"]),
        "attention.weight": torch.from_numpy(arrays["attention/attention_W"]).T.contiguous(),
        "output.weight": torch.from_numpy(arrays["output/kernel"]).T.contiguous(),
        "output.bias": torch.from_numpy(arrays["output/bias"]),
    }
    for layer in ("rnn_1", "rnn_2"):
        kernel, recurrent, bias = (arrays[f"{layer}/{name}"] for name in ("kernel", "recurrent_kernel", "bias"))
        state |= {f"{layer}.{n}_l0": tensor for n, tensor in from_keras("lstm", kernel, recurrent, bias).items()}
    return state


def convert_file(source: Path, target: Path) -> None:
    torch.save(convert(read_arrays(source)), target)
