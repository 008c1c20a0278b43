"""transformers.Trainer: the first seam.

    adapter_load.py     a model's adapters, while a Trainer loads a checkpoint
    adapter_rest.py     what is trained beside an adapter, and its files don't hold
    added.py            state outside the model that is carried with each checkpoint
    added_groups.py     groups of parameters that a script gives a Trainer's optimizer in mid-run
    argument.py         what the values of ``resume=`` mean
    asked.py            what a training is asked for
    async_save/         a Trainer's save beside its training
    asked_epochs.py     the epochs that are asked for, where steps have another number of samples than they had
    begun.py            a training that a Trainer has begun, as it hands it to its callbacks
    call.py             a call of ``train()``, of which one argument is read and may be replaced
    callback.py         the callback: the Trainer's events on one side, its run on a vault on the other
    callback_states.py  what callbacks had counted when a checkpoint was saved, put back into them
    data.py             the Trainer's side
    data_holdings.py    what data sets and a collator keep beside numbers and random generators
    data_file.py        the place in the data beside a Trainer's checkpoint, one small file a rank
    demo_training.py    the training script of `vl demo`
    epoch_end.py        the end of an epoch behind whose last step the checkpoint was saved
    evaluation_data.py  generators and counters of the data that a Trainer evaluates on
    evaluations.py      evaluations with persistent workers
    exchanged.py        which parts a training is made of, to tell what a script exchanges on its way
    first_callback.py   what stands ahead of all other callbacks: the vault's figures in the logs, the count of epochs
    first_save.py       what a process's first save would take longer for, done ahead of it, beside the training
    first_step.py       between the begin of a training that goes on and its first step
    fork_numbers.py     a fork trains with this script's own learning rate and schedule
    in_evaluation.py    a notice that comes within an evaluation
    kept_runs.py        which runs the experiment trackers have, kept with each checkpoint
    layout.py           the files of the Trainer's own checkpoint folder
    loadable.py         how a Trainer's resume loads the files of its checkpoint
    loaded.py           behind the load of a resume, ahead of the first step
    logged.py           how far logs had come when an attempt died, so that a tracker isn't told of a step twice
    logged_loss.py      the loss that a Trainer has summed up since its last log, kept with each checkpoint
    loop_locals.py      variables of the loop that trains, which some numbers are in alone
    micro_batches.py    of all ranks, compared before they train
    named.py            what a train() goes on from where the script names a checkpoint
    notices.py          what a Trainer's run says to whoever reads its log
    on_stack.py         which Trainer, and which of its handlers, is calling a callback
    optimizer_load.py   a Trainer's load of its optimizer and its schedule
    origin.py           what a Trainer's training goes on from
    outside.py          what a Trainer trains outside its model
    over.py             whether a run is over
    own_attributes.py   which attributes of an object may be state that no file of a checkpoint holds
    own_fingerprints.py what a script's own objects hold, to tell what training changes
    own_fixed.py        what a script makes at each start and training leaves as it is
    own_of_ranks.py     what rank 0 has kept of such state, for each of another number of ranks
    own_places.py       where a script's own objects keep what training changes
    own_state.py        state in attributes of a script's own objects
    own_warnings.py     what is said of such state that isn't kept
    run.py              one Trainer's run on its vault
    saved_best.py       the best checkpoint, where a save is lost
    saving.py           a Trainer's save while it trains on a vault
    skipping.py         how the Trainer goes past batches
    state_file.py       trainer_state.json made fit for this transformers
    step_sizes.py       what the steps of a start are made of
    terms.py            the Trainer's terms in those of a session
    trackers.py         one run in the experiment tracker over all attempts of a training, and no step in it twice
    train_on.py         what a Trainer's ``train()`` does on a vault
    trainer.py          the one argument: ``resume=`` for transformers.Trainer and for any subclass of it
    trained.py          what a Trainer trains: which of it a checkpoint holds, and whether it is finite
    trained_parts.py    which parameters are trained, and which adapters are active
    trainer_files.py    the Trainer's answers to what a save and a start ask about a checkpoint's files
    trl_generations.py  generations of a checkpoint with another micro-batch are cut anew
    trl_state.py        what TRL's Trainers hold outside their model
    under_way.py        one training that is committed, from its begin to its end
    unwritable.py       what of a Trainer's state JSON can't hold, named where a save fails on it
    wrapping.py         methods of one object, or functions of a module, wrapped for a while
    zero.py             DeepSpeed's ZeRO on another number of ranks

With run/inside the only folder that imports transformers; run/inside imports it, and loops never does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vaultlayer_hf.trainer.trainer import Trainer, resumable

__all__ = ["Trainer", "resumable"]


def __getattr__(name: str) -> Any:
    if name not in (*__all__, "_rebuild"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from vaultlayer_hf.trainer import trainer

    return getattr(trainer, name)
