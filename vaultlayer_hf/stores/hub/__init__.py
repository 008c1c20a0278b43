"""A vault in a repository of the Hugging Face Hub, through huggingface_hub's own client.

    errors.py       the client's errors as errors of a store
    repository.py   what is asked of a repository: its files, their bytes, a commit
    source.py       a local file as the client reads it
    store.py        HubStore: each write is a commit on the branch main

Imports the store's contract and base; stores/__init__.py opens it.
"""
