"""The whole kill campaign, one command: ``python -m tests.campaign [--store folder|s3] [--limit N] [--sealed]``.

Parts: ``save`` kills a run at every point of its start, of the save in its middle, and of its end; ``disk``
does so at every fifth point and empties the disk; ``overtaken`` kills the uploader when training has already
queued the next checkpoint; ``moved`` has a process move every file, as it does with large ones, and kills the run or
that process at every point of a save; ``resume`` kills the second start at every point, from a commit and from a sealed
snapshot. ``--sealed`` has the vaults signed and
encrypted. It prints how many points were tried, and ends with 1 where a start was not right.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from functools import lru_cache
from pathlib import Path

from tests.campaign.harness import Campaign
from tests.campaign.parts import PARTS, campaign_on, shared_memory
from vaultlayer_hf.stores.encryption.key import ENCRYPTION
from vaultlayer_hf.vault.signature import SIGNING


def main() -> int:
    """Run the parts that were asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.campaign", description=__doc__)
    parser.add_argument("--store", choices=("folder", "s3"), default="folder")
    parser.add_argument("--part", choices=tuple(PARTS), action="append", help="default: all")
    parser.add_argument("--limit", type=int, help="at most so many kills of each part, evenly spread")
    parser.add_argument("--sealed", action="store_true", help="sign and encrypt the vaults")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time")
    parser.add_argument("--async", dest="beside", action="store_true", help="saves run beside the training")
    options = parser.parse_args()
    if options.sealed:
        os.environ.update(own_keys())
    begin = time.monotonic()
    with (
        tempfile.TemporaryDirectory(prefix="vl-campaign-", dir=shared_memory()) as scratch,
        campaign_on(options.store, Path(scratch)) as campaign,
    ):
        campaign.env.update(own_keys() if options.sealed else {})
        campaign.options["beside"] = options.beside
        for name in options.part or PARTS:
            part(campaign, name, options.limit, options.jobs)
        print(
            f"{options.store}: {campaign.tried} points tried, {len(campaign.failures)} failures, "
            f"{time.monotonic() - begin:.0f} s"
        )
        for failure in campaign.failures:
            print(f"\nFAILED {failure}")
    return 1 if campaign.failures else 0


@lru_cache(maxsize=1)
def own_keys() -> dict[str, str]:
    """Return the variables that sign and encrypt a vault, with new keys."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    pem = Ed25519PrivateKey.generate().private_bytes(*form).decode()
    return {SIGNING: pem, ENCRYPTION: os.urandom(32).hex()}


def part(campaign: Campaign, name: str, limit: int | None, jobs: int) -> None:
    """Carry out one part and print its line."""
    begin, before, failed = time.monotonic(), campaign.tried, len(campaign.failures)
    PARTS[name](campaign, limit, jobs)
    print(
        f"  {name}: {campaign.tried - before} points tried, {len(campaign.failures) - failed} failures, "
        f"{time.monotonic() - begin:.0f} s",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
