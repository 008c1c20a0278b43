"""Every message that a person can meet, from the situations in which it comes: ``python -m tests.messages``.

situations.py   where each situation is registered, and how its messages are heard
runs.py         a run: start, save, trouble, refusals
deaths.py       what `vl run` decides about a death
commands.py     what the command line refuses
wrong.py        what is given from Python, and can't be meant
keys.py         encrypted and signed vaults under keys that are not theirs
before.py       what the first release said instead
messages.md     all of them, as they are now; a test keeps it true, ``--write`` writes it anew
"""
