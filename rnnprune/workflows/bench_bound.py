"""The least time in which an engine's own format can do a piece of work on this machine.

The larger of two times. Loads: every nonzero of an unstructured matrix loads one float of x and an eighth of a vector
of values; a block shares the loads of x between its rows; a batch loads B / 8 vectors of x and broadcasts the value.
Bytes: the weights, from wherever so many bytes lie. Gates, barriers and calls are not counted.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

from rnnprune.workflows.probe import Probe
from rnnprune.workflows.rivals import Work

LANES = 8  # float32 in a vector load
INPUT_TILE = 16  # columns at a time in the input product of a sequence


class Bound(NamedTuple):
    """Microseconds, and what sets them: `loads`, or `bytes from L2 / L3 / memory`."""

    us: float
    by: str


class _Product(NamedTuple):
    """One matrix: elements, nonzeros, columns of the right-hand side, and how often it runs."""

    numel: int
    nnz: int
    batch: int
    times: float


def bound(probe: Probe, work: Work, engine: str, nbytes: int, memory: bool) -> Bound:
    """For this engine, whose weights take `nbytes` in all."""
    products = list(_products(work))
    loads = sum(product.times * _loads(engine, product) for product in products)
    size = sum(_size(engine, product) for product in products)
    read = sum(product.times * nbytes * _size(engine, product) / size for product in products) if size else 0.0
    level = probe.level(nbytes / work.threads, memory)
    by_loads, by_bytes = loads / probe.loads_per_second, read / level.bandwidth
    us = max(by_loads, by_bytes) * 1e6 / work.threads
    return Bound(us, "loads" if by_loads >= by_bytes else f"bytes from {level.name}")


def _products(work: Work) -> Iterator[_Product]:
    batch, steps = work.batch, work.steps
    for name, csr in work.piece.csr.items():
        numel, nnz = csr.shape[0] * csr.shape[1], csr.nnz
        if name == "weight_ih_l0" and steps > 1:
            tile = min(INPUT_TILE, batch * steps) if batch < INPUT_TILE else batch
            yield _Product(numel, nnz, tile, batch * steps / tile)
        else:
            yield _Product(numel, nnz, batch, steps)


def _size(engine: str, product: _Product) -> int:
    return product.numel if _is_dense(engine) else product.nnz


def _is_dense(engine: str) -> bool:
    return engine.startswith(("torch-dense", "onnxruntime"))


def _loads(engine: str, product: _Product) -> float:
    """Vector loads of one product; a multiply-add counts like a load, since there is one port of each kind."""
    lanes = 4 * LANES if "int8" in engine else LANES
    vectors = math.ceil(product.batch / LANES)
    if _is_dense(engine):
        return product.numel * product.batch / lanes
    if engine.startswith("native:window"):
        return product.nnz * 2 / LANES  # values and their columns; x stays in registers
    rows = _block_rows(engine)
    if product.batch == 1:
        return product.nnz * (1 / rows + 1 / lanes)
    return product.nnz * (1 + vectors / min(rows, 4))  # four rows at most fit into the registers together


def _block_rows(engine: str) -> int:
    layout = engine.split(":")[1] if engine.startswith("native:") else ""
    return int(layout.partition("x")[0]) if "x" in layout and layout[0].isdigit() else 1
