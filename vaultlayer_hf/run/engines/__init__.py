"""How an attempt is started, followed and ended.

    base.py            what starts an attempt and waits for its end
    jobs/              a run on other machines: Slurm, Ray, SkyPilot, Kubernetes
    local.py           one attempt
    memory.py          how much memory is left to this process
    processes.py       a program and all that it starts: none of it outlives the attempt
    rank_spares.py     the starts of ranks by torchrun or `accelerate launch`
    ranks.py           ranks that have died, and those that wait for them in vain
    reach.py           whether the hook reaches the processes of a program
    spare.py           the starts of a run's attempts
    spare_process.py   One spare interpreter
    worked.py          how far a process has come

Imports decide, the journal, imports and report; attempts.py imports it.
"""
