"""What real scripts do around a resume, tried with stock transformers and with a vault: ``python -m tests.cases``.

case.py      what a case is, and the bench on which a side is tried
training.py  the training of most cases
again.py     a cell that is run again, a checkpoint that the script names
state.py     what belongs to a training beside its model
beside.py    state outside the model, and files that a save has torn
data.py      where a training is in its data
machine.py   a next machine that isn't the same, and its disk
told.py      a process that is told to end, or is killed
scripts.py   scripts that know nothing of this package, edited by `vl init` or run by `vl run`
every.py     imports them all
"""
