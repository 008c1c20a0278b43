"""The package's own shape: who imports whom, and where each thing lies. `python -m tests.structure` prints it."""
