"""Vaults in object stores, through obstore.

    answers.py      helpers of ObjectStore: who may ask the client, and what its answers mean
    azure.py        vaults in Azure Blob Storage
    errors.py       errors of an object store's client and server as errors of a store
    google.py       vaults in Google Cloud Storage
    huggingface.py  vaults in Hugging Face Buckets, through their S3 gateway
    listing.py      helpers of ObjectStore: where a listing has to start, and its order
    opening.py      opens an ObjectStore on a client of obstore
    parts.py        helpers of ObjectStore: how a file is cut into parts
    provider.py     what a provider calls things: the words of its error messages
    s3.py           vaults on S3 and on servers that speak its protocol
    store.py        a vault in an object store, through obstore (a Rust client with bounded memory)

Imports the store's contract and base; stores/__init__.py opens it.
"""
