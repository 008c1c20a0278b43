"""A vault in memory that an enemy has changed, and everything that one does with a vault."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

from tests.security.mutations import Document, to_bytes
from tests.vault.tools import claim, commit_step, content_of, memory_store, objects, sign
from vaultlayer_hf import VaultLayerError
from vaultlayer_hf.base.digest import digest_bytes
from vaultlayer_hf.cli.logs import describe as describe_entry
from vaultlayer_hf.cli.ls import describe as describe_vault
from vaultlayer_hf.cli.show import describe as describe_commit
from vaultlayer_hf.cli.tables import print_table
from vaultlayer_hf.run.assemble import assemble
from vaultlayer_hf.stores.base import Store
from vaultlayer_hf.vault.keys import entry_key, manifest_key
from vaultlayer_hf.vault.log.history import read_history
from vaultlayer_hf.vault.log.log import Log
from vaultlayer_hf.vault.reader.vault import Vault
from vaultlayer_hf.vault.reader.why import committed, explain

CORPUS = Path(__file__).parent / "corpus"
"""``entry-*.json``, ``manifest-*.json`` and ``part-*.json``: documents that once did harm, and are refused today."""
STEPS = (100, 200)


def signed(document: Document) -> bytes:
    """Return an entry's bytes with the digest that belongs to them, as far as there is one."""
    try:
        return sign(document)
    except (ValueError, RecursionError):  # nothing that an honest dump can write
        return to_bytes({**document, "check": "blake3:" + "0" * 64})


class Vandal:
    """Makes a vault with a claim, two checkpoints and an end, as often as it is asked to, and damages it."""

    def __init__(self, work: Path) -> None:
        store = memory_store()
        writer = claim(store)
        for number, step in enumerate(STEPS, 1):
            commit_step(store, writer, work, step, seq=number)
        writer.append("finish", lambda state, _: state.done(STEPS[-1], {"loss": 1.0}), {"step": STEPS[-1]})
        self._objects = objects(store)
        self._folders = [
            content_of(work / f"t1-s{number}" / f"checkpoint-{step}") for number, step in enumerate(STEPS, 1)
        ]
        self.folder = writer.state.commits[-1].folder
        self.manifest: Document = json.loads(self._objects[manifest_key(self.folder)])
        self.entries: dict[int, Document] = {}
        for number in (1, 2, 3, 4):
            body = json.loads(self._objects[entry_key(number)])
            del body["check"]
            self.entries[number] = body

    def vault(self, changes: dict[str, bytes]) -> Store:
        """Return a new vault with some objects replaced."""
        store = memory_store()
        for key, data in {**self._objects, **changes}.items():
            store.write(key, data)
        return store

    def with_manifest(self, manifest: Document) -> Store:
        """Return a new vault with this manifest in the newest checkpoint, for which the log vouches."""
        data = to_bytes(manifest)
        last = json.loads(json.dumps(self.entries[4]))
        last["state"]["commits"][-1] |= {"manifest": digest_bytes(data), "manifest_size": len(data)}
        return self.vault({manifest_key(self.folder): data, entry_key(4): sign(last)})

    @staticmethod
    def payload(store: Store) -> dict[str, bytes]:
        """Return the objects below ``data/``."""
        return objects(store, "data/")

    @staticmethod
    def is_empty(store: Store) -> bool:
        """Tell whether a vault has no entry of before a start's own."""
        return not any(item.key == entry_key(1) for item in store.list("log/"))

    def is_saved(self, path: Path) -> bool:
        """Tell whether every file of a folder is as one of the checkpoints had it. A manifest for which the log vouches
        may list fewer: what is lacking is for the seam to say.
        """
        return any(content_of(path).items() <= folder.items() for folder in self._folders)


def use_everything(store: Store) -> None:
    """List, show, explain and verify a vault, draw its story; typed errors pass, and nothing steers a terminal."""
    with contextlib.suppress(VaultLayerError), Vault(store) as vault:
        history = vault.history()
        vault.leftovers()
        said: list[Any] = [describe_vault("memory://", vault), *map(describe_entry, history), vault.damage]
        assemble([], {}, {}, history, vault="memory://", alive=False, now=1e9)
        read_history(Log(store), max((entry.number for entry in history), default=0))
        found = committed(history)
        if found is not None:
            said.append(explain(history, found).reason)
        for commit in vault.checkpoints():
            said.append(explain(history, commit).reason)
            with contextlib.suppress(VaultLayerError):
                said += [describe_commit(vault, commit), vault.verify(commit).problems, vault.glance(commit)]
        json.dumps(said)
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            print_table(("what",), [(json.dumps(one, ensure_ascii=False),) for one in said])
        assert printed.getvalue().replace("\n", "").isprintable()
