"""What a training's state is: torch, and neither the vault nor transformers.

    adapters.py         a model's adapters, and whether a checkpoint's go on as what they were
    added_functions.py  functions that a schedule is given on its way
    added_groups.py     groups of parameters that an optimizer is given on its way
    asked.py            what a training is asked for, and what of it differs from a checkpoint's
    assigned_names.py   which names a function assigns
    data_digest.py      a digest of training data
    fingerprints.py     whether values of a script's own have changed since an earlier look
    finite.py           whether what is trained is still finite
    functions.py        where functions of a script's own keep what they change
    generator_states.py the state of a random generator, and back in one that is there, or anew
    layouts.py          what both seams know of a checkpoint folder
    loadable.py         whether the files of a checkpoint can be loaded
    model_identity.py   the identity of a model
    model_modes.py      flags of a model that its state_dict leaves out
    named_functions.py  functions of a script, kept by the names by which each start finds them
    object_files.py     the state of objects beside a model, a file each
    object_kinds.py     whose an object is that a script holds, and what makes up its state
    optimizer_errors.py the errors for an optimizer that a checkpoint's state isn't of
    own_numbers.py      the numbers of a script's own optimizers and schedules, for a fork
    places.py           where values of a script's own are held by a name, to read and to put back
    put_values.py       values of a script's own, back from what a file holds
    random_state.py     the random number generators that a training draws from
    saved_digests.py    what a checkpoint's state is when it is saved, one small file a rank
    schedules.py        schedules of the learning rate, and one that can't take another's place
    stops.py            what says that this process is to end, and isn't kept
    take_values.py      values of a script's own as something that a file holds
    tensor_digests.py   a digest of each tensor of a training's state, cheap enough for every save
    tracker_runs.py     which runs the experiment trackers had, kept with each checkpoint
    vocabularies.py     digests of what turns a training's data into numbers
    zero_rates.py       whether a schedule is at its end, behind a resume
    capture/            a training's state copied while it trains on, and the files that are written from the copy
    data/               where a training is in its data, kept with each checkpoint

How fingerprints, places, take_values and put_values carry an attribute of a script's own: ARCHITECTURE.md.

Imports base and errors; session and the seams import it.
"""
