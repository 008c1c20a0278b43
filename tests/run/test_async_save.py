"""Saves beside the training under `vl run`: killed within them again and again, an unedited script ends the same."""

from __future__ import annotations

import textwrap

import pytest

from tests.run.programs import SCRIPT, plain, vl_run

PLANS = {
    "trainer": (
        "captured checkpoint-4,half written checkpoint-6,written checkpoint-8,renamed checkpoint-8,"
        "sealed checkpoint-10",
        [0, 2, 4, 6, 8, 10],
    ),
    "loop": ("half written checkpoint-6,renamed checkpoint-8", [0, 4, 8]),
    "accelerate": ("captured checkpoint-4,written checkpoint-8", [0, 2, 6]),
}
"""When each attempt is killed, and where each begins: with the newest checkpoint whose folder has appeared."""
KILL = "from tests.kit import within_save; within_save.capture_small_states(); within_save.kill_in_turn({!r})"
LOOP = textwrap.dedent(
    """
    import hashlib, os, time, torch
    from torch.utils.data import DataLoader
    from vaultlayer_hf import Checkpointer

    exec(os.environ.get("BEFORE", ""))
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.BatchNorm1d(8), torch.nn.Dropout(0.2))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    loader = DataLoader(torch.rand(40, 8), batch_size=4, shuffle=True)
    given = {"model": model, "optimizer": optimizer}
    if os.environ.get("ACCELERATE"):
        from accelerate import Accelerator
        accelerator = Accelerator(cpu=True)
        model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
        given = {"accelerator": accelerator}
    ckpt = Checkpointer(save_every="2 steps", output_dir="out", **given)
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
    """A Trainer's script, one with a loop and one with accelerate: killed at moments of such saves, they go on from the
    newest checkpoint whose folder has appeared, to the weights of a run that nothing disturbs."""
    plan, starts = PLANS[kind]
    script = SCRIPT if kind == "trainer" else LOOP
    more = {"PACE": "0.1", **({"ACCELERATE": "yes"} if kind == "accelerate" else {})}
    undisturbed = tmp_path / "undisturbed"
    undisturbed.mkdir()
    if kind == "trainer":
        expected = plain(undisturbed).weights
        (tmp_path / "vaultlayer.toml").write_text('async_save = "auto"\n')
    else:
        expected = vl_run(undisturbed, script=script, **more).weights
        more["VAULTLAYER_ASYNC_SAVE"] = "auto"
    ran = vl_run(tmp_path, script=script, BEFORE=KILL.format(plan), timeout=280, **more)
    assert ran.code == 0
    assert ran.causes == ["killed"] * (len(starts) - 1) + ["finished"]
    assert [ran.notes(attempt + 1, "train")[0]["step"] for attempt in range(len(starts))] == starts
    assert ran.weights == expected
    assert not list((tmp_path / "out").glob("**/pending-*"))
    assert "async_save" not in ran.err
