"""`python -m vaultlayer_hf.cli` is `vl`, for where the script isn't on PATH."""

from vaultlayer_hf.cli import main

main()
