"""training_args.bin is read without running it."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from pathlib import Path

import torch
from transformers import TrainingArguments

from vaultlayer_hf.cli.arguments import read_arguments


def saved(value: object) -> bytes:
    """What torch.save writes."""
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def test_settings_come_out_as_they_were() -> None:
    """Numbers, texts and choices of real TrainingArguments are read, at this version of transformers."""
    arguments = TrainingArguments(
        "out", learning_rate=3e-4, save_strategy="epoch", use_cpu=True, report_to=[]
    )
    found = read_arguments(saved(arguments))
    assert found is not None
    assert (found["learning_rate"], found["save_strategy"], found["report_to"]) == (3e-4, "epoch", [])
    assert len(found) > 80


def test_nothing_in_the_file_is_run(tmp_path: Path) -> None:
    """A file that would run a command when it is loaded runs nothing here, and yields nothing."""

    class Hostile:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "pwned"),)

    assert read_arguments(saved(Hostile())) is None
    assert not (tmp_path / "pwned").exists()


def test_rubbish_yields_nothing() -> None:
    """No file at all, no archive, two pickles, one without end, and one that is far too large: None, no error."""

    def archive(**members: bytes) -> bytes:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
            for name, data in members.items():
                file.writestr(f"{name}/data.pkl", data)
        return buffer.getvalue()

    good = pickle.dumps(1)
    for data in (b"", b"PK", archive(a=good, b=good), archive(a=good[:-1]), archive(a=bytes(5 * 2**20))):
        assert read_arguments(data) is None
    bomb = b"\x80\x02r\xff\xff\xff\x7f."  # LONG_BINPUT at 2^31: the reader in C would take 32 GB for its memo
    assert read_arguments(archive(a=bomb)) is None
