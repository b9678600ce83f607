"""Products of the triton engine against float64: on a GPU where there is one, else in Triton's interpreter."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError

import pytest
import torch
from torch import Tensor

from rnnprune.errors import UsageError
from rnnprune.kernels import triton_engine
from rnnprune.kernels.csr import csr_from_dense
from rnnprune.kernels.triton_engine import Variant, parse_variant
from rnnprune.kernels.triton_pack import VALUE_DTYPES
from tests.kernels.triton_cases import DEVICE, in_blocks, needs_triton, uneven

MATRICES = {
    "1x1": (torch.full((1, 1), 2.5), "auto"),
    "all zero": (torch.zeros(5, 9), "auto"),
    "uneven, 33x70": (uneven(33, 70), "sell:u16w1"),
    "uneven, 9x300": (uneven(9, 300), "sell:u4w2"),  # rows longer than a tile
    "7x33 fp16": (uneven(7, 33), "sell:fp16:u8w1"),
    "7x33 bf16": (uneven(7, 33), "sell:bf16:u2w1"),
    "wide columns": (in_blocks(2, 65_540, (1, 1), 1e-4), "sell"),
    "wide columns, fp16": (in_blocks(2, 65_540, (1, 1), 1e-4), "sell:fp16"),
    "16x1": (in_blocks(40, 21, (16, 1), 0.3), "16x1:u8w1"),
    "8x4 bf16": (in_blocks(33, 20, (8, 4), 0.3), "8x4:bf16"),
    "4x4": (in_blocks(12, 8, (4, 4), 0.5), "4x4:fp16"),
    "blocks that the weights ignore": (uneven(20, 12), "8x4:u8w1"),
}


def rounded(weight: Tensor, variant: str) -> Tensor:
    """As the engine stores it, so that narrow values are held to the tolerance of float32."""
    parsed = parse_variant(variant)
    assert parsed is not None
    return weight.to(VALUE_DTYPES[parsed.values or "fp32"]).double()


@needs_triton
@pytest.mark.parametrize("columns", [1, 2, 5, 33])
@pytest.mark.parametrize(("weight", "variant"), MATRICES.values(), ids=MATRICES.keys())
def test_the_product_is_that_of_the_dense_matrix(weight: Tensor, variant: str, columns: int) -> None:
    x = torch.randn(weight.shape[1], columns)
    packed = triton_engine.pack(csr_from_dense(weight), variant, DEVICE)
    y = packed(x.to(DEVICE)).cpu()
    expected = rounded(weight, variant) @ x.double()
    assert y.dtype == torch.float32
    assert y.shape == expected.shape
    scale = max(1.0, float(expected.abs().max()))
    assert float((y.double() - expected).abs().max()) < 1e-6 * scale
    if columns == 1:
        assert torch.equal(packed(x[:, 0].to(DEVICE)).cpu(), y[:, 0])


@needs_triton
@pytest.mark.parametrize(("rows", "n"), [(5, 1), (33, 3), (17, 40)])
def test_every_output_is_written_and_nothing_beside_it(rows: int, n: int) -> None:
    """A wider buffer full of NaN: columns beyond n stay NaN, all others become numbers."""
    packed = triton_engine.pack_matrix(csr_from_dense(uneven(rows, 20)), 1, Variant("sell", None, 8, 1), DEVICE)
    y, x = torch.full((rows + 2, n + 3), float("nan"), device=DEVICE), torch.randn(20, n, device=DEVICE)
    triton_engine.multiply(packed, x, y[1 : rows + 1, :n], torch.arange(rows, device=DEVICE, dtype=torch.float32))
    assert not y[1 : rows + 1, :n].isnan().any()
    assert y[1 : rows + 1, n:].isnan().all()
    assert y[[0, -1]].isnan().all()
    assert torch.equal(y[rows // 2 + 1, :n].cpu(), torch.full((n,), float(rows // 2))), "an empty row is its bias"


@needs_triton
def test_more_columns_than_a_grid_has_take_more_launches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton_engine, "MOST_COLUMNS", 4)
    weight, x = uneven(3, 5), torch.randn(5, 9)
    y = triton_engine.pack(csr_from_dense(weight), "sell:u4w1", DEVICE)(x.to(DEVICE)).cpu()
    assert float((y.double() - weight.double() @ x.double()).abs().max()) < 1e-5
    assert triton_engine.pack(csr_from_dense(weight), device=DEVICE)(x[:, :0].to(DEVICE)).shape == (3, 0)


@needs_triton
def test_auto_finds_blocks_and_values_that_lose_nothing() -> None:
    def runs(weight: Tensor) -> str:
        return triton_engine.pack(csr_from_dense(weight), device=DEVICE).runs(1)

    blocks = in_blocks(64, 64, (8, 4), 0.2)
    assert runs(uneven(20, 30)) == "sell"
    assert runs(uneven(20, 30).half().float()) == "sell:fp16"
    assert runs(uneven(20, 30).bfloat16().float()) in ("sell:bf16", "sell:fp16")
    assert runs(torch.full((4, 9), 1e6).bfloat16().float() * torch.eye(4, 9)) == "sell:bf16"
    assert runs(blocks) == "8x4"
    assert runs(blocks.half().float()) == "8x4:fp16"
    assert runs(in_blocks(64, 63, (16, 1), 0.2)) == "16x1"


@pytest.mark.parametrize(
    ("text", "variant"),
    [
        ("", Variant()),
        ("auto", Variant()),
        ("sell", Variant("sell")),
        ("8x4:fp16", Variant("8x4", "fp16")),
        ("16x1:bf16:u4w8", Variant("16x1", "bf16", 4, 8)),
        ("sell:u2w1", Variant("sell", None, 2, 1)),
        ("9x9", None),
        ("sell:int8", None),
        ("sell:u2", None),
        ("fp16", None),
    ],
)
def test_a_variant_is_layout_values_and_tile(text: str, variant: Variant | None) -> None:
    assert parse_variant(text) == variant


@needs_triton
def test_wrong_calls_say_so() -> None:
    csr = csr_from_dense(uneven(6, 10))
    with pytest.raises(UsageError, match=r"expected float32 \[10\] or \[10, B\] on c"):
        triton_engine.pack(csr, device=DEVICE)(torch.ones(9, 2, device=DEVICE))
    with pytest.raises(UsageError, match="variant 'sell9': expected auto, sell or RxC"):
        triton_engine.pack(csr, "sell9", DEVICE)
    with pytest.raises(UsageError, match="16 units per program: a power of two is needed that divides"):
        triton_engine.pack(csr, "8x1:u16w1", DEVICE)
    with pytest.raises(UsageError, match=r"the triton engine runs on c\w+, the weights are on meta; move the module"):
        triton_engine.pack(csr, device=torch.device("meta"))


def test_without_triton_or_without_a_gpu_the_reason_and_the_remedy_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    for found, reason in (
        (missing, r"triton is not installed \(pip install 'rnnprune\[cuda\]', Linux only\)"),
        (lambda _: "2.1.0", r"triton 2.1.0 is too old \(pip install 'triton>=3'\)"),
        (lambda _: "3.9.0", "torch sees no CUDA device .*nvidia-smi"),
    ):
        monkeypatch.setattr(triton_engine, "version", found)
        with pytest.raises(UsageError, match=f"the triton engine is unavailable: {reason}.*choose another engine"):
            triton_engine.pack(csr_from_dense(torch.ones(2, 2)))
