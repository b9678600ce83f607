"""Which engines a user may ask for, as plain data: no torch here, so that a command line starts at once."""

from __future__ import annotations

from typing import Literal

EngineName = Literal["auto", "native", "triton", "torch-csr", "scipy-csr", "reference", "torch-dense-fp32"]

DENSE: Literal["torch-dense-fp32"] = "torch-dense-fp32"  # the layer as torch made it
TRITON: Literal["triton"] = "triton"  # the one engine that runs on a GPU
