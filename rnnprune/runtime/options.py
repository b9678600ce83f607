"""Which engines a user may ask for, as plain data: no torch here, so that a command line starts at once."""

from __future__ import annotations

from typing import Literal

EngineName = Literal["auto", "native", "triton", "torch-csr", "scipy-csr", "reference", "torch-dense-fp32"]

DENSE: Literal["torch-dense-fp32"] = "torch-dense-fp32"  # the layer as torch made it
INT8: Literal["torch-dense-int8"] = "torch-dense-int8"  # the same, quantized by torch: a rival, not an engine of ours
ScoringEngine = Literal[EngineName, "torch-dense-int8"]  # what `evaluate` can score with
TRITON: Literal["triton"] = "triton"  # the one engine that runs on a GPU
