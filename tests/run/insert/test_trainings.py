"""Scripts that train several times, for folds or in phases: each has a vault, and a start goes through them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.forks import ForkServer
from tests.run.insert.kit import VARIANTS as VARIANT_SCRIPTS
from tests.run.insert.story import Story, same, steps_of
from vaultlayer_hf.run.insert.propose import Proposal, Unrecognised, propose

SEVERAL = ("folds", "folds_in_main", "phases_in_main", "runs", "two_phases")
VARIANTS = ("folds_of_one_model", "teacher_then_student")
FOLDS = """
import torch
from torch.utils.data import DataLoader, Subset, TensorDataset
torch.manual_seed(0)
rows = TensorDataset(torch.randn(24, 3))
for fold in range(3):
    model = torch.nn.Linear(3, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loader = DataLoader(Subset(rows, list(range(fold * 8))), batch_size=4, shuffle=True)
    for epoch in range(2):
        for (x,) in loader:
            optimizer.zero_grad()
            model(x).sum().backward()
            optimizer.step()
    print(fold)
"""
PHASES = """
import torch
from torch.utils.data import DataLoader, TensorDataset
def fit(model, loader, rate):
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    for epoch in range(2):
        for (x,) in loader:
            optimizer.zero_grad()
            model(x).sum().backward()
            optimizer.step()
torch.manual_seed(0)
loader = DataLoader(TensorDataset(torch.randn(24, 3)), batch_size=4, shuffle=True)
model = torch.nn.Linear(3, 3)
fit(model, loader, 0.1)
fit(model, loader, 0.01)
"""
STEP = "            optimizer.step()\n"
FOLD_EDITS = {
    "without a seed": ("torch.manual_seed(0)\n", ""),
    "no single number tells them apart": ("for fold in range(3):", "for fold in (0, 1, 2):"),
    "no single number": ("    model = torch", "    fold += 1\n    model = torch"),
    "may end a training early": ("    for epoch in range(2):", "    while loader.more:"),
    "random generator of line 5": ("rows =", "drawn = torch.Generator()\nrows ="),
    "loads a file": (
        "            optimizer.step()\n    print(fold)",
        "            optimizer.step()\n            torch.save(x, 'x.pt')\n    torch.load('last.pt')",
    ),
    "made only under a condition": (
        "    for epoch in range(2):\n        for (x,) in loader:\n",
        "    if fold > 1:\n        scheduler = StepLR(optimizer, 1)\n    for epoch in range(2):\n"
        "        for (x,) in loader:\n            if fold > 1:\n                scheduler.step()\n",
    ),
    "leave a training out": ("    model = torch", "    if known(fold):\n        continue\n    model = torch"),
    "goes on from one checkpoint alone": ("    print(fold)", "    print(args.resume_from_checkpoint)"),
    "draws the data anew": (
        "for fold in range(3):",
        "from sklearn.model_selection import KFold\n"
        "for fold, (rest, out) in enumerate(KFold(3, shuffle=True).split(rows)):\n    rows = rest",
    ),
    "adds to a file": ("    print(fold)", "    open('scores.txt', 'a').write('done')"),
    "may change its object": (
        "rows =",
        "class Rows:\n    def __getitem__(self, at):\n        self.seen += 1\nrows =",
    ),
}
"""Words of the reason, and what is changed in a script whose folds are edited."""
PHASE_EDITS = {
    "call more than once": (
        "fit(model, loader, 0.1)\n",
        "for rate in (0.2, 0.1):\n    fit(model, loader, rate)\n",
    ),
    "lines 17, 18 call": ("def fit(", "import functools\nrun = functools.partial\nrun(fit)\ndef fit("),
    "sets x.grad": (STEP, f"{STEP}            x.grad = None\n"),
    "an Accelerator": (
        "def fit(",
        "from accelerate import Accelerator\naccelerator = Accelerator()\ndef fit(",
    ),
    "the workers of line": ("shuffle=True", "shuffle=True, num_workers=2, persistent_workers=True"),
    "may leave a training out": (
        "fit(model, loader, 0.1)\n",
        "if known(model):\n    fit(model, loader, 0.1)\n",
    ),
    "sets seen": (
        "    for epoch in range(2):",
        "    global seen\n    for epoch in range(2):\n        seen = epoch",
    ),
}


def _answer(folder: Path, text: str, vault: str | None = "v") -> Proposal | Unrecognised:
    script = folder / "train.py"
    script.write_text(text)
    return propose(script, vault)


@pytest.mark.parametrize(("base", "count"), [(FOLDS, 1), (PHASES, 3)], ids=["folds", "phases"])
def test_each_training_gets_a_vault_of_its_own(base: str, count: int, tmp_path: Path) -> None:
    """Folds have the number of their round in its name, and phases that of their call."""
    found = _answer(tmp_path, base, "s3://bucket/my-run/")
    assert isinstance(found, Proposal), found
    after = found.after.decode()
    if base is FOLDS:
        assert (
            '    ckpt = Checkpointer(f"s3://bucket/my-run/fold-{fold}", model=model, optimizer=optimizer)'
            in after
        )
    else:
        assert "def fit(model, loader, rate, *, vault):" in after
        assert 'fit(model, loader, 0.1, vault="s3://bucket/my-run/fit-1")' in after
        assert 'fit(model, loader, 0.01, vault="s3://bucket/my-run/fit-2")' in after
    assert after.count("vault") >= count
    assert "Each training has a vault of its own" in found.remarks[0]


@pytest.mark.parametrize("words", FOLD_EDITS)
def test_folds_that_a_start_could_not_go_through_are_left_alone(words: str, tmp_path: Path) -> None:
    """What lasts from fold to fold outside of their vaults, or may be other at the next start, is named."""
    old, new = FOLD_EDITS[words]
    assert old in FOLDS
    found = _answer(tmp_path, FOLDS.replace(old, new, 1))
    assert isinstance(found, Unrecognised)
    assert words in found.reason


def test_what_is_called_and_not_seen_is_in_the_way(tmp_path: Path) -> None:
    """A teacher from somewhere may have averages that go on: only one that is seen to be a module is kept."""
    text = (VARIANT_SCRIPTS / "teacher_then_student.py").read_text()
    found = _answer(tmp_path, text.replace("results, teacher)", "results, make_teacher())"))
    assert isinstance(found, Unrecognised)
    assert "isn't seen what line 40 gives fit() for teacher, which is called there" in found.reason


def test_variables_of_the_module_that_are_made_between_two_calls_are_in_the_way(tmp_path: Path) -> None:
    """A function that reads the optimizer from the module trains with another one at its second call."""
    text = PHASES.replace(
        "def fit(model, loader, rate):\n    optimizer = torch.optim.SGD(model.parameters(), lr=rate)\n",
        "def fit():\n",
    )
    calls = "optimizer = torch.optim.SGD(model.parameters(), lr=0.1)\nfit()\n"
    text = text.replace("fit(model, loader, 0.1)\n", calls).replace("fit(model, loader, 0.01)\n", calls)
    found = _answer(tmp_path, text)
    assert isinstance(found, Unrecognised)
    assert "makes optimizer after the first training, which fit() isn't given" in found.reason
    assert isinstance(_answer(tmp_path, text.removesuffix(calls) + "fit()\n"), Proposal)


def test_rounds_that_go_on_with_the_same_weights_are_no_trainings(tmp_path: Path) -> None:
    """An optimizer that is made anew for each epoch trains one model on: a vault for each epoch would be none of it."""
    found = _answer(
        tmp_path,
        """import torch
torch.manual_seed(0)
model = torch.nn.Linear(2, 2)
for epoch in range(9):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1 / (1 + epoch))
    for step in range(9):
        optimizer.zero_grad()
        model(torch.ones(1, 2)).sum().backward()
        optimizer.step()
