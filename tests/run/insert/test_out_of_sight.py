"""State that no variable of a loop holds: it is named and comes back, or the loop is left alone with the reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.run.insert.kit import STEP, VARIANTS, proposed
from vaultlayer_hf.run.insert.propose import Unrecognised, propose

LOOP = """
for epoch in range(3):
    for x in data:
{ahead}
        optimizer.zero_grad()
        loss = model(x).sum()
        loss.backward()
        optimizer.step()
{behind}
"""
COUNTER = """
def make_counter():
    n = 0
    def tick():
        nonlocal n
        n += 1
        return n
    return tick
"""
LOST = {
    "changes n, which tick() keeps of make_counter()": (
        f"{COUNTER}tick = make_counter()",
        "rate = tick()",
        "",
    ),
    "changes n, which tick() keeps": (f"{COUNTER}rates = make_counter()", "rate = rates()", ""),
    "changes memory, a default of smooth() that all its calls share": (
        "def smooth(value, memory=[]):\n    memory.append(value)\n    return sum(memory)",
        "rate = smooth(x)",
        "",
    ),
    "draws what noise() keeps in its cache": (
        "import functools\n@functools.lru_cache\ndef noise(n):\n    return torch.randn(n)",
        "x = x + noise(2)",
        "",
    ),
    "changes table, which rate holds as a partial of lower()": (
        "import functools\ndef lower(table):\n    table['n'] += 1\nrate = functools.partial(lower, {'n': 0})",
        "rate()",
        "",
    ),
    "counts with itertools.count, whose place isn't in a checkpoint": (
        "import itertools\ncount = itertools.count()",
        "rate = 1 / (1 + next(count))",
        "",
    ),
    "draws with next() from rates(), and where that is isn't in a checkpoint": (
        "def rates():\n    rate = 1.0\n    while True:\n        yield rate\n        rate *= 0.9\nfeed = rates()",
        "rate = next(feed)",
        "",
    ),
    "changes model[0].p within the loop": ("", "", "    model[0].p *= 0.5"),
    "changes m.momentum within the loop": (
        "",
        "",
        "    for m in model.modules():\n        m.momentum = 0.5 / (1 + epoch)",
    ),
    "gives a part of the model other parameters within the loop": (
        "from torch.nn.utils import prune",
        "",
        "    prune.l1_unstructured(model, 'weight', amount=0.3)",
    ),
    "changes rows in place, which the TensorDataset of line": (
        "rows = torch.ones(4, 2)\ndata = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(rows))",
        "",
        "    rows.mul_(0.9)",
    ),
}
"""Words of the reason; what stands ahead of the loop, ahead of its step, and behind its batches."""


def script(ahead: str, body: str, behind: str) -> str:
    """The text of a script."""
    inner = "".join(f"        {line}\n" for line in body.splitlines())
    return STEP + ahead + LOOP.format(ahead=inner, behind=behind)


@pytest.mark.parametrize("words", LOST)
def test_what_no_checkpoint_finds_is_said(words: str, tmp_path: Path) -> None:
    """Closures, defaults, caches, partials, parts of the model: none of them begins anew behind an edit in silence."""
    (tmp_path / "train.py").write_text(script(*LOST[words]))
    found = propose(tmp_path / "train.py", "v")
    assert isinstance(found, Unrecognised), found
    assert words in found.reason


def test_what_reading_changes_comes_back(tmp_path: Path) -> None:
    """Attributes of classes, properties, tables, what hooks and lambdas change, tensors of a forward() are carried."""
    after = proposed(tmp_path, (VARIANTS / "changed_unseen.py").read_text()).after.decode()
    for name in ("Progress.step", "Progress.rate", "schedule", "table", "stats", "seen", "delta"):
        assert f'"{name}": {name}' in after, name
    for name in ("model.memory", "model.slow"):
        assert f'"{name}": {name}' in after, name


def test_a_function_that_only_others_call_is_no_second_training(tmp_path: Path) -> None:
    """``run()`` for who imports the script isn't called by it: the loop is in main(), which is called once."""
    loop = script("", "", "").removeprefix(STEP)
    inner = "".join(f"    {line}\n" for line in loop.splitlines())
    text = f"{STEP}def main():\n{inner}def run():\n    subprocess.run('x')\n    main()\nmain()\n"
    assert b"ckpt.finish()" in proposed(tmp_path, text).after


@pytest.mark.parametrize(("text", "told"), [("model.load_state_dict(torch.load('a'))\n", 1), ("", 0)])
def test_only_what_is_loaded_ahead_is_told(text: str, told: int, tmp_path: Path) -> None:
    """What the script loads behind its loop has nothing to do with what resume() brings back."""
    found = proposed(tmp_path, script(text, "", "") + "best = torch.load('b')\n")
    assert len([one for one in found.remarks if "loads stays" in one]) == told


