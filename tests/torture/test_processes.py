"""Several processes: one set of masks, one stop, one skipped step; and one that loses the others says so."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import ranks
import torch.distributed as dist
from forks import exit_code
from shared_task import write_task
from torch import Tensor

from rnnprune.cli.app import app
from rnnprune.errors import Interrupted
from rnnprune.pruning.options import PruningOptions, Timing
from rnnprune.training.recipe import Recipe
from rnnprune.training.workers import Workers, hash_of
from rnnprune.workflows.finetune import FinetuneRequest, Observer, finetune
from rnnprune.workflows.subject import TaskChoice

pytestmark = [pytest.mark.torture, pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")]

RECIPE = Recipe(40, lr=0.01)
PRUNING = PruningOptions(0.8, timing=Timing(frequency=2))
UPDATES = 9  # at 4, 6, ..., 20; 2 is where the schedule starts


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_task()


def request(run: str, **more: Any) -> FinetuneRequest:
    return replace(
        FinetuneRequest(Path("dense.pt"), TaskChoice("shared.py:make"), PRUNING, RECIPE, out=Path(run)), **more
    )


def losses(run: str) -> list[float]:
    return [json.loads(line)["loss"] for line in Path(run, "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("world_size", [2, 4])
def test_all_processes_have_the_same_masks_at_every_update(world_size: int) -> None:
    def act(rank: int) -> None:
        share, hashes = Workers.share, list[str]()

        def spy(self: Workers, masks: Sequence[Tensor]) -> list[Tensor]:
            if rank:  # whatever another process would have decided does not count
                masks = [mask.roll(1) for mask in masks]
            shared = share(self, masks)
            hashes.append(hash_of(shared))
            return shared

        Workers.share = spy  # type: ignore[method-assign]
        finetune(request("run"))
        Path(f"hashes{rank}.txt").write_text("\n".join(hashes))

    assert ranks.run(world_size, act) == [0] * world_size, ranks.told(world_size)
    found = [Path(f"hashes{rank}.txt").read_text().split() for rank in range(world_size)]
    assert found == [found[0]] * world_size
    assert len(found[0]) == len(set(found[0])) == UPDATES
    print(f"\n{world_size} gloo ranks: {len(found[0])} mask updates, equal hashes at each")


def test_masks_that_differ_stop_the_run() -> None:
    def act(rank: int) -> None:
        real = dist.broadcast

        def losing(mask: Tensor, source: int) -> None:
            real(mask, source)
            mask.zero_()

        if rank:
            dist.broadcast = losing
        app(["finetune", "dense.pt", "--task", "shared.py:make", "--steps", "40", "--out", "run"])

    codes = [exit_code(child) for child in ranks.start(2, act)]
    assert codes == [5, 5], ranks.told(2)
    assert "the masks of rank [1] are not those of rank 0" in ranks.told(2)


def test_two_halves_of_a_batch_make_the_steps_of_the_whole() -> None:
    write_task(dropout=0.0)
    recipe = replace(RECIPE, steps=50)
    finetune(request("one", recipe=recipe))
    assert ranks.run(2, lambda rank: finetune(request("two", recipe=recipe))) == [0, 0], ranks.told(2)  # noqa: ARG005
    one, two = losses("one"), losses("two")
    assert len(one) == len(two) == 50
    worst = max(abs(a - b) / a for a, b in zip(one, two, strict=True))
    assert worst <= 1e-6
    print(f"\n2 ranks x half batch against 1 x batch, 50 steps: loss within {worst:.1e} relative")


def test_what_is_not_finite_in_one_process_skips_the_step_in_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAN", "1")

    def act(rank: int) -> None:
        seen = list[int]()

        class Watch(Observer):
            def step(self, phase: str, record: Any) -> None:  # noqa: ARG002
                seen.append(record.step)

        finetune(request("run", recipe=replace(RECIPE, steps=20)), Watch())
        if rank == 0:
            Path("seen.txt").write_text(json.dumps(seen))

    assert ranks.run(2, act) == [0, 0], ranks.told(2)
    assert json.loads(Path("seen.txt").read_text()) == list(range(1, 21))
    assert all(map(bool, losses("run")))


def test_a_signal_to_one_stops_all_after_the_same_step_and_the_run_goes_on_to_the_bit() -> None:
    assert ranks.run(2, lambda rank: finetune(request("whole"))) == [0, 0], ranks.told(2)  # noqa: ARG005

    def act(rank: int) -> None:
        class Stops(Observer):
            def step(self, phase: str, record: Any) -> None:  # noqa: ARG002
                if record.step == 9:
                    signal.raise_signal(signal.SIGTERM)

        try:
            finetune(request("run"), Stops())
        except Interrupted as error:
            Path(f"stopped{rank}.txt").write_text(str(error))
            sys.exit(error.exit_code)

    assert ranks.run(2, act) == [143, 143], ranks.told(2)
    assert {Path(f"stopped{rank}.txt").read_text() for rank in (0, 1)} == {
        "stopped after step 9; the same command goes on from run/.unfinished/state"
    }
    assert ranks.run(2, lambda rank: finetune(request("run"))) == [0, 0], ranks.told(2)  # noqa: ARG005
    for name in ("model.safetensors", "metrics.jsonl"):
        assert Path("run", name).read_bytes() == Path("whole", name).read_bytes()


def test_another_number_of_processes_goes_on_and_says_that_the_bits_may_differ() -> None:
    def act(rank: int) -> None:  # noqa: ARG001
        class Stops(Observer):
            def step(self, phase: str, record: Any) -> None:  # noqa: ARG002
                if record.step == 9:
                    signal.raise_signal(signal.SIGTERM)

        finetune(request("run"), Stops())

    assert ranks.run(2, act) == [99, 99]
    notes = list[str]()

    class Notes(Observer):
        def note(self, text: str) -> None:
            notes.append(text)

    assert finetune(request("run"), Notes()) is not None
    assert notes == [
        "going on after step 9 (pruning), from run/.unfinished/state",
        "not to the bit what an uninterrupted run would give: processes was 2, is 1",
    ]
    assert len(losses("run")) == 40


def test_a_process_that_loses_the_other_says_so_and_can_be_gone_on_with(monkeypatch: pytest.MonkeyPatch) -> None:
    for number, (lost, where) in enumerate(((1, "start"), (0, 1), (1, 9), (0, "evaluation"))):
        monkeypatch.setenv("PERISH", f"{lost} {where}")
        command = ["finetune", "dense.pt", "--task", "shared.py:make", "--steps", "40", "--out", f"run{number}"]
        codes = ranks.run(2, lambda rank, command=command: app(command))  # type: ignore[misc]  # noqa: ARG005
        survivor = 1 - lost
        assert codes[lost] == -signal.SIGKILL
        assert codes[survivor] == 143, ranks.told(2)
        told = Path(f"stderr{survivor}.txt").read_text()
        assert f"rnnprune: interrupted; rank {survivor} lost another of the 2 processes (" in told
        assert "the same command goes on from the last state that was saved" in told
        assert "Traceback" not in told
        Path("perished0").unlink()
    print("\na process that loses its peer in 4 places: exit 143, one sentence")