""",
    )
    assert isinstance(found, Unrecognised)
    assert found.reason == "line 5 makes optimizer anew in each round, and model goes on from one to the next"


@pytest.mark.parametrize("words", PHASE_EDITS)
def test_phases_that_a_start_could_not_go_through_are_left_alone(words: str, tmp_path: Path) -> None:
    """A function that is called who knows how often, or that leaves more than its vault has, is left as it is."""
    old, new = PHASE_EDITS[words]
    assert old in PHASES
    found = _answer(tmp_path, PHASES.replace(old, new, 1))
    assert isinstance(found, Unrecognised)
    assert words in found.reason


def test_without_a_named_vault_it_asks_for_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The vault that VAULTLAYER_VAULT names at each start can't be that of several trainings."""
    monkeypatch.setenv("VAULTLAYER_VAULT", "s3://bucket/run")
    found = _answer(tmp_path, FOLDS, None)
    assert isinstance(found, Unrecognised)
    assert "vl init --vault URI" in found.reason


@pytest.mark.slow
@pytest.mark.parametrize("name", SEVERAL + VARIANTS)
def test_killed_in_any_training_it_ends_as_it_would_have(
    name: str, forks: ForkServer, tmp_path: Path
) -> None:
    """Killed in its first training, in a later one and in its last one, each time on an emptied disk: the same end."""
    story = Story(name, forks, tmp_path)
    assert story.run(story.plain) == 0
    total = steps_of(story.plain.parent)
    # The second one is two steps into a training at least: before that its vault holds nothing to wait for.
    for part in (6, total // 2 + 2, total - 4):
        story.kill(part)
    ended = story.end()
    assert steps_of(story.edited.parent) < total
    assert same(story.end(), ended)
    assert steps_of(story.edited.parent) == 0
