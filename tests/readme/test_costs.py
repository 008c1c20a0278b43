"""What the guide says of requests is what a run makes."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from tests import ROOT
from tests.kit.inside import use_store
from tests.trainer.kit import Patient, trainer
from vaultlayer_hf.stores import open_store
from vaultlayer_hf.testing import FaultStore

GUIDE = ROOT / "vaultlayer_hf" / "vault" / "README.md"
WRITES = {"create", "write", "upload", "copy"}


@pytest.mark.filterwarnings("ignore")  # of the libraries
def test_a_save_makes_the_requests_that_the_guide_says(tmp_path) -> None:
    """Files of a Trainer's checkpoint, writes of a save of it and its questions are as many as the guide says."""
    text = " ".join(GUIDE.read_text().split())
    said = re.search(r"checkpoint has (\d+) files, so a small one is some (\d+) writes", text)
    files, writes = map(int, said.groups())
    vault = tmp_path / "vault"
    run = trainer(tmp_path / "out", resume=str(vault))
    run.add_callback(Patient(vault))
    store = FaultStore(open_store(str(vault)))
    use_store(run, store).train()
    saves = len([one for one in store.operations if one.key.endswith("manifest.json") and one.name in WRITES])
    first = next(number for number, one in enumerate(store.operations) if one.key.startswith("data/"))
    counted = Counter(one.name in WRITES for one in store.operations[first:])
    assert len(list((tmp_path / "out" / "checkpoint-8").iterdir())) == pytest.approx(files, abs=2)
    assert saves == 4
    assert counted[True] / saves == pytest.approx(writes, abs=3)
    assert counted[False] / saves < writes
