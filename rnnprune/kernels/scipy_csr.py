"""Engine `scipy-csr`: scipy.sparse.csr_array, the product that most people try first. One thread, CPU only."""

from __future__ import annotations

import scipy.sparse
import torch
from torch import Tensor

from rnnprune.kernels.api import Engine, Product
from rnnprune.kernels.csr import Csr


def pack(csr: Csr) -> Product:
    """A scipy CSR array with int32 indices."""
    values = csr.values if csr.values.dtype == torch.float64 else csr.values.float()
    matrix = scipy.sparse.csr_array(
        (values.numpy(), csr.col_indices.int().numpy(), csr.crow_indices.int().numpy()), shape=csr.shape
    )

    def product(x: Tensor) -> Tensor:
        return torch.from_numpy(matrix @ x.numpy())

    return product


ENGINE = Engine("scipy-csr", pack)
