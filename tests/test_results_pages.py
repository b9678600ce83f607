"""The pages of docs/results that examples/whole_path.py makes show what the raw figures beside them say."""

import importlib.util
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = ("arabic_diacritizer", "classify", "silero_vad", "tag")


@pytest.fixture(scope="module")
def whole_path():
    spec = importlib.util.spec_from_file_location("whole_path", ROOT / "examples" / "whole_path.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", PAGES)
def test_the_page_shows_its_raw_figures(whole_path, name):
    rows = json.loads((ROOT / "docs" / "results" / f"{name}.json").read_text(encoding="utf-8"))["rows"]
    page = (ROOT / "docs" / "results" / f"{name}.md").read_text(encoding="utf-8")
    assert whole_path.table(rows) in page
    for row in rows:
        assert row["sparsity"] == pytest.approx(0.9, abs=1e-4)
        assert row["figures"]["file"] == pytest.approx(row["figures"]["sparse"], rel=1e-3)


def test_a_table_of_two_seeds(whole_path):
    rows = [
        {
            "seed": seed,
            "figures": {
                "dense": {"DER": 1.0},
                "dense_control": {"DER": 2.0},
                "sparse": {"DER": told},
                "file": {"DER": told},
            },
        }
        for seed, told in ((0, 2.0), (1, 3.0))
    ]
    assert whole_path.table(rows).splitlines() == [
        "| seed | figure | dense | control | sparse | sparse file | sparse - control | relative |",
        "|---|---|---|---|---|---|---|---|",
        "| 0 | DER | 1.0000 | 2.0000 | 2.0000 | 2.0000 | 0.0000 | +0.00 % |",
        "| 1 | DER | 1.0000 | 2.0000 | 3.0000 | 3.0000 | 1.0000 | +50.00 % |",
        "| mean | DER | 1.0000 +- 0.0000 | 2.0000 +- 0.0000 | 2.5000 +- 0.7071 | 2.5000 +- 0.7071 | 0.5000 +- 0.7071 "
        "| +25.00 +- 35.36 % |",
    ]
