"""The protocol: snapshot, upload, commit, restore, retention, and reading from outside.

    adoptable.py  which snapshots on a disk a start may adopt
    keys.py       where things lie in a vault
    manifest.py   the list of files of a checkpoint with size and digest, and what the run was
    near.py       the vault that may have been meant by a mistyped name
    parse.py      checked reading of JSON from a vault
    signature.py  who has written an entry of the log, by ed25519, where a key is set
    snapshot.py   the local frozen copy of a checkpoint that waits for upload
    unfrozen.py   the checkpoint folder that a dead writer had written, and not frozen
    workspace.py  where a run writes what is no checkpoint yet
    written.py    the note by which a snapshot counts before it is sealed, on the same boot
    log/          the log: numbered entries, and the state of the vault after each
    reader/       a vault from outside a run: list, verify, pull, pin, explain
    restore/      bring a committed checkpoint onto the disk, verified, or not at all
    retention/    what to keep, what to retire, and deleting it
    upload/       from a snapshot to a commit, in the background

Imports stores, base and errors; session, run and cli import it.
"""
