"""Engine `torch-csr`: torch.sparse CSR tensors, which use MKL on the CPU and cuSPARSE on CUDA."""

from __future__ import annotations

import warnings

import torch

from rnnprune.kernels.api import Engine, Product
from rnnprune.kernels.csr import Csr

INDEX_BYTES = 4


def pack(csr: Csr) -> Product:
    """A torch.sparse_csr matrix with int32 indices and float32 values (there is no CPU product for narrower ones)."""
    values = csr.values if csr.values.dtype == torch.float64 else csr.values.float()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta state")
        matrix = torch.sparse_csr_tensor(
            csr.crow_indices.int(), csr.col_indices.int(), values, csr.shape, check_invariants=True
        )
    return lambda x: matrix @ x


def packed_nbytes(shape: tuple[int, int], nnz: int) -> int:
    """Bytes that `pack` holds for a matrix in float32."""
    return (shape[0] + 1) * INDEX_BYTES + nnz * (INDEX_BYTES + 4)


ENGINE = Engine("torch-csr", pack)
