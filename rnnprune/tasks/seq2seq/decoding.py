"""Answers, token by token: greedy, and by beam search. The decoder runs one step at a time, its state carried along.

B sources, W hypotheses of each ("beam"), V target vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Int64
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from rnnprune.tasks.seq2seq.model import Seq2SeqModel, State
from rnnprune.tasks.seq2seq.tokens import END, NEVER_GIVEN, PAD, START

TOGETHER = 256  # hypotheses decoded side by side; bounds memory and leaves the answers alone


def answers(model: Seq2SeqModel, sources: Sequence[Sequence[int]], beam: int) -> list[list[int]]:
    """The answer to every source, without marks, in the order of the sources. beam 1 is greedy."""
    device = model.target_embedding.weight.device
    by_length = sorted(range(len(sources)), key=lambda index: len(sources[index]))
    together = max(1, TOGETHER // beam)
    found: dict[int, list[int]] = {}
    for first in range(0, len(sources), together):
        part = by_length[first : first + together]
        source = padded([sources[index] for index in part]).to(device)
        given = greedy(model, source) if beam == 1 else beam_search(model, source, beam)
        found.update(zip(part, (_until_end(answer) for answer in given.tolist()), strict=True))
    return [found[index] for index in range(len(sources))]


def padded(sequences: Sequence[Sequence[int]]) -> Int64[Tensor, "B S"]:
    """The sequences with their end marks, filled up with PAD."""
    return pad_sequence([torch.tensor([*sequence, END]) for sequence in sequences], batch_first=True, padding_value=PAD)


def greedy(model: Seq2SeqModel, source: Int64[Tensor, "B S"]) -> Int64[Tensor, "B T"]:
    """The likeliest token at every step, until all answers have ended or `longest` is reached."""
    memory, state = model.encode(source)
    token = torch.full_like(source[:, :1], START)
    ended = torch.zeros_like(token, dtype=torch.bool)
    given: list[Tensor] = []
    while len(given) < model.spec.longest and not ended.all():
        logits, state = model.decode(token, memory, state)
        logits[..., NEVER_GIVEN] = -torch.inf
        token = logits.argmax(-1)
        ended |= token == END
        given.append(token)
    return torch.cat(given, 1)


def beam_search(model: Seq2SeqModel, source: Int64[Tensor, "B S"], beam: int) -> Int64[Tensor, "B T"]:
    """The best of the `beam` likeliest beginnings followed at every step; by log probability per token, END included.

    An ended hypothesis keeps its place among the `beam` and goes on with PAD, at no cost. Exact when the beam is as
    wide as there are answers.
    """
    memory, state = model.encode(source)
    rows = torch.arange(len(source), device=source.device).repeat_interleave(beam)
    memory, state = memory.select(rows), _selected(state, rows)
    first = torch.arange(len(source), device=source.device).unsqueeze(1) * beam  # each source's first row
    total = torch.full((len(source), beam), -torch.inf, device=source.device)
    total[:, 0] = 0  # all hypotheses are alike before the first step: one is enough
    given = torch.full((len(source) * beam, 1), START, device=source.device)
    for _ in range(model.spec.longest):
        logits, state = model.decode(given[:, -1:], memory, state)
        log_p = _next(logits[:, 0], given[:, -1])
        total, index = (total.unsqueeze(2) + log_p.view(len(source), beam, -1)).flatten(1).topk(beam)
        row = (first + index // log_p.shape[-1]).flatten()
        given = torch.cat((given[row], (index % log_p.shape[-1]).view(-1, 1)), 1)
        state = _selected(state, row)
        if ((given[:, -1] == END) | (given[:, -1] == PAD)).all():
            break
    lengths = (given[:, 1:] != PAD).sum(1).view_as(total)
    best = (total / lengths).argmax(1, keepdim=True)
    return given[(first + best).flatten(), 1:]


def _next(logits: Tensor, last: Tensor) -> Tensor:
    """Log probability of every next token [B W, V]; after END and PAD there is only PAD."""
    ended = (last == END) | (last == PAD)
    only_pad = torch.full_like(logits[0], -torch.inf)
    only_pad[PAD] = 0
    logits[:, NEVER_GIVEN] = -torch.inf
    return torch.where(ended.unsqueeze(1), only_pad, F.log_softmax(logits, -1))


def _selected(state: State, rows: Tensor) -> State:
    """These rows of the batch, of every part."""
    if isinstance(state, tuple):
        h, c = state
        return h.index_select(1, rows), c.index_select(1, rows)
    return state.index_select(1, rows)


def _until_end(answer: list[int]) -> list[int]:
    return answer[: answer.index(END)] if END in answer else answer
