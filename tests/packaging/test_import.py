"""What `import vaultlayer_hf` gives and what it costs."""

from __future__ import annotations

import json
import subprocess
import sys

from vaultlayer_hf.stores.folder import FolderStore
from vaultlayer_hf.vault.log.log import Log, Writer

PUBLIC = [
    "AlreadyExistsError",
    "Checkpointer",
    "CorruptError",
    "FencedError",
    "FormatVersionError",
    "MissingExtraError",
    "NoSuchCheckpointError",
    "NoUsableCheckpointError",
    "NotLoadedError",
    "ObjectNotFoundError",
    "OtherRunError",
    "RanksError",
    "ResumeError",
    "Settings",
    "SettingsError",
    "SignatureError",
    "StoreDeniedError",
    "StoreError",
    "StoreFullError",
    "StoreUnavailableError",
    "Trainer",
    "Vault",
    "VaultDeniedError",
    "VaultLayerCallback",
    "VaultLayerError",
    "VaultUnreachableError",
    "VaultUriError",
    "WorldSizeError",
    "WrongModelError",
    "__version__",
    "open_vault",
    "resumable",
]


def run_python(code: str) -> str:
    """Return what a fresh interpreter prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_public_names_are_these() -> None:
    """The public surface grows or shrinks only on purpose: a name more or less fails here."""
    import vaultlayer_hf

    assert sorted(vaultlayer_hf.__all__) == PUBLIC


def test_every_public_name_is_there_and_completed() -> None:
    """Each public name can be imported, and dir() offers it to a shell's completion."""
    import vaultlayer_hf

    for name in PUBLIC:
        assert getattr(vaultlayer_hf, name) is not None
        assert name in dir(vaultlayer_hf)


def test_import_is_light() -> None:
    """`import vaultlayer_hf` loads neither torch nor transformers nor a store's library, nor what reads metadata."""
    code = "import sys, json, vaultlayer_hf; print(json.dumps(sorted(sys.modules)))"
    modules = json.loads(run_python(code))
    assert "importlib.metadata" not in modules  # more than all of this package: 25 ms
    loaded = {name.split(".")[0] for name in modules}
    assert not loaded & {
        "torch",
        "transformers",
        "accelerate",
        "obstore",
        "botocore",
        "huggingface_hub",
        "numpy",
    }


def test_reading_a_vault_needs_no_torch(tmp_path) -> None:
    """Listing a vault from Python loads neither torch nor transformers: a small machine can do it."""
    store = FolderStore(tmp_path)
    Writer.claim(store, Log(store))
    code = (
        "import sys, vaultlayer_hf; "
        f"print(len(vaultlayer_hf.open_vault({str(tmp_path)!r}).checkpoints()), "
        "'torch' in sys.modules, 'transformers' in sys.modules)"
    )
    assert run_python(code).split() == ["0", "False", "False"]


def test_an_unknown_name_is_an_attribute_error() -> None:
    """A misspelt public name fails as on any module, also though names are loaded late."""
    out = run_python("import vaultlayer_hf\ntry: vaultlayer_hf.Trainr\nexcept AttributeError as e: print(e)")
    assert "Trainr" in out
