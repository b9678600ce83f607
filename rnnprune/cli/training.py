"""`train`: the commands that make a dense model of a built-in task."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rnnprune.architecture import Kind
from rnnprune.cli import options as o
from rnnprune.cli.app import app
from rnnprune.cli.groups import LearningFlags, RunFlags, spread
from rnnprune.tasks.options import Attention, Level, PairMetric, TokenLevel

if TYPE_CHECKING:
    from rnnprune.tasks.builtin import BuiltinTask

train_app = typer.Typer(help="Train a dense model of a built-in task.", no_args_is_help=True)
app.add_typer(train_app, name="train")

OutFile = Annotated[Path, typer.Option("--out", help="The checkpoint to write, a torch file.")]
Cell = Annotated[Kind, typer.Option("--cell", help="Kind of recurrent layer.")]
HiddenEachWay = Annotated[int, typer.Option("--hidden", help="Units per layer and direction.")]
Layers = Annotated[int, typer.Option("--layers", help="Recurrent layers.")]
Dropout = Annotated[float, typer.Option("--dropout", help="Around the recurrent layers.")]
CTC_LEARNING = LearningFlags(lr=1e-3)


def _train(out: Path, learning: LearningFlags, run: RunFlags, read_task: Callable[[], BuiltinTask]) -> None:
    """Train and show; nothing is read before it is known that the checkpoint can be written."""
    from rnnprune.cli import render
    from rnnprune.cli.progress import Progress
    from rnnprune.workflows import machine
    from rnnprune.workflows import train as workflow

    machine.set_threads(run.threads)
    workflow.require_free(out, overwrite=run.overwrite)
    recipe, keeping, task = learning.recipe(), run.keeping(), read_task()
    with Progress() as progress:
        for note in task.notes:
            progress.note(note)
        result = workflow.train_task(task, recipe, out, run.device, progress.training, progress.note, keeping=keeping)
    render.show(result, run.json)


@train_app.command("lm", context_settings=o.SETTINGS)
@spread
def train_lm(
    *,
    data: Annotated[Path, typer.Option("--data", help="One UTF-8 text file.")],
    out: OutFile,
    cell: Cell = "lstm",
    hidden: Annotated[int, typer.Option("--hidden", help="Units per layer.")] = 256,
    layers: Layers = 1,
    embedding: Annotated[int, typer.Option("--embedding", help="Units of the embedding.")] = 64,
    dropout: Dropout = 0.0,
    level: Annotated[Level, typer.Option("--level", help="Predict characters or words.")] = "char",
    tied: Annotated[bool, typer.Option("--tied", help="The embedding is the output's matrix.")] = False,
    carry: Annotated[bool, typer.Option("--carry", help="Windows go on from the state of those before.")] = False,
    vocab: Annotated[int, typer.Option("--vocab", help="Most frequent words to keep.")] = 10_000,
    batch_size: o.BatchSize = None,
    seq_len: o.SeqLen = None,
    learning: LearningFlags,
    run: RunFlags,
) -> None:
    """A language model over characters or words, from one text file."""
    from rnnprune.tasks.lm import LmModelSpec, LmTask

    spec = LmModelSpec(level, cell, hidden, layers, embedding, dropout, tied, carry)
    sizes = {"batch_size": batch_size, "length": seq_len}
    given = {name: size for name, size in sizes.items() if size is not None}
    _train(out, learning, run, lambda: LmTask.from_text(data, spec, vocab=vocab, **given))


@train_app.command("ctc", context_settings=o.SETTINGS)
@spread
def train_ctc(
    *,
    data: Annotated[Path, typer.Option("--data", help="A manifest: TSV or JSONL of audio path and text.")],
    out: OutFile,
    cell: Cell = "gru",
    hidden: HiddenEachWay = 256,
    layers: Layers = 3,
    bidirectional: Annotated[
        bool, typer.Option("--bidirectional/--forward-only", help="Read the audio both ways, or as it comes.")
    ] = True,
    mels: Annotated[int, typer.Option("--mels", help="Bands of the features.")] = 40,
    channels: Annotated[int, typer.Option("--channels", help="Of the two convolutions.")] = 32,
    stride: Annotated[int, typer.Option("--stride", help="Frames of 10 ms per recurrent step.")] = 2,
    dropout: Annotated[float, typer.Option("--dropout", help="Before the recurrent layers.")] = 0.2,
    augment: Annotated[bool, typer.Option(help="Stretch and mask the features; for long runs.")] = False,
    batch_size: o.BatchSize = None,
    skip_bad: o.SkipBad = False,
    learning: LearningFlags = CTC_LEARNING,
    run: RunFlags,
) -> None:
    """A speech recogniser over characters, from a manifest of audio files and their texts."""
    from rnnprune.tasks.ctc.model import CtcModelSpec
    from rnnprune.tasks.ctc.task import CtcTask
    from rnnprune.tasks.source import DataOptions

    spec = CtcModelSpec(cell, hidden, layers, bidirectional, mels, channels, stride, dropout=dropout, augment=augment)
    options = DataOptions(data, batch_size, skip_bad=skip_bad)
    _train(out, learning, run, lambda: CtcTask.from_manifest(spec, options))


@train_app.command("seq2seq", context_settings=o.SETTINGS)
@spread
def train_seq2seq(
    *,
    data: Annotated[Path, typer.Option("--data", help="UTF-8 lines: a source, a tab, a target.")],
    out: OutFile,
    level: Annotated[TokenLevel, typer.Option("--level", help="Characters, words, or pieces of words (BPE).")] = "char",
    target_level: Annotated[
        TokenLevel | None, typer.Option("--target-level", help="Of the targets.", show_default="--level")
    ] = None,
    metric: Annotated[
        PairMetric | None, typer.Option("--metric", help="What decides.", show_default="CER for char, else BLEU")
    ] = None,
    vocab: Annotated[int, typer.Option("--vocab", help="Words or pieces to keep on each side.")] = 4000,
    cell: Cell = "gru",
    hidden: Annotated[int, typer.Option("--hidden", help="Units per layer, of both directions together.")] = 256,
    layers: Annotated[int, typer.Option("--layers", help="Recurrent layers of encoder and decoder each.")] = 1,
    embedding: Annotated[int, typer.Option("--embedding", help="Units of the embeddings.")] = 128,
    attention: Annotated[Attention, typer.Option("--attention", help="Luong's dot, or Bahdanau's additive.")] = "dot",
    dropout: Dropout = 0.0,
    beam: Annotated[int, typer.Option("--beam", help="Hypotheses kept when it is scored; 1 is greedy.")] = 1,
    batch_size: o.BatchSize = None,
    skip_bad: o.SkipBad = False,
    learning: LearningFlags,
    run: RunFlags,
) -> None:
    """An encoder-decoder with attention, from pairs of texts: translation, transliteration, pronunciation."""
    from rnnprune.tasks.seq2seq.spec import Seq2SeqModelSpec
    from rnnprune.tasks.seq2seq.task import Seq2SeqTask
    from rnnprune.tasks.source import DataOptions

    target_level = target_level or level
    metric = metric or ("CER" if target_level == "char" else "BLEU")
    spec = Seq2SeqModelSpec(
        level, target_level, metric, cell, hidden, layers, embedding, attention, dropout=dropout, beam=beam
    )
    options = DataOptions(batch_size=batch_size, skip_bad=skip_bad)
    _train(out, learning, run, lambda: Seq2SeqTask.from_pairs(data, spec, options, vocab=vocab))


def _add_labelling(name: str, help: str) -> None:
    @train_app.command(name, help=help, context_settings=o.SETTINGS)
    @spread
    def train_labels(
        *,
        data: Annotated[Path, typer.Option("--data", help="JSONL or TSV lines, or a .safetensors file: docs/tag.md.")],
        out: OutFile,
        cell: Cell = "lstm",
        hidden: HiddenEachWay = 128,
        layers: Layers = 1,
        bidirectional: Annotated[
            bool, typer.Option("--bidirectional/--forward-only", help="Read both ways, or as the steps come.")
        ] = True,
        embedding: Annotated[int, typer.Option("--embedding", help="Units of the embedding of tokens.")] = 64,
        dropout: Dropout = 0.0,
        level: Annotated[Level, typer.Option("--level", help="Cut texts into characters or words.")] = "word",
        vocab: Annotated[int, typer.Option("--vocab", help="Most frequent tokens to keep.")] = 10_000,
        batch_size: o.BatchSize = None,
        skip_bad: o.SkipBad = False,
        learning: LearningFlags,
        run: RunFlags,
    ) -> None:
        from rnnprune.tasks.source import DataOptions
        from rnnprune.tasks.tag.task import ClassifyTask, SequenceTask, TagTask

        task: type[SequenceTask[Any]] = TagTask if name == "tag" else ClassifyTask
        spec = task.spec_type(level, cell, hidden, layers, bidirectional, embedding, dropout)
        options = DataOptions(batch_size=batch_size, skip_bad=skip_bad)
        _train(out, learning, run, lambda: task.from_file(data, spec, options, vocab=vocab))


_add_labelling("tag", "A label for every token or frame: parts of speech, voice activity, vowel marks.")
_add_labelling("classify", "A label for a whole sequence: the language of a word, a keyword, a kind of time series.")
