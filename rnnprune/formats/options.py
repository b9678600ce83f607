"""What a user may choose about an exported file, as plain data: no torch here, so that commands start at once."""

from __future__ import annotations

from typing import Literal

ExportFormat = Literal["csr", "bsr", "bitmask", "dense"]
Values = Literal["keep", "fp32", "fp16", "bf16", "int8"]
