"""Uploads: a thread that carries snapshots to the vault while training goes on. Imports retention, for tidying."""
