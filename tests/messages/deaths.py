"""What `vl run` says of a death, and of what it does about it."""

from __future__ import annotations

from pathlib import Path

from tests.messages.situations import Situation, situation
from tests.run.test_decision import CASES, SEEN
from vaultlayer_hf.run.decide.cause import Death
from vaultlayer_hf.run.decide.decision import Action, decide_restart
from vaultlayer_hf.run.decide.lines import last_line, next_step
from vaultlayer_hf.run.decide.restart_history import RestartHistory

CHAPTER = "vl run: what ended an attempt, and what is done about it"


def _of(death: Death) -> Situation:
    def say(folder: Path) -> list[str]:
        history = SEEN if death.began_at else RestartHistory()
        decision = decide_restart(death, history)
        if decision.action is Action.RESTART:
            return [f"[vl] attempt 1: {decision.detail}; {next_step(decision)}"]
        return [f"[vl] {last_line(decision)}"]

    return say


for _name, (_death, _, _action, _) in CASES.items():
    if _action is Action.DONE:
        continue
    situation(CHAPTER, _name)(_of(_death))
