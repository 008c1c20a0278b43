"""The log: numbered entries, and the state of the vault after each.

    ahead.py     which file makes a log unreadable at its end
    archive.py   starting over: what an archive does to the state, and what its claim notes
    entries.py   the whole log, entry by entry: for questions about the past
    entry.py     entries of the log and the state after each: pure data and pure transitions
    fence.py     why a writer may write no more, in words
    finite.py    checkpoints of a run whose weights or loss are nan
    history.py   what the attempts at a run before this one have come to, as its log shows
    log.py       the log: numbered entries by create-if-absent
    origin.py    where a run began that is a fork of another one
    vanished.py  checkpoints that the log vouched for once and names no more

Imports keys.py and parse.py; everything else in vault imports it.
"""
