"""Put the integration into a script of the user's own, as a diff that a person can read, refuse and undo.

    propose (source -> trainers | find_loop -> loop_edits) -> Proposal -> apply -> undo

Nothing here imports torch or runs the script.

    ahead_of_batches.py  what an epoch does ahead of its batches, and a resume within it does again
    apply.py             write a proposal into the script and keep what it was; put that back
    asked_ahead.py       conditions ahead of an epoch's batches, which a resume within it has passed
    asked_again.py       conditions that are asked once more behind what they decide on
    asked_bars.py        loops that ask a progress bar how far they are
    averages.py          averages of weights that a loop moves along
    bare_tensors.py      optimizers of tensors that no module holds
    batch_edits.py       the loops over the epochs and their batches, led past what is done
    between_trainings.py what goes from one training of a script to the next
    by_hand.py           scripts without an optimizer, which change the parameters by themselves
    called_models.py     which of its parameters a function trains that is called several times
    callers.py           who calls a function of a script's own, and how often
    calls.py             calls in a script: of methods by name, on what, and what a name was made by
    changed_members.py   objects in a list or a dict that a loop changes one by one
    changed_modules.py   modules outside of the optimizer that a loop changes, and what a model counts
    class_methods.py     which method a call on self leads to
    clock_stops.py       loops that a clock or a signal ends, where the next start is to go on
    cst.py               libcst, imported where something of it is first asked for
    defined_before.py    which names are set where a statement begins: surely, or at all
    drawn_ahead.py       shuffled data that a script goes through ahead of its loop
    drawn_loaders.py     loaders that a loop draws from with next(), and the Streams that stand for them
    draws.py             data that a script draws anew at each start
    early_ends.py        rounds that end by continue or break ahead of where others do
    find_loop.py         find a script's training loop
    frameworks.py        scripts whose loop isn't in them
    given.py             lists, dicts and objects that the caller of the loop's function holds, too
    handed_on.py         generators that hand on a loader's batches one by one, and log on their way
    held_loaders.py      objects that hold a loader and its open iterator, and give batches by a method
    kept_files.py        files that a loop writes and the script reads behind it
    lasting_gradients.py loops that never set their gradients to zero
    left_pass.py         passes through the data that a step ends before their last batch
    listed_names.py      what the variables of a loop over a list in its head stand for
    local_rounds.py      Accelerate's LocalSGD
    loop.py              a training loop as it was found in a script
    loop_edits.py        scripts with a training loop of their own
    loop_limits.py       loops that are understood, and that a resume couldn't bring back right
    loop_names.py        what a training loop's objects are called where its Checkpointer is made
    loop_start.py        the lines ahead of a loop
    loop_variables.py    variables and objects that a loop changes beside its model and optimizer
    loss_name.py         what a loop's loss is called where a step ends
    made_ahead.py        values that an epoch makes ahead of its batches of what these change
    maybe_set.py         names that a script sets only under a condition ahead of its loop
    model_part.py        which part of `a.b.c`, whose parameters an optimizer trains, is the module that is saved
    named_values.py      what the names of a loop hold
    of_pass.py           what belongs to one pass through the data
    out_of_sight.py      state that functions keep where no variable of the loop leads: closures, defaults, caches
    outer_loops.py       the loops around the one over the batches: epochs and trainings
    own_classes.py       classes of the script's own: whether a call of their methods changes the object
    own_functions.py     functions of a script's own: which one a call leads to, and what its names stand for
    own_resume.py        scripts that resume by themselves, beside us
    pass_down.py         a loop that is spread over functions: those on the way get the Checkpointer
    pass_variables.py    names that belong to one pass through the data
    passes_by_next.py    epochs that draw the batches of their updates with next()
    pieces.py            pieces of code that an edit of a loop reads and writes
    propose.py           what `vl init` would change in a script, as data: nothing is written here
    random_calls.py      calls that draw random numbers, and calls that seed what they draw from
    read_behind.py       which names are read behind a loop
    remarks.py           what a user should know beside the edits of a loop
    saved_states.py      Accelerate scripts that save and load states themselves
    seen_names.py        names that a walk meets
    source.py            A script as text and as a tree, and edits of it that leave every other byte as it is
    step_counter.py      the variable by which a loop counts its steps
    step_end.py          where a step of a loop ends
    streams.py           iterators that outlive a pass through the data
    switched.py          attributes and globals that a loop sets on its way, and only code out of sight reads
    switched_unseen.py   such attributes of objects whose class the script doesn't show
    trainers.py          scripts that make a Trainer: it gets ``resume=``, and nothing else changes
    training_vaults.py   the vaults of a script that trains several times
    trainings.py         scripts that train several times
    walk.py              walk through a piece of a script as it runs
    wrappers.py          classes of a script's own around an optimizer

Imports stores and errors; cli imports it.
"""
