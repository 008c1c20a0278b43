"""Training loops of one's own, with Accelerate or plain PyTorch: the second seam.

    accelerator.py      what an Accelerator has prepared, as the state of a loop
    added_groups.py     groups of parameters that a loop gives its optimizer on its way
    arguments.py        what a Checkpointer makes of its arguments
    asked.py            what a loop is asked for, as far as its objects tell
    async_facts.py      what decides whether a loop's save may run beside its training
    async_fit.py        where a loop's save may run beside its training
    async_saves.py      a loop's saves beside its training
    behind_steps.py     what is said behind steps, since it can't be seen ahead of them
    carried.py          variables that a loop hands on from one round to the next
    carried_values.py   what such variables hold, as a file keeps it, and back
    checkpointer.py     the Checkpointer
    data.py             the loop's side of the place in the data
    files.py            the files of a checkpoint that a loop of one's own writes
    folder.py           what the checkpoint folder of a loop holds
    group_options.py    what an optimizer's groups of parameters are trained with
    hooks.py            an Accelerator's own save_state and load_state, led through a vault
    keepable.py         what a Checkpointer can keep beside what has a state of its own
    kept_contents.py    what a list or dict holds, brought back into the one that is there
    kept_file.py        a file that a loop writes on its way and needs at its end
    kept_gradients.py   gradients that a loop hands on from one step to the next
    left_gradients.py   gradients of parameters that no optimizer trains
    life.py             how the training of a loop begins and ends on a vault
    loader_places.py    which place of a checkpoint belongs to which of a run's loaders
    loader_ways.py      which way there is to a place in each of a loop's loaders
    loose_parameters.py tensors that an optimizer trains and no model holds
    made_later.py       objects that a loop makes behind ``carry()``
    model_names.py      weights that one rank wrote and several load, or the other way round
    objects.py          what a loop's checkpoint consists of
    other_optimizers.py optimizers that train a loop's parameters, and that its Checkpointer hasn't got
    pass_notices.py     what is said of passes that a resume doesn't do as an unbroken run does
    passes.py           a script's own loops over epochs and batches, led past what is done
    pending_gradients.py gradients that no optimizer has used yet
    placed_tensors.py   tensors within what is carried, back on their devices
    position_format.py  formats of a loop's place in its data
    running.py          a loop under way, from ``resume()`` to its end
    script_folders.py   folders that an attached script's own save_state writes
    shared_data.py      what loaders of one run share, which is brought back once
    step_hook.py        told of each step of any optimizer
    stream.py           a loader that a loop draws from with next()
    update_length.py    how many steps an update takes, and so how many ranks may be apart
    ways.py             ways to a place in a loader

Imports session and below, never trainer or transformers; cli and run may import it.
"""
