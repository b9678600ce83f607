"""Audio files against literal bytes and soundfile."""

import struct
import sys
import wave

import numpy as np
import pytest
import soundfile
import torch

from rnnprune.errors import InputRefused, UsageError
from rnnprune.tasks.ctc.audio import read_audio

PCM = {
    1: (bytes([0, 128, 192]), [-1.0, 0.0, 0.5]),
    2: (struct.pack("<3h", -32768, 0, 16384), [-1.0, 0.0, 0.5]),
    3: (b"\x00\x00\x80" + b"\x00\x00\x00" + b"\x00\x00\x40", [-1.0, 0.0, 0.5]),
    4: (struct.pack("<3i", -(2**31), 0, 2**30), [-1.0, 0.0, 0.5]),
}


@pytest.mark.parametrize("width", PCM)
def test_pcm_of_every_width_is_scaled_to_one(tmp_path, width):
    raw, expected = PCM[width]
    with wave.open(str(tmp_path / "a.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(width)
        file.setframerate(11025)
        file.writeframes(raw)
    samples, rate = read_audio(tmp_path / "a.wav")
    assert (samples.dtype, samples.tolist(), rate) == (torch.float32, expected, 11025)


@pytest.mark.parametrize(("name", "subtype"), [("a.flac", "PCM_16"), ("a.wav", "FLOAT"), ("a.wav", "PCM_16")])
def test_other_files_read_as_soundfile_reads_them(tmp_path, name, subtype):
    written = np.random.default_rng(0).uniform(-1, 1, 500).astype(np.float32)
    soundfile.write(tmp_path / name, written, 8000, subtype=subtype)
    samples, rate = read_audio(tmp_path / name)
    np.testing.assert_allclose(samples.numpy(), written, atol=2**-15)
    assert rate == 8000


REFUSED = {
    "missing.wav": (None, "does not exist"),
    "folder.wav": ("folder", "is not a regular file"),
    "stereo.wav": (np.zeros((9, 2)), r"2 channels, expected one; make it mono: `sox stereo\.wav -c 1`"),
    "empty.wav": (np.zeros((0, 1)), "holds no sample"),
    "nan.wav": (np.array([[0.0], [np.nan]]), "holds a sample that is not a finite number"),
    "infinite.wav": (np.array([[0.0], [np.inf]]), "holds a sample that is not a finite number"),
    "text.wav": (b"hello", "is no audio file that can be read"),
    "cut.wav": (b"RIFF\x24\x00\x00\x00WAVEfmt ", "is no audio file that can be read"),
    "nothing.flac": (b"", "is no audio file that can be read"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_bad_file_is_refused_by_name_and_reason(tmp_path, name):
    content, reason = REFUSED[name]
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif isinstance(content, str):
        path.mkdir()
    elif content is not None:
        soundfile.write(path, content, 8000, subtype="FLOAT")
    with pytest.raises(InputRefused, match=rf"{name}.*{reason}"):
        read_audio(path)


def test_a_missing_soundfile_is_told_with_the_command_that_installs_it(tmp_path, monkeypatch, say):
    soundfile.write(tmp_path / "a.flac", np.zeros(9), 8000)
    monkeypatch.setitem(sys.modules, "soundfile", None)
    with pytest.raises(UsageError, match=r"a\.flac is not a PCM wav file.*pip install 'rnnprune\[speech\]'"):
        read_audio(tmp_path / "a.flac")
    assert len(read_audio(say(tmp_path / "a.wav", "ab")).samples) == 1920  # needs none
