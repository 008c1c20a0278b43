"""What the values of ``resume=`` mean."""

from __future__ import annotations

import os

from vaultlayer_hf.errors import SettingsError
from vaultlayer_hf.session.settings import Settings

Resume = str | os.PathLike[str] | bool | Settings | None


def settings_for(resume: Resume) -> Settings | None:
    """Return the settings that a value of ``resume=`` means; None where it switches the vault off.

    Raises SettingsError.
    """
    if resume is None or resume is False:
        return None
    if isinstance(resume, Settings):
        settings = resume
    elif resume is True:
        settings = Settings()
    elif isinstance(resume, (str, os.PathLike)):
        settings = Settings(vault=os.fspath(resume) or None)
    else:
        raise SettingsError(
            f"resume={resume!r} can't be used: give a vault's URI, True, Settings, None or False"
        )
    if not settings.vault:
        raise SettingsError(
            f"resume={resume!r} means the vault that VAULTLAYER_VAULT names, and that isn't set"
        )
    return settings
