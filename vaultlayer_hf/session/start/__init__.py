"""A start: which checkpoint the run goes on from, and bringing it to the disks.

    adopt.py    go on from a complete local snapshot that is newer than the newest commit
    asked.py    what a start asks for, against what its checkpoint was made with
    bring.py    bring a commit to the disks
    choice.py   which checkpoints of a vault a start may go on from, newest first
    claiming.py what a start notes on its disk ahead of its claim
    discover.py what a start may go on from, as the vault's log says it
    fork.py     a new vault's run begins from a commit of another vault
    local_snapshots.py which snapshots on this node's disk a start may go on from
    look.py     whether one checkpoint is whole, and can be this run's
    notices.py  what a start says of the checkpoint that it has chosen
    own_place.py a vault begins in a place of its own
    ready.py    what makes a checkpoint that was brought ready to be loaded
    relay.py    what every node needs of a checkpoint comes from the store once
    resume.py   discover -> restore -> resume

Imports session.py, save and the files beside them; the seams import it.
"""
