"""The pages of docs/results show what the raw figures beside them say: nothing between their marks is typed by hand."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs" / "results"
RAW = sorted(path.name for path in RESULTS.glob("*.json"))
PAGES = sorted(path for path in RESULTS.glob("*.md") if "<!-- end" in path.read_text(encoding="utf-8"))


@pytest.fixture
def pages(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    return importlib.import_module("examples.pages")


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_the_page_shows_its_raw_figures(pages, path):
    page = path.read_text(encoding="utf-8")
    assert pages.rendered(page, RESULTS) == page, "run python -m examples.pages"
    touched = page.replace("figure | dense |", "figure, edited | dense |").replace("+-", "+- 1")
    for marked in (pages.MARKED, pages.OVERVIEW):
        assert marked.findall(pages.rendered(touched, RESULTS)) == marked.findall(page)


def test_all_raw_figures_are_shown_once(pages):
    shown = [found[1] for path in PAGES for found in pages.MARKED.findall(path.read_text(encoding="utf-8"))]
    assert sorted(shown) == RAW


@pytest.mark.parametrize("name", RAW)
def test_every_run_is_at_90_percent_and_its_sparse_file_answers_alike(name):
    raw = json.loads((RESULTS / name).read_text(encoding="utf-8"))
    for row in raw["rows"] if isinstance(raw, dict) else ():
        assert row["sparsity"] == pytest.approx(0.9, abs=1e-4)
        file = row["figures"]["file"]
        assert file == pytest.approx({figure: row["figures"]["sparse"][figure] for figure in file}, rel=1e-3)
        assert row["max_difference"] < 2e-4
        assert row["metric"] in file


def two_seeds():
    def row(seed, sparse):
        told = {"dense": 1.0, "dense_control": 2.0, "sparse": sparse, "file": sparse}
        return {
            "seed": seed,
            "command": f"rnnprune finetune a.pt --control --seed {seed} " + "--long flag " * 8,
            "figures": {label: {"DER": value} for label, value in told.items()},
            "engine": "native",
            "bytes": {"dense": 100_000, "sparse": 20_000 + 2000 * seed},
            "steps": 1200,
            "seconds": 60.0 * (seed + 1),
            "machine": {"cpu": "Z80", "cores": 1, "torch": "2.13.0"},
            "date": "2026-11-22",
            "max_difference": 1e-6 * (seed + 1),
        }

    return [row(0, 2.01), row(1, 12.0)]


def test_what_is_told_of_two_seeds(pages, tmp_path):
    (tmp_path / "a.json").write_text(json.dumps({"rows": two_seeds()}), encoding="utf-8")
    page = "before\n<!-- figures: a.json -->\nold\n<!-- end -->\nafter\n"
    assert pages.rendered(page, tmp_path).splitlines() == [
        "before",
        "<!-- figures: a.json -->",
        "| figure | dense | control | 90 % | sparse file | against the control, seed by seed |",
        "|---|---|---|---|---|---|",
        "| DER | 1.000 | 2.000 | 7.005 +- 7.064 | 7.005 +- 7.064 | +0.50, +500.0 % |",
        "",
        "- Seeds 0, 1: mean +- standard deviation.",
        "- The sparse file: 21 kB, 21.0% of the dense 100 kB; scored by native.",
        "- The largest difference of any logit between the pruned dense model and `rnnprune.sparsify` of it: 2.0e-06.",
        "- a seed with its control took 1,200 steps, 1 to 2 min; Z80, 1 cores, torch 2.13.0; 2026-11-22.",
        "",
        "```sh",
        f"rnnprune finetune a.pt --control --seed 0{' --long flag' * 6} \\",
        "    --long flag --long flag",
        "```",
        "<!-- end -->",
        "after",
    ]


def test_the_overview_takes_the_figure_that_decides_from_every_page(pages, tmp_path):
    rows = [row | {"metric": "DER", "goal": "min"} for row in two_seeds()]
    (tmp_path / "a.json").write_text(json.dumps({"rows": rows}), encoding="utf-8")
    (tmp_path / "b.json").write_text(json.dumps([{"what": "a single run", "DER": 1.0}]), encoding="utf-8")
    marks = "<!-- figures: a.json -->\n<!-- end -->\n<!-- figures: b.json -->\n<!-- end -->\n"
    (tmp_path / "page.md").write_text(marks, encoding="utf-8")
    assert pages.rendered("<!-- overview -->\n<!-- end -->", tmp_path).splitlines()[2:] == [
        "|---|---|---|---|---|---|---|---|",
        "| [a](page.md) | DER, less is better | 1.000 | 2.000 | 7.005 +- 7.064 | +250.2 % | 21.0% of dense | 2 |",
        "<!-- end -->",
    ]


def test_a_figure_that_was_not_measured_leaves_its_cell_empty_and_a_speed_has_its_own_table(pages, tmp_path):
    (row, _) = two_seeds()
    row["figures"]["file"] = {}
    del row["max_difference"]
    times = {"dense": 3.0, "sparse": 1.5, "ratio": {"q1": 1.9, "median": 2.0, "q3": 2.1}}
    speed = {"what": "one word", "milliseconds": times, "same": 7, "requests": 8, "layers": ["rnn (GRU): native"]}
    (tmp_path / "a.json").write_text(json.dumps({"rows": [row], "speed": speed}), encoding="utf-8")
    told = pages.told(tmp_path / "a.json").splitlines()
    assert "| DER | 1.000 | 2.000 | 2.010 |  | +0.50 % |" in told
    assert any(line.endswith("of it: not measured.") for line in told)
    assert told[-3] == "| one word | 3.00 ms | 1.50 ms | 2.0 (1.9 to 2.1) | 7 of 8 |"
    assert told[-1] == "Engines: rnn (GRU): native."
