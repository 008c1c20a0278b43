"""What announces that this process will be ended, what still fits before that, and how it ends.

    clouds.py     the notices of AWS, GCP and Azure
    draining.py   draining
    end_entry.py  the entry of the log that says that a run is done
    exits.py      how a training process ends that was told to stop
    launchers.py  what torchrun's agent does with the signals that a training waits for
    notice.py     a notice that this process will be ended, and what to do about it when
    signals.py    traps for the signals that announce an end
    stopping.py   what stops a training
    watch.py      the watch for notices while a training runs

Imports session.py, save and the files beside them; training.py imports it.
"""
