"""Arguments of the wrong type, as a caller without a type checker gives them.

Asked in another process: this one checks every call against its annotations, so that nothing of the kind gets through.
"""

import json
import re
import subprocess
import sys

import pytest

BLOCK = r"a block is \(rows, columns\), whole numbers of at least 1, such as \(16, 1\); found "
SALIENCY = "saliency must be one of magnitude, fisher; found 'foo'"
SCHEDULE = "schedule must be one of gradual, cubic, hard; found 'linear'"
TOLD = {
    "Selection(block=(0, 4))": BLOCK + r"\(0, 4\)",
    "Selection(block=Block(4, -1))": BLOCK + "Block",
    "Selection(block=(4,))": BLOCK + r"\(4,\)",
    "Selection(block=(2.0, 2))": BLOCK + r"\(2.0, 2\)",
    "Selection(block='16x1')": BLOCK + "'16x1'",
    "Selection(block=4)": BLOCK + "4",
    "Selection(block_norm='l1')": "block_norm must be one of max, l2; found 'l1'",
    "Selection(scope='layer')": "scope must be one of gate, tensor, type, model; found 'layer'",
    "Selection(exclude='bias')": r"exclude takes a tuple of patterns; write \('bias',\), found 'bias'",
    "Selection(include=3)": "include takes a tuple of patterns",
    "Selection(include=(3,))": "include takes patterns over the names of tensors, such as 'decoder.*'; found 3",
    "Selection(target_of=('head', 0.5))": r"target_of takes pairs such as \(\('output.\*', 0.8\),\); found",
    "Selection(n_of_m=(8, 8))": r"n_of_m is \(columns kept, of how many\), such as \(1, 8\) for 1:8; found \(8, 8\)",
    "Selection(n_of_m=(1.0, 8))": "n_of_m is ",
    "Selection(n_of_m='1:8')": "n_of_m is ",
    "Selection(target_of=3)": "target_of takes pairs",
    "Selection(target_of=(('head', '0.5'),))": "target_of takes pairs",
    "Selection(target_of=(('head', 1.5),))": "--target-of head is the share of zeros, between 0 and 1 .*; found 1.5",
    "PruningOptions(target=math.nan)": "found nan",
    "PruningOptions(saliency='foo')": SALIENCY,
    "PruningOptions(schedule='linear')": SCHEDULE,
    "plan_schedule('linear', 1000)": SCHEDULE,
    "Pruner(layer, torch.optim.Adam(layer.parameters()), Hard(1), saliency='foo')": SALIENCY,
    "Recipe(optimizer='lion')": "--optimizer must be one of adam, adamw, sgd; found 'lion'",
    "Recipe(decay='step')": "--decay must be one of cosine, linear, constant; found 'step'",
}
RIGHT = (
    "Selection(block=(3, 5)).block == Block(3, 5) and str(Selection(block=[3, 5]).block) == '3x5'",
    "Selection(exclude=['bias']).exclude == ('bias',)",
)
ASK = """
import json, math, sys, torch
from rnnprune import Block, Hard, Pruner, Selection, plan_schedule
from rnnprune.errors import UsageError
from rnnprune.pruning.options import PruningOptions
from rnnprune.training.recipe import Recipe
layer = torch.nn.Linear(20, 20)
def ask(expression):
    try:
        return repr(eval(expression))
    except UsageError as error:
        return str(error)
print(json.dumps({expression: ask(expression) for expression in json.loads(sys.argv[1])}))
"""


@pytest.fixture(scope="module")
def answers() -> dict[str, str]:
    asked = json.dumps([*TOLD, *RIGHT])
    run = subprocess.run([sys.executable, "-c", ASK, asked], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


@pytest.mark.parametrize("expression", TOLD)
def test_a_wrong_type_is_told_in_words(answers: dict[str, str], expression: str) -> None:
    assert re.search(TOLD[expression], answers[expression])


@pytest.mark.parametrize("expression", RIGHT)
def test_a_plain_pair_is_a_block_and_a_list_of_patterns_will_do(answers: dict[str, str], expression: str) -> None:
    assert answers[expression] == "True"
