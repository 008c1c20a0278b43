"""From a snapshot to a commit, in the background.

    carrying.py   carrying one snapshot to the vault
    clearing.py   what commits make superfluous goes, on this disk and in the vault
    figures.py    the figures of a run's uploads
    job.py        what the background uploader is given
    parts.py      what each node brings in of one checkpoint, told through the store alone
    patience.py   how long the upload thread bears with a store in trouble
    queue.py      the queue between training and the upload thread
    sending.py    upload and commit of one sealed snapshot
    uploader.py   the background uploader
    mover/        large files are moved by a process of low priority

Imports retention, log, snapshot and manifest; session imports it.
"""