@pytest.mark.parametrize(
    "text",
    [
        "data = torch.load('rows.pt')\nseen = data[:4]\n",
        "def paint():\n    model.load_state_dict(torch.load('a'))\nif shown:\n    paint()\nelse:\n",
    ],
)
def test_data_and_the_other_branch_are_not_told_of(text: str, tmp_path: Path) -> None:
    """Rows that are read are no state, and what only another command loads never comes ahead of a resume."""
    loop = script("", "", "").removeprefix(STEP)
    inner = "".join(f"    {line}\n" for line in loop.splitlines()) if text.endswith("else:\n") else loop
    found = proposed(tmp_path, f"shown = 0\n{STEP}{text}{inner}")
    assert not [one for one in found.remarks if "loads stays" in one]


@pytest.mark.parametrize(("default", "told"), [("", 1), (", default=None", 1), (", default=0", 0)])
def test_a_seed_that_only_an_option_gives_is_asked_for(default: str, told: int, tmp_path: Path) -> None:
    """A cache that a shuffled pass has filled ahead of the loop is the same at each start only with a seed."""
    ahead = f"""
parser.add_argument("--seed", type=int{default})
args = parser.parse_args()
if args.seed is not None:
    torch.manual_seed(args.seed)
cache = []
data = torch.utils.data.DataLoader(rows, shuffle=True)
for x in data:
    cache.append(x)
"""
    found = proposed(tmp_path, script(ahead, "cache[0].sum()", ""))
    assert len([one for one in found.remarks if "seeds only where args.seed is given" in one]) == told


def test_an_average_that_is_not_seen_need_not_know_its_state(tmp_path: Path) -> None:
    """An average of a class from elsewhere may have no state_dict(): its attributes are kept then."""
    text = script(
        "from helpers import Average\nema = Average(model) if fast else None\n", "ema.update(model)", ""
    )
    after = proposed(tmp_path, text.replace("fast", "len('x')")).after.decode()
    assert '"ema": ema' in after
    assert "ckpt.add" not in after


def test_a_sampler_of_images_is_no_schedule(tmp_path: Path) -> None:
    """diffusers' schedulers have a step() of three values, which belongs to the pictures that are drawn on the way."""
    text = f"""{STEP}
for epoch in range(3):
    for at, x in enumerate(data):
        loss = model(x).sum()
        loss.backward()
        if (at + 1) % 2 == 0:
            optimizer.step()
            optimizer.zero_grad()
        if at % 10 == 0:
            x = sampling_scheduler.step(model(x), at, x).prev_sample
"""
    assert b"ckpt.step(" in proposed(tmp_path, text).after


def test_epochs_begin_where_the_first_start_has_begun_them(tmp_path: Path) -> None:
    """Where the script's own resume says in which epoch to begin, that is brought back, with a bar around it, too."""
    text = f"""from tqdm import tqdm
{STEP}
state = {{"epoch": 0}}
restart("last.pt", state, model=model)
start = state["epoch"]
for epoch in tqdm(range(start, 9)):
    for x in data:
        loss = model(x).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
"""
    assert b'(start,) = ckpt.carry(lambda: {"start": start})' in proposed(tmp_path, text).after


SECOND = {
    "os.mkdir('out')": "makes a folder, and ends a second start with an error",
    "os.makedirs('out', exist_ok=True)": "",
    "if not os.path.exists('out'):\n    os.mkdir('out')": "",
    "log = open('log.txt', 'w')": "empties 'log.txt' at each start",
    "log = open('log.txt', 'a')": "",
}


@pytest.mark.parametrize("ahead", SECOND)
def test_what_a_second_start_meets_is_told(ahead: str, tmp_path: Path) -> None:
    """A folder that is made without ``exist_ok`` ends the second start; a log that is opened anew loses the first's."""
    remarks = proposed(tmp_path, script(f"import os\n{ahead}\n", "print(epoch, file=log)", "")).remarks
    assert [SECOND[ahead] in one for one in remarks] == ([True] if SECOND[ahead] else [])


def test_what_may_have_been_deleted_is_looked_for(tmp_path: Path) -> None:
    """What is made in any case, and deleted under a condition, isn't overwritten; what only moves isn't kept at all."""
    ahead = """
coder, mover, n = Coder(), Coder(), 3
if len(data) > 5:
    coder, mover = coder.to("cuda"), mover.to("cuda")
    del coder, mover
"""
    body = (
        "mover = mover.to('cpu')\nx = mover(x)\nif epoch:\n    coder, n = coder.next(), n + 1\nx = coder(x)"
    )
    after = proposed(tmp_path, script(ahead, body, "")).after.decode()
    assert "coder = None" not in after
    assert 'coder = locals().get("coder")' in after
    assert '"mover"' not in after
    grown = script(ahead, f"{body}\nmover[number] = x", "")
    assert '"mover": mover' in proposed(tmp_path, grown).after.decode()


def test_a_function_deletes_its_own_name_alone(tmp_path: Path) -> None:
    """``del pipe`` in a function takes what its parameter is called, and not the variable that it was given."""
    ahead = "def show(pipe):\n    pipe(1)\n    del pipe\n"
    body = "if epoch:\n    pipe = make(model)\n    show(pipe)\n    print(pipe)"
    assert '"pipe"' not in proposed(tmp_path, script(ahead, body, "")).after.decode()


