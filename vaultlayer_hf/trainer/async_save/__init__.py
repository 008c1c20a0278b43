"""A Trainer's save beside its training: the state is copied, training goes on, stock's files are written from the copy.

    agreed.py     what several ranks agree on
    begin.py      begins it, where it is asked for and safe
    capture.py    one checkpoint that has been captured
    facts.py      what a Trainer is like, as far as it decides that
    fit.py        where it is safe
    guard.py      in front of whatever could change what is being copied
    redirect.py   stock's own save, made to write into another folder
    saves.py      captured, written, and there by one rename

Imports session and below; trainer/saving.py imports it.
"""
