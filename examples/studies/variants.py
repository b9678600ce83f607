"""What is tried: six studies and their variants, each the flags of a fine-tuning and the word for its row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal, NamedTuple

from examples.studies.tasks import TASKS
from rnnprune.pruning.options import Scope

SEEDS = (0, 1, 2)
FIRST = SEEDS[:1]
OWN = "own"  # the rate is tuned for this very variant

Form = Literal["dense", "dense-int8", "dense-native", "csr", "csr-fp16", "bitmask-int8", "bsr", "bsr-int8"]
DENSE_FORMS: tuple[Form, ...] = ("dense", "dense-int8")
SINGLE_FORMS: tuple[Form, ...] = ("csr", "csr-fp16", "bitmask-int8")
BLOCK_FORMS: tuple[Form, ...] = ("bsr", "bsr-int8")


class Variant(NamedTuple):
    """told: its row on the page. flags: after `finetune CHECKPOINT`; {matched} and {large} are filled in.

    rate: OWN, the STUDY/VARIANT whose choice is taken, or a figure. longer: times the task's steps; fresh: from an
    untrained checkpoint, for the steps of the dense training and the fine-tuning together. forms: in which it is stored
    and scored. tasks, seeds: where not all.
    """

    told: str
    flags: str
    size: str = "base"
    rate: str = OWN
    longer: int = 1
    fresh: bool = False
    forms: tuple[Form, ...] = ()
    tasks: tuple[str, ...] = tuple(TASKS)
    seeds: tuple[int, ...] = SEEDS

    @property
    def method(self) -> str:
        """What stands before the saliency."""
        return self.told.partition(";")[0]


def pruned(target: str, schedule: str = "cubic", saliency: str = "fisher", more: str = "") -> str:
    """The flags of a pruned run."""
    return f"--target {target} --schedule {schedule} --saliency {saliency} {more}".strip()


G2P = ("g2p",)  # the tasks of a variant that not all of them have
DENSE = Variant("dense, trained on as long", "--dense")
DENSE_SMALL = Variant("dense, small", "--dense", size="small")
MATCHED = pruned("{matched}", more="--scope model")
SPARSE_LARGE = Variant("sparse, from large", MATCHED, size="large")

A: Mapping[str, Variant] = {
    "dense": DENSE._replace(told="dense, baseline"),
    "dense-small": DENSE_SMALL,
    "sparse-large": SPARSE_LARGE,
    "sparse": Variant("sparse, from baseline", MATCHED),
    "sparse-medium": Variant("sparse, from medium", MATCHED, size="medium", rate="A/sparse-large", tasks=G2P),
    "dense-medium": Variant("dense, medium", "--dense", size="medium", rate="A/dense", tasks=G2P),
    "dense-small4": DENSE_SMALL._replace(
        told="dense, small, four times the steps", rate="A/dense-small", longer=4, tasks=G2P
    ),
    "sparse-large4": SPARSE_LARGE._replace(
        told="sparse, from large, four times the steps", rate="A/sparse-large", longer=4, tasks=G2P
    ),
}

METHODS: Mapping[str, tuple[str, str, str]] = {  # name -> schedule, more flags, what a page calls it
    "gradual": ("gradual", "", "gradual, 5 to 50 %"),
    "aimed": ("gradual", "--aim", "gradual, aimed anew at every cut"),
    "cubic": ("cubic", "", "cubic, 5 to 50 %"),
    "hard05": ("hard", "--start 0.05", "hard, at 5 %"),
    "hard25": ("hard", "--start 0.25", "hard, at 25 %"),
    "hard50": ("hard", "--start 0.5", "hard, at 50 %"),
    "oneshot": ("hard", "--start 0", "one-shot, at the first step"),
}
ALIKE = "--scope tensor"  # the default of magnitude
BY_FISHER = {"gradual": tuple(TASKS), "cubic": tuple(TASKS), "hard25": G2P, "oneshot": G2P}  # by magnitude: all


def _methods() -> Iterator[tuple[str, Variant]]:
    for saliency, scope in (("magnitude", ""), ("fisher", ALIKE)):
        for method, (schedule, more, told) in METHODS.items():
            flags = pruned("0.9", schedule, saliency, f"{more} {scope}".strip())
            tasks = tuple(TASKS) if saliency == "magnitude" else BY_FISHER.get(method)
            rate = "B/hard25-fisher" if (method, saliency) == ("oneshot", "fisher") else OWN
            if tasks:
                yield f"{method}-{saliency}", Variant(f"{told}; {saliency}", flags, tasks=tasks, rate=rate)


B: Mapping[str, Variant] = dict(_methods())

TAUGHT, RETOLD = "--distill --teacher {large}", "--distill --distill-level sequence --teacher {large}"
C: Mapping[str, Variant] = {
    "small": DENSE_SMALL,
    "small-taught": Variant("dense, small; taught", f"--dense {TAUGHT}", size="small"),
    "large": SPARSE_LARGE,
    "large-taught": Variant("sparse, from large; taught", f"{MATCHED} {TAUGHT}", size="large"),
    "small-retold": Variant(
        "dense, small; on the teacher's answers", f"--dense {RETOLD}", size="small", rate="C/small-taught", tasks=G2P
    ),
    "large-retold": Variant(
        "sparse, from large; on the teacher's answers",
        f"{MATCHED} {RETOLD}",
        size="large",
        rate="C/large-taught",
        tasks=G2P,
    ),
}


SHARED = {"fisher": "--scope model", "magnitude": ""}  # the defaults, by the words of study F


def _singles() -> Iterator[tuple[str, Variant]]:
    for saliency in ("fisher", "magnitude"):
        for percent in (80, 90, 95):
            flags = pruned(f"{percent / 100:g}", "cubic", saliency, SHARED[saliency])
            rate = {80: OWN, 90: "F/s90", 95: "F/s95"}[percent] if saliency == "fisher" else f"B/cubic-{saliency}"
            told = f"single weights, {percent} %; {saliency}"
            tasks, seeds = (tuple(TASKS), SEEDS) if saliency == "fisher" else (G2P, FIRST)
            variant = Variant(told, flags, rate=rate, forms=SINGLE_FORMS, tasks=tasks, seeds=seeds)
            yield f"single{percent}-{saliency}", variant


EVERYWHERE = ("block8x1-80-fisher", "block8x1-90-fisher")  # the blocks that are tried on every task
NEAR_THE_FRONT = (*EVERYWHERE, "block4x1-80-fisher")


def _blocks() -> Iterator[tuple[str, Variant]]:
    for saliency in ("fisher", "magnitude"):
        for block in ("4x1", "8x1", "16x1", "8x4"):
            for percent in (80, 90):
                flags = pruned(f"{percent / 100:g}", "cubic", saliency, f"{SHARED[saliency]} --block {block}".strip())
                told, rate = f"blocks {block}, {percent} %; {saliency}", f"B/cubic-{saliency}"
                name = f"block{block}-{percent}-{saliency}"
                tasks, seeds = tuple(TASKS) if name in EVERYWHERE else G2P, SEEDS if name in NEAR_THE_FRONT else FIRST
                yield name, Variant(told, flags, rate=rate, forms=BLOCK_FORMS, tasks=tasks, seeds=seeds)


def _columns() -> Iterator[tuple[str, Variant]]:
    for saliency in ("fisher", "magnitude"):
        for pattern, target in (("1:8", "0.875"), ("8:64", "0.875"), ("4:64", "0.9375")):
            flags = pruned(target, "cubic", saliency, f"{SHARED[saliency]} --n-of-m {pattern}".strip())
            keep, of = pattern.split(":")
            told = f"{keep} of every {of} columns; {saliency}"
            variant = Variant(told, flags, rate=f"B/cubic-{saliency}", forms=SINGLE_FORMS, tasks=G2P, seeds=FIRST)
            yield f"columns{keep}of{of}-{saliency}", variant


D: Mapping[str, Variant] = {
    "dense": DENSE._replace(told="dense", rate="A/dense", forms=DENSE_FORMS),
    "small": DENSE_SMALL._replace(rate="A/dense-small", forms=DENSE_FORMS),
    **dict(_singles()),
    "single86-fisher": A["sparse"]._replace(
        told="single weights, 86 %; fisher", rate="A/sparse", forms=SINGLE_FORMS, tasks=G2P
    ),
    **dict(_blocks()),
    **dict(_columns()),
    "single80-longer": Variant(
        "single weights, 80 %, four times the steps; fisher",
        pruned("0.8", more=SHARED["fisher"]),
        rate="D/single80-fisher",
        longer=4,
        forms=SINGLE_FORMS,
        tasks=G2P,
        seeds=FIRST,
    ),
}


def _timed(told: str, more: str, rate: str = "B/gradual-magnitude", saliency: str = "magnitude") -> Variant:
    return Variant(told, pruned("0.9", "gradual", saliency, more), rate=rate, tasks=G2P)


E: Mapping[str, Variant] = {
    "paper": _timed("start 5 %, ramp 25 %, end 50 %, slopes 1 : 1.5, literal", ""),
    "revive": _timed("revive", "--revive"),
    "aim": _timed("threshold aimed anew at every cut", "--aim"),
    "slope2": _timed("slopes 1 : 2", "--slope-ratio 2"),
    "start0": _timed("start 0 %", "--start 0"),
    "ramp10": _timed("ramp 10 %", "--ramp 0.1"),
    "end30": _timed("end 30 %, ramp 15 %", "--ramp 0.15 --end 0.3"),
    "end75": _timed("end 75 %, ramp 40 %", "--ramp 0.4 --end 0.75"),
    "fisher": _timed("fisher, literal", ALIKE, "B/gradual-fisher", "fisher"),
}


def _own(
    told: str,
    more: str = "",
    target: str = "0.9",
    scope: Scope = "model",
    longer: int = 1,
    tasks: tuple[str, ...] = G2P,
) -> Variant:
    flags = pruned(target, more=f"--scope {scope} {more}".strip())
    rate = "B/cubic-fisher" if scope == "tensor" else "F/s90"
    return Variant(told, flags, rate=rate, longer=longer, tasks=tasks)


def _first(told: str, flags: str) -> Variant:
    return Variant(told, flags, rate="0.002", fresh=True, tasks=G2P)


F: Mapping[str, Variant] = {
    "control": DENSE._replace(rate="A/dense"),
    "s90": _own("90 %: cubic, fisher, shared out over the model", tasks=tuple(TASKS))._replace(rate=OWN),
    "s95": _own("95 %: likewise", target="0.95", tasks=tuple(TASKS))._replace(rate=OWN),
    "tensor": _own("90 %, every matrix alike", scope="tensor", tasks=tuple(TASKS)),
    "magnitude": Variant(
        "90 %, every matrix alike, magnitude", pruned("0.9", saliency="magnitude"), rate="B/cubic-magnitude"
    ),
    "type": _own("90 %, over the layers of a type", scope="type"),
    "gate": _own("90 %, every gate alike", scope="gate"),
    "distill": _own("90 %, the dense model as teacher", "--distill"),
    "tensor-distill": _own("90 %, every matrix alike, the dense model as teacher", "--distill", scope="tensor"),
    "distill-large": _own("90 %, the large dense model as teacher", "--distill --teacher {large}")._replace(
        seeds=FIRST
    ),
    "initial": _first("90 %, pruned during the initial training, rate not tuned", pruned("0.9", more="--scope model")),
    "initial-paper": _first("the same, gradual and magnitude as in the paper", pruned("0.9", "gradual", "magnitude")),
    "linear": _own("90 %, rate falls linearly", "--decay linear"),
    "control4": DENSE._replace(told="dense, four times the steps", rate="A/dense", longer=4, tasks=G2P, seeds=FIRST),
    "longer4": _own("90 %, four times the steps", longer=4),
    "magnitude-shared": Variant(
        "90 %, magnitude, shared out over the model",
        pruned("0.9", saliency="magnitude", more="--scope model"),
        rate="B/cubic-magnitude",
        tasks=G2P,
        seeds=FIRST,
    ),
    "oneshot": Variant(
        "90 %, one-shot at the first step, magnitude, shared out over the model",
        pruned("0.9", "hard", "magnitude", "--start 0 --scope model"),
        rate="B/oneshot-magnitude",
        tasks=G2P,
        seeds=FIRST,
    ),
    "hard05": Variant(
        "90 %, hard at 5 %, fisher, shared out over the model",
        pruned("0.9", "hard", more="--start 0.05 --scope model"),
        rate="B/hard05-magnitude",
        tasks=G2P,
        seeds=FIRST,
    ),
    "end20": _own("90 %, cut from the first step until 20 %", "--start 0 --end 0.2", tasks=tuple(TASKS)),
}

STUDIES: Mapping[str, Mapping[str, Variant]] = {"A": A, "B": B, "C": C, "D": D, "E": E, "F": F}
