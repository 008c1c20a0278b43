"""vaultlayer_hf: a training run that dies goes on from its newest complete checkpoint."""
