"""Why an attempt ended, and what to do about it: facts in, decisions with reasons out.

    cause.py           what ended an attempt
    clean.py           which local checkpoint folders may be deleted after a full disk
    decision.py        what to do about the death of an attempt
    lines.py           what `vl run` says of a decision
    restart_history.py what is remembered of the attempts before
    words.py           puts the death of an attempt into words

Imports nothing of run; supervise.py and engines import it.
"""
