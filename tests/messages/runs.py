"""What a run says: at its start, while it saves, in trouble, when it is stopped, and where it is refused."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.kit.any_files import AnyFiles
from tests.messages.situations import begin, situation
from tests.vault.tools import forge_entry
from tests.vault.vaults import PARAMETERS, TrainersFiles, a_session, start, train, write_checkpoint
from vaultlayer_hf import Settings
from vaultlayer_hf.errors import StoreDeniedError, StoreUnavailableError
from vaultlayer_hf.session.save.plan import Save
from vaultlayer_hf.session.start.resume import resume
from vaultlayer_hf.session.training import Training
from vaultlayer_hf.stores.folder import FolderStore
from vaultlayer_hf.stores.uri import parse_vault
from vaultlayer_hf.testing import FaultStore, Operation
from vaultlayer_hf.vault.log.entry import decode_entry, encode_entry

START, SAVE, STOP = "A start", "Saves, and trouble with the vault", "The end"
REFUSED, SETTINGS = "A start that is refused", "Settings and addresses that can't be meant"


@situation(START, "an empty vault")
def fresh(folder: Path) -> None:
    start(str(folder / "vault"), folder / "out")


@situation(START, "going on, on a new disk")
def new_disk(folder: Path) -> None:
    train(str(folder / "vault"), folder / "old", 2, 4)
    begin()
    start(str(folder / "vault"), folder / "out")


@situation(START, "going on, where output_dir is still there")
def same_disk(folder: Path) -> None:
    train(str(folder / "vault"), folder / "out", 2, 4)
    begin()
    start(str(folder / "vault"), folder / "out")


@situation(START, "another process has written to the vault a moment ago")
def two_writers(folder: Path) -> None:
    train(str(folder / "vault"), folder / "out", 2)
    begin()
    _by_another_host(folder / "vault")
    start(str(folder / "vault"), folder / "other")


@situation(START, "output_dir holds checkpoints of a time before the vault")
def older_checkpoints(folder: Path) -> None:
    write_checkpoint(folder / "out", 30)
    start(str(folder / "vault"), folder / "out")


@situation(START, "VAULT@2 goes back, and started again goes on")
def at_step(folder: Path) -> None:
    train(str(folder / "vault"), folder / "out", 2, 4, keep_last=None)
    begin()
    train(f"{folder}/vault@2", folder / "out", 3)
    start(f"{folder}/vault@2", folder / "out")


@situation(START, "a fork of another run")
def fork(folder: Path) -> None:
    train(str(folder / "vault"), folder / "out", 2, 4)
    begin()
    start(str(folder / "new"), folder / "other", fork=f"{folder}/vault@4")


@situation(START, "the newest checkpoint is damaged")
def damaged(folder: Path) -> None:
    train(str(folder / "vault"), folder / "old", 2, 4)
    begin()
    flip(next((folder / "vault").glob("data/*/checkpoint-4/model.safetensors")))
    start(str(folder / "vault"), folder / "out")


@situation(SAVE, "saves that follow each other fast")
def fast_saves(folder: Path) -> None:
    session, _ = a_session(str(folder / "vault"), folder / "out", keep_last=2)
    training = Training(session)
    resume(session, TrainersFiles())
    for step in range(1, 9):
        _save(training, folder / "out", step)
        assert session.uploader is not None
        assert session.uploader.wait(60)
    training.flush()
    training.close()


@situation(SAVE, "the vault doesn't answer for a while")
def outage(folder: Path) -> None:
    _in_trouble(folder, StoreUnavailableError("upload", "data/1/checkpoint-2/model.safetensors", "no answer"))


@situation(SAVE, "the right to write is withdrawn")
def denied(folder: Path) -> None:
    hint = "allow s3:PutObject below the prefix"
    _in_trouble(folder, StoreDeniedError("upload", "data/1/checkpoint-2/a", "access denied", hint))


@situation(SAVE, "another start takes the vault")
def fenced(folder: Path) -> None:
    session, _ = a_session(str(folder / "vault"), folder / "out")
    training = Training(session)
    resume(session, TrainersFiles())
    start(str(folder / "vault"), folder / "other")
    _save(training, folder / "out", 2)
    training.flush()


@situation(STOP, "the vault is out of reach at the end")
def not_in(folder: Path) -> None:
    store = FaultStore(FolderStore(folder / "vault"))
    session, _ = a_session(str(folder / "vault"), folder / "out", store=store, flush_timeout=0.5)
    training = Training(session)
    resume(session, TrainersFiles())
    error = StoreUnavailableError("upload", "data/1/checkpoint-2/a", "no answer")
    store.plan = _fails(error, "upload")
    _save(training, folder / "out", 2)
    training.flush()
    training.close()


def _stopped(folder: Path, number: signal.Signals) -> list[str]:
    from tests.trainer.kit import Do, trainer

    def stop(state: Any) -> None:
        if state.global_step == 3:
            os.kill(os.getpid(), number)

    try:
        trainer(
            folder / "out", resume=str(folder / "vault"), save_steps=100, callbacks=[Do(on_step_end=stop)]
        ).train()
    except (KeyboardInterrupt, SystemExit) as error:
        kind = KeyboardInterrupt if isinstance(error, KeyboardInterrupt) else SystemExit
        return [f"{kind.__name__}: {error}"]
    return []


@situation(STOP, "Ctrl-C", ordered=False)
def interrupted(folder: Path) -> list[str]:
    return _stopped(folder, signal.SIGINT)


@situation(STOP, "SIGTERM, as a scheduler sends it", ordered=False)
def terminated(folder: Path) -> list[str]:
    return _stopped(folder, signal.SIGTERM)


@situation(STOP, "a run that is over is started again")
def over(folder: Path) -> None:
    from tests.trainer.kit import trainer

    for _ in range(2):
        begin()
        trainer(folder / "out", resume=str(folder / "vault"), max_steps=2).train()


@situation(REFUSED, "the vault is a file")
def a_file(folder: Path) -> None:
    (folder / "vault").write_text("")
    start(str(folder / "vault"), folder / "out")


@situation(REFUSED, "the bucket doesn't exist")
def no_bucket(folder: Path) -> None:
    reason = "the bucket doesn't exist"
    hint = "create it, or check its name, AWS_REGION and AWS_ENDPOINT_URL"
    _unreachable(folder, StoreDeniedError("list", "log/", reason, hint))


@situation(REFUSED, "the network is down")
def no_network(folder: Path) -> None:
    _unreachable(folder, StoreUnavailableError("list", "log/", "no answer"))


@situation(REFUSED, "output_dir as the vault")
def output_dir(folder: Path) -> None:
    start(str(folder / "out"), folder / "out")


@situation(REFUSED, "a folder of one's own as the vault")
def others_folder(folder: Path) -> None:
    (folder / "project").mkdir()
    (folder / "project" / "train.py").write_text("")
    start(str(folder / "project"), folder / "out")


@situation(REFUSED, "another model")
def other_model(folder: Path) -> None:
    train(str(folder / "vault"), folder / "out", 2)
    begin()
    session, _ = a_session(str(folder / "vault"), folder / "other")
    resume(session, TrainersFiles((("first.weight", (8, 4), "float32"), *PARAMETERS[1:])))


@situation(REFUSED, "a step that isn't there")
def no_such_step(folder: Path) -> None:
    train(str(folder / "vault"), folder / "out", 2, 4)
    begin()
    start(f"{folder}/vault@3", folder / "out")


@situation(REFUSED, "a step of a mistyped vault")
def typo(folder: Path) -> None:
    train(str(folder / "vault"), folder / "out", 2)
    begin()
    start(f"{folder}/vautl@2", folder / "out")


@situation(REFUSED, "the log is gone")
def no_log(folder: Path) -> None:
    train(str(folder / "vault"), folder / "out", 2)
    begin()
    for path in (folder / "vault" / "log").iterdir():
        path.unlink()
    start(str(folder / "vault"), folder / "other")


@situation(REFUSED, "the log names no checkpoint any more")
def vanished(folder: Path) -> None:
    train(str(folder / "vault"), folder / "out", 2, 4)
    begin()
    forge_entry(
        FolderStore(folder / "vault"), 3, {"kind": "claim", "token": 3, "state": {"token": 3, "commits": []}}
    )
    start(str(folder / "vault"), folder / "other")


@situation(REFUSED, "every checkpoint is damaged")
def all_damaged(folder: Path) -> None:
    train(str(folder / "vault"), folder / "old", 2)
    begin()
    flip(next((folder / "vault").glob("data/*/checkpoint-2/model.safetensors")))
    start(str(folder / "vault"), folder / "out")


@situation(REFUSED, "two runs in one output_dir")
def two_runs(folder: Path) -> None:
    session, _ = a_session(str(folder / "vault"), folder / "out")
    resume(session, TrainersFiles())
    try:
        start(str(folder / "other"), folder / "out")
    finally:
        session.close()


def _refuse_settings() -> None:
    wrong = {
        "bandwidth": "fast",
        "save_every": "often",
        "max_loss": "much",
        "signals": "SIGNOTHING",
        "notices": "ibm",
        "on_fenced": "shout",
        "async_save": "yes",
        "exact_data": "maybe",
        "upload_concurrency": 0,
        "keep_last": 0,
        "grace": -1,
    }
    for name, value in wrong.items():

        def say(folder: Path, name: str = name, value: object = value) -> None:
            Settings(vault=str(folder / "vault"), **{name: value})  # type: ignore[arg-type]

        situation(SETTINGS, f"{name}={value!r}")(say)


def _refuse_addresses() -> None:
    for text in ("", "s3:bucket/x", "S3://bucket/x", "s3://", "s3://bucket?region=eu", "s4://bucket/x",
                 "ftp://host/x", "gss://bucket/x", "https://bucket.s3.amazonaws.com/run", "runs/llama@lastest",
                 "runs/llama@ 40", "/"):  # fmt: skip

        def say(folder: Path, text: str = text) -> None:
            parse_vault(text)

        situation(SETTINGS, f"resume={text!r}")(say)


_refuse_settings()
_refuse_addresses()


def _fails(error: Exception, *names: str) -> Callable[[Operation], None]:
    """A plan by which all operations fail, or those of these names."""

    def fail(operation: Operation) -> None:
        if operation.name in names or not names:
            raise error

    return fail


def flip(path: Path) -> None:
    """Change one byte of a file."""
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)


def _by_another_host(vault: Path) -> None:
    """Make the vault's claims those of another machine."""
    for path in (vault / "log").glob("*.json"):
        entry = decode_entry(path.read_bytes(), int(path.stem))
        if entry.kind == "claim":
            path.write_bytes(encode_entry(replace(entry, detail={**entry.detail, "host": "another-host"})))


def _save(training: Training, output: Path, step: int) -> None:
    folder = write_checkpoint(output, step)
    training.save(Save(folder, step, AnyFiles(), parameters=PARAMETERS, best_step=None))


def _in_trouble(folder: Path, error: Exception) -> None:
    store = FaultStore(FolderStore(folder / "vault"))
    session, heard = a_session(str(folder / "vault"), folder / "out", store=store)
    training = Training(session)
    resume(session, TrainersFiles())
    store.plan = _fails(error, "upload")
    _save(training, folder / "out", 2)
    deadline = time.monotonic() + 20
    while not heard.reasons("trouble") and time.monotonic() < deadline:
        time.sleep(0.01)
    store.plan = {}
    training.flush()
    training.close()


def _unreachable(folder: Path, error: Exception) -> None:
    store = FaultStore(FolderStore(folder / "vault"), _fails(error))
    session, _ = a_session("s3://my-bucket/run", folder / "out", store=store, resume_timeout=1.0)
    resume(session, TrainersFiles())
