"""Put the integration into a script of the user's own, as a diff that a person can read, refuse and undo.

    propose (source -> trainers | loop -> loop_edits) -> Proposal -> apply -> undo

Nothing here imports torch or runs the script.

    ahead_of_batches.py what an epoch does ahead of its batches, and a resume within it does again
    apply.py          write a proposal into the script and keep what it was; put that back
    bare_tensors.py   optimizers of tensors that no module holds
    by_hand.py        scripts without an optimizer, which change the parameters by themselves
    callers.py        who calls a function of a script's own, and how often
    calls.py          calls in a script: of methods by name, on what, and what a name was made by
    clock_stops.py    loops that a clock or a signal ends, where the next start is to go on
    defined_before.py which names are surely set where a statement begins
    draws.py          data that a script draws anew at each start
    flow.py           which names a piece of a script reads and writes
    frameworks.py     scripts whose loop isn't in them
    handed_on.py      generators that hand on a loader's batches one by one, and log on their way
    held_loaders.py   objects that hold a loader and its open iterator, and give batches by a method
    kept_files.py     files that a loop writes and the script reads behind it
    lasting_gradients.py loops that never set their gradients to zero
    left_pass.py      passes through the data that a step ends before their last batch
    local_rounds.py   Accelerate's LocalSGD
    loop.py           find a script's training loop
    loop_edits.py     scripts with a training loop of their own
    loop_limits.py    loops that are understood, and that a resume couldn't bring back right
    loop_names.py     what a training loop's objects are called where its Checkpointer is made
    loop_variables.py variables and objects that a loop changes beside its model and optimizer
    loss_name.py      what a loop's loss is called where a step ends
    maybe_set.py      names that a script sets only under a condition ahead of its loop
    own_classes.py    classes of the script's own: whether a call of their methods changes the object
    own_functions.py  functions of a script's own: which one a call leads to, and what its names stand for
    own_resume.py     scripts that resume by themselves, beside us
    pass_down.py      a loop that is spread over functions: those on the way get the Checkpointer
    pieces.py         pieces of code that an edit of a loop reads and writes
    propose.py        what `vl init` would change in a script, as data: nothing is written here
    remarks.py        what a user should know beside the edits of a loop
    saved_states.py   Accelerate scripts that save and load states themselves
    seen_names.py     names that a walk meets
    source.py         A script as text and as a tree, and edits of it that leave every other byte as it is
    step_end.py       where a step of a loop ends
    drawn_loaders.py  loaders that a loop draws from with next(), and the Streams that stand for them
    streams.py        iterators that outlive a pass through the data
    trainers.py       scripts that make a Trainer: it gets ``resume=``, and nothing else changes
    walk.py           walk through a piece of a script as it runs
    wrappers.py       classes of a script's own around an optimizer

Imports stores and errors; cli imports it.
"""
