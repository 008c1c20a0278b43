"""`vl demo` keeps its promises, on a folder and on a real S3 server."""

from __future__ import annotations

import re

import pytest

from tests.readme.blocks import demo_lines, without_numbers

from .conftest import vl


def told(out: str) -> None:
    """Assert that the story ended well and that its table says the same."""
    assert "NO" not in out
    assert out.count("  yes  ") == 6
    rows = {line.split()[0]: line.split() for line in out.splitlines() if re.search(r"\d+\.\.\d+", line)}
    reference, killed, resumed = rows["reference"], rows["killed"], rows["resumed"]
    assert reference[-1] == resumed[-1]
    assert reference[-2] == resumed[-2]
    torn = re.search(r"while checkpoint-(\d+) was being uploaded; committed by then: ([\d, ]+)", out)
    committed = [int(step) for step in torn[2].split(",")]
    assert int(torn[1]) > max(committed)
    assert int(killed[-1]) < 120
    assert int(resumed[2]) == max(committed)


@pytest.mark.slow
def test_demo_on_a_folder(tmp_path) -> None:
    """Killed in the middle of a save and resumed, the demo's run ends bit-identical, as the README shows it."""
    done = vl("demo", TMPDIR=str(tmp_path))
    assert done.code == 0, done.out + done.err
    told(done.out)
    assert not list(tmp_path.glob("vl-demo-*"))
    assert done.err == ""
    lines = iter(without_numbers(done.out))
    for line in demo_lines():
        assert line == "..." or line in lines, (
            f"the README shows what isn't told, or not in this order: {line}"
        )


def test_demo_needs_an_empty_vault(trained) -> None:
    """The demo refuses a vault that holds somebody's run, before it trains or writes anything."""
    done = vl("demo", "--vault", str(trained))
    assert (done.code, done.out) == (2, "")
    assert "holds a run already" in done.err


@pytest.mark.slow
def test_demo_on_s3(s3_uri, tmp_path) -> None:
    """The same story holds with the vault on a real S3 server, where it is left for `vl ls` and `vl verify`."""
    done = vl("demo", "--vault", s3_uri, TMPDIR=str(tmp_path))
    assert done.code == 0, done.out + done.err
    told(done.out)
    assert [item["step"] for item in vl("ls", s3_uri, "--json").json()["checkpoints"]][-1] == 120
    assert vl("verify", s3_uri).code == 0


@pytest.mark.slow
def test_demo_fails_where_training_fails(tmp_path) -> None:
    """A training process that ends badly fails the demo with what it said, and leaves nothing behind."""
    done = vl("demo", TMPDIR=str(tmp_path), VAULTLAYER_ON_FENCED="nonsense")
    assert done.code == 1
    assert "on_fenced" in done.err
    assert not list(tmp_path.glob("vl-demo-*"))
