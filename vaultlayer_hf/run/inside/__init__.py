"""What `vl run` does inside the training's own processes.

    hook.py          what `vl run` does to ``transformers.Trainer`` in the processes that it starts
    micro_batch.py   a smaller micro-batch with more accumulation
    numbered.py      which vault a Trainer gets: VAULT, VAULT-2 and so on, by its output folder
    observer.py      reports training loops of their own
    trainer.py       puts a vault into a Trainer that trains under `vl run`, and watches its training
    watch.py         watches one training for `vl run`
    own_loop.py      names a Trainer whose ``train()`` is a loop of its own, at its first step
    unkept.py        says that nothing is kept, at the first save that a training misses
    startup/         what Python imports at its start

Imports trainer and transformers, late; nothing but Python's start imports it.
"""
