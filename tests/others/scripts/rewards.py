"""Rewards for reinforcement learning."""


def even(completions, **kwargs):
    return [float(len(str(text)) % 2 == 0) for text in completions]
