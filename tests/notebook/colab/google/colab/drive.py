"""Google Drive as Colab has it: a folder that is there while it is mounted, and whose content outlives that."""

from __future__ import annotations

from pathlib import Path

_mounted: list[Path] = []


def _away(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}-at-google")


def mount(mountpoint: str, force_remount: bool = False) -> None:
    """Have ``MyDrive`` appear under a folder, with what it held."""
    folder = Path(mountpoint)
    folder.mkdir(parents=True, exist_ok=True)
    if _away(folder).exists():
        _away(folder).rename(folder / "MyDrive")
    (folder / "MyDrive").mkdir(exist_ok=True)
    _mounted.append(folder)
    print(f"Mounted at {mountpoint}")


def flush_and_unmount(timeout_ms: int = 24 * 60 * 60 * 1000) -> None:
    """Have all that was written sent, and the folder disappear."""
    folder = _mounted.pop()
    (folder / "MyDrive").rename(_away(folder))
