"""`vl run`, from outside the training: start it, watch it, start it again.

    assemble.py           puts together what has happened to a run, from a run folder and a vault's log
    attempts.py           the attempts of a run on this machine, and the facts of how each has ended
    facts.py              gathers what is known of an attempt that has ended
    free_space.py         frees local disk space after a full disk, as decide/clean.py allows
    put_aside.py          moves what earlier attempts left out of the way of a script that wants an empty output folder
    imports.py            the record of what an attempt imports, by which a spare interpreter imports it beforehand
    journal.py            the run folder
    notebook.py           a notebook as a program
    notebook_client.py    what runs its cells: prints as they do, and hands signals on to them
    options.py            what `vl run` was asked for, and the environment that an attempt gets for it
    printed.py            what a program has printed of its own end
    program.py            what a command line runs: its script or module, and how it is started
    received_signals.py   the signals that `vl run` itself is sent: noted, instead of ending it
    report.py             what a rank tells `vl run`: its pulse and its notes, in the attempt's folder
    story.py              what has happened to a run
    supervise.py          the loop of `vl run`
    symptoms.py           what an exception's name, text and number say of its reason
    trainings.py          which trainings the attempts of a run hold
    vaults.py             which vault a program gets
    decide/               why an attempt ended, and what to do about it: facts in, decisions with reasons out
    engines/              how an attempt is started, followed and ended
    insert/               put the integration into a script of the user's own
    inside/               what `vl run` does inside the training's own processes

Only inside/ imports trainer or transformers; cli imports it.
"""