def test_options_that_are_listed_hide_no_name(tmp_path: Path) -> None:
    """``vars(args)`` asks for an object's attributes, not for which names are set: what an ``if`` makes is kept."""
    ahead = "if fast:\n    bank = Bank()\nlog(config=vars(args))\n"
    after = proposed(tmp_path, script(ahead.replace("fast", "len('x')"), "if bank: bank.push(x)", "")).after
    assert b'"bank": bank' in after


def test_what_a_hook_writes_and_loads_is_not_kept_twice(tmp_path: Path) -> None:
    """An average that the script's own hooks of save_state write and load comes back by these alone."""
    text = """
import torch
from accelerate import Accelerator
accelerator = Accelerator()
average = Average(model)
def write(models, weights, folder):
    average.save_pretrained(folder)
def read(models, folder):
    average.load_state_dict(Average.load(folder))
accelerator.register_save_state_pre_hook(write)
accelerator.register_load_state_pre_hook(read)
model, optimizer, data = accelerator.prepare(model, optimizer, data)
for x in data:
    accelerator.backward(model(x).sum())
    optimizer.step()
    optimizer.zero_grad()
    average.step(model.parameters())
"""
    assert b'"average"' not in proposed(tmp_path, text).after
    assert b'"average"' in proposed(tmp_path, text.replace("average.load_state_dict", "print")).after


def test_turns_that_gather_batches_step_where_these_are_together(tmp_path: Path) -> None:
    """Two optimizers that take turns, each within ``accumulate``: a batch is a step only where gradients are synced."""
    text = """
import torch
from accelerate import Accelerator
accelerator = Accelerator(gradient_accumulation_steps=2)
coder, critic, first, second, data = accelerator.prepare(coder, critic, optim_a, optim_b, data)
for number, x in enumerate(data):
    if number // 2 % 2 == 0:
        with accelerator.accumulate(coder):
            accelerator.backward(coder(x).sum())
            first.step()
            first.zero_grad()
    else:
        with accelerator.accumulate(critic):
            accelerator.backward(critic(x).sum())
            second.step()
            second.zero_grad()
"""
    after = proposed(tmp_path, text).after.decode()
    assert "    if accelerator.sync_gradients:\n        ckpt.step()" in after


def test_what_is_made_anew_only_where_it_is_not_trained_hinders_nothing(tmp_path: Path) -> None:
    """A model that an option trains, and that is loaded for a look without it, is no other one behind that look."""
    text = """
import torch
from accelerate import Accelerator
accelerator = Accelerator()
if args.train_reader:
    model, reader, optimizer, data = accelerator.prepare(model, reader, optimizer, data)
else:
    model, optimizer, data = accelerator.prepare(model, optimizer, data)
for epoch in range(3):
    for x in data:
        accelerator.backward(model(x).sum())
        optimizer.step()
        optimizer.zero_grad()
    if not args.train_reader:
        reader = Reader.load()
    show(reader)
"""
    assert b"ckpt.step(" in proposed(tmp_path, text).after
    (tmp_path / "train.py").write_text(text.replace("if not args.train_reader", "if args.again"))
    found = propose(tmp_path / "train.py", "v")
    assert isinstance(found, Unrecognised)
    assert "makes reader anew" in found.reason


def test_a_round_that_ends_behind_its_first_optimizer_is_a_step(tmp_path: Path) -> None:
    """While only the first of two optimizers trains, its rounds are steps: else nothing would be saved until then."""
    text = f"""{STEP}
critic = torch.nn.Linear(2, 1)
second = torch.optim.SGD(critic.parameters(), lr=0.1)
for number, x in enumerate(data):
    optimizer.zero_grad()
    model(x).sum().backward()
    optimizer.step()
    if number < 5:
        continue
    second.zero_grad()
    loss = critic(x).sum()
    loss.backward()
    second.step()
"""
    after = proposed(tmp_path, text).after.decode()
    assert "        ckpt.step()\n        continue\n" in after
    assert "    second.step()\n    ckpt.step(loss=loss)\n" in after


def test_what_a_round_deletes_is_not_asked_for_at_a_save(tmp_path: Path) -> None:
    """What is loaded for a look and deleted behind it isn't kept; what may be gone at a save leaves a script alone."""
    ahead = "reader = Reader()\nif not args.train:\n    del reader\n"
    behind = "    if not args.train:\n        reader = Reader()\n    show(reader)\n    if {}:\n        del reader\n"
    after = proposed(tmp_path, script(ahead, "", behind.format("not args.train"))).after.decode()
    assert "reader" not in after.partition("ckpt = ")[2].partition("for epoch")[0]
    (tmp_path / "train.py").write_text(script(ahead, "", behind.format("args.small")))
    found = propose(tmp_path / "train.py", "v")
    assert isinstance(found, Unrecognised)
    assert "deletes reader within the loop" in found.reason
