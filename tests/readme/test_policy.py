"""The policy that the guide of stores shows is what the store asks for; servers enforce it in stores/test_rights.py."""

from __future__ import annotations

import json

from tests.readme.blocks import of_kind
from vaultlayer_hf.stores.objects.s3 import S3


def test_the_policy_holds_each_right_once() -> None:
    """It allows what operations of a store are denied without, and to break off an upload; nothing else."""
    (block,) = of_kind("json:policy")
    listing, objects = json.loads(block.text)["Statement"]
    needed = {right for text in S3.rights.values() for right in text.split(" and ")}
    assert {listing["Action"], *objects["Action"]} == needed | {"s3:AbortMultipartUpload"}
    assert (listing["Effect"], objects["Effect"]) == ("Allow", "Allow")
    assert objects["Resource"].endswith("/my-run/*")
