"""What the values of ``resume=`` mean."""

from __future__ import annotations

import os

from vaultlayer_hf.session.settings import Settings, settings_from

Resume = str | os.PathLike[str] | bool | Settings | None


def settings_for(resume: Resume) -> Settings | None:
    """Return the settings that a value of ``resume=`` means; None where it switches the vault off.

    Raises SettingsError.
    """
    return None if resume is None or resume is False else settings_from(resume, "resume")


def not_a_trainer(given: object) -> str:
    """Return that ``resumable()`` can't take what it was given; a model's repr would fill the screen."""
    what = (
        f"the class {given.__name__}" if isinstance(given, type) else f"an object of {type(given).__name__}"
    )
    return f"resumable() takes a subclass of transformers.Trainer, as in resumable(SFTTrainer)(…), not {what}"
