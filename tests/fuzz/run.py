"""Many files, each judged in a process that a signal, an endless loop or a memory bomb may end: `make fuzz`.

python -m tests.fuzz.run --count 100000 --workers 2
python -m tests.fuzz.run --count 5000000 --state build/fuzz.json --seconds 60    again and again, where it left off
python -m tests.fuzz.run --rebuild 12345 --out victim.bin                        the file of a seed that failed
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

SECONDS_A_FILE = 1.0  # of processor time, so that a busy machine is not told as a hang
MEMORY = 3 * 2**29  # bytes beyond what the process has when it starts
CHUNK = 2500
MOST_FAULTS = 50


def main() -> int:
    """0 where every file was refused or accepted as it should be."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--state", type=Path)
    parser.add_argument("--rebuild", type=int)
    parser.add_argument("--out", type=Path, default=Path("victim.bin"))
    parser.add_argument("--work", type=Path)
    options = parser.parse_args()
    if options.rebuild is not None:
        return rebuild(options.rebuild, options.out)
    if options.work is not None:
        return work(options.first, options.count, options.work)
    return fuzz(options)


def rebuild(seed: int, out: Path) -> int:
    """Write the file of a seed and judge it here, with the whole traceback."""
    from tests.fuzz.judge import judge
    from tests.fuzz.mutate import victim

    out.write_bytes(victim(seed).data)
    print(f"{out}: seed {seed}, from {victim(seed).base!r}: {'accepted' if judge(out, victim(seed)) else 'refused'}")
    return 0


def work(first: int, count: int, folder: Path) -> int:
    """Judge `count` files. The number of the one at hand stands in folder/seed, for whoever finds this process dead."""
    import torch

    from tests.fuzz.judge import judge
    from tests.fuzz.mutate import victim

    torch.set_num_threads(1)
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + MEMORY, held + MEMORY))
    gc.freeze()  # torch and all it imports: else a fifth of the time goes into looking through them
    gc.set_threshold(20_000, 20, 50)
    told = os.open(folder / "seed", os.O_WRONLY | os.O_CREAT)
    path, slowest = folder / "victim", 0.0
    with (folder / "results").open("a") as results:
        tally: Counter[str] = Counter()
        for seed in range(first, first + count):
            os.pwrite(told, b"%20d" % seed, 0)
            made = victim(seed)
            path.unlink(missing_ok=True)
            path.write_bytes(made.data)
            signal.setitimer(signal.ITIMER_PROF, SECONDS_A_FILE)  # SIGPROF ends the process: nobody catches it
            start = time.process_time()
            try:
                tally["accepted" if judge(path, made, seed % 4 == 0) else "refused"] += 1
            except Exception:
                fault = {"seed": seed, "base": made.base, "fault": traceback.format_exc()[-3000:]}
                print(json.dumps(fault), file=results, flush=True)
                tally["faults"] += 1
            slowest = max(slowest, time.process_time() - start)
            signal.setitimer(signal.ITIMER_PROF, 0)
        print(json.dumps({"tally": tally, "slowest": slowest}), file=results, flush=True)
    return 0


def fuzz(options: argparse.Namespace) -> int:
    """Hand out the seeds in chunks, and put together what the workers say or what ended them."""
    state = {"next": options.first, "refused": 0, "accepted": 0, "faults": [], "slowest": 0.0, "seconds": 0.0}
    if options.state and options.state.exists():
        state = json.loads(options.state.read_text())
    start, last = time.monotonic(), options.first + options.count
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as root:
        while state["next"] < last and len(state["faults"]) < MOST_FAULTS:
            if (spent := time.monotonic() - start) > options.seconds:
                break
            chunk = min(-(-(last - state["next"]) // options.workers), CHUNK if options.seconds < 1e9 else 50_000)
            begins = [state["next"] + i * chunk for i in range(options.workers)]
            workers = [Worker(Path(root) / str(i), begin, min(chunk, last - begin)) for i, begin in enumerate(begins)]
            for worker in workers:
                worker.finish(state)
            state["next"] = min(last, state["next"] + chunk * options.workers)
            if options.state:
                state["seconds"] += time.monotonic() - start - spent
                options.state.parent.mkdir(parents=True, exist_ok=True)
                options.state.write_text(json.dumps(state, indent=1))
    for fault in state["faults"]:
        print(f"seed {fault['seed']} ({fault['base']}): {fault['fault']}")
    files, seconds = state["refused"] + state["accepted"], time.monotonic() - start
    print(
        f"{files:,} files, {state['refused']:,} refused, {state['accepted']:,} accepted, {len(state['faults'])} faults"
    )
    print(f"slowest {state['slowest']:.2f} s of processor time; {seconds:.0f} s in all")
    return 1 if state["faults"] else 0


class Worker:
    """A process at work on a range of seeds; one that dies is told, and followed by another behind that seed."""

    def __init__(self, folder: Path, first: int, count: int) -> None:
        self.folder, self.last = folder, first + max(count, 0)
        folder.mkdir(exist_ok=True)
        self._start(first)

    def _start(self, first: int) -> None:
        command = [sys.executable, "-m", "tests.fuzz.run", "--work", str(self.folder)]
        command += ["--first", str(first), "--count", str(self.last - first)]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)

    def finish(self, state: dict[str, Any]) -> None:
        """Wait for its end, and add what it found to the state."""
        while True:
            said = self.process.communicate()[1]
            if self.process.returncode == 0:
                break
            seed = int((self.folder / "seed").read_text() or self.last)
            code = self.process.returncode
            ended = f"ended by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"
            state["faults"].append({"seed": seed, "base": "?", "fault": f"{ended}\n{said[-2000:]}"})
            if len(state["faults"]) >= MOST_FAULTS or seed + 1 >= self.last:
                break
            self._start(seed + 1)
        results = self.folder / "results"
        for line in results.read_text().splitlines() if results.exists() else ():
            result = json.loads(line)
            if "fault" in result:
                state["faults"].append(result)
                continue
            for key in ("refused", "accepted"):
                state[key] += result["tally"].get(key, 0)
            state["slowest"] = max(state["slowest"], result["slowest"])
        results.unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(main())
