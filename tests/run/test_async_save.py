"""Saves beside the training under `vl run`: killed within them again and again, an unedited script ends the same."""

from __future__ import annotations

import textwrap

import pytest

from tests.run.programs import SCRIPT, plain, torchrun, vl_run

PLANS = {
    "trainer": ("captured checkpoint-4,renamed checkpoint-8,sealed checkpoint-10", [0, 2, 8, 10]),
    "ranks": ("written checkpoint-8", [0, 6]),
    "accelerate": ("half written checkpoint-6,renamed checkpoint-8", [0, 4, 8]),
}
"""When each attempt is killed, and where each begins: with the newest checkpoint whose folder has appeared."""
KILL = (
    "from tests.kit import within_save; within_save.capture_small_states(); "
    "os.environ.get('RANK', '0') == '0' and within_save.kill_in_turn({!r})"
)
LOOP = textwrap.dedent(
    """
    import hashlib, os, time, torch
    from accelerate import Accelerator
    from torch.utils.data import DataLoader
    from vaultlayer_hf import Checkpointer

    exec(os.environ.get("BEFORE", ""))
    torch.manual_seed(0)
    torch.set_num_threads(1)
    accelerator = Accelerator(cpu=True)
    model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.BatchNorm1d(8), torch.nn.Dropout(0.2))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    loader = DataLoader(torch.rand(40, 8), batch_size=4, shuffle=True)
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    ckpt = Checkpointer(accelerator=accelerator, save_every="2 steps", output_dir="out")
    ckpt.resume()
    for step, batch in ckpt.steps(loader, total=12):
        loss = (model(batch) ** 2).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        ckpt.step(loss=loss)
        time.sleep(float(os.environ.get("PACE", "0")))
    ckpt.finish()
    print("WEIGHTS", hashlib.sha256(b"".join(v.numpy().tobytes() for v in model.state_dict().values())).hexdigest())
    """
)


@pytest.mark.slow
@pytest.mark.parametrize("kind", PLANS)
def test_killed_within_saves(kind, tmp_path) -> None:
    """A Trainer's script, on one rank and on two, and one with accelerate: killed at moments of such saves, they go on
    from the newest checkpoint whose folder has appeared, to the weights of a run that nothing disturbs."""
    plan, starts = PLANS[kind]
    script = LOOP if kind == "accelerate" else SCRIPT
    command = (*torchrun(2), "train.py") if kind == "ranks" else ()
    more = {"PACE": "0.1"}
    undisturbed = tmp_path / "undisturbed"
    undisturbed.mkdir()
    if script == SCRIPT:
        expected = plain(undisturbed, *command).weights
        (tmp_path / "vaultlayer.toml").write_text('async_save = "auto"\n')
    else:
        expected = vl_run(undisturbed, script=script, **more).weights
        more["VAULTLAYER_ASYNC_SAVE"] = "auto"
    ran = vl_run(tmp_path, *command, script=script, BEFORE=KILL.format(plan), timeout=280, **more)
    assert ran.code == 0
    assert ran.causes == ["killed"] * (len(starts) - 1) + ["finished"]
    assert [ran.notes(attempt + 1, "train")[0]["step"] for attempt in range(len(starts))] == starts
    assert ran.weights == expected
    assert not list((tmp_path / "out").glob("**/pending-*"))
    assert "async_save" not in ran.err
