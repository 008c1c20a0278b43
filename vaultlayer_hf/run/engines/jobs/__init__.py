"""A run on other machines: an engine that exists takes the job, and starts `vl run` on each of its nodes.

Decisions by cause of death stay with `vl run`. The engine starts the job again where a node, or `vl run` itself, is
gone. What both agree on is the exit code, 75 for "told to end, the same command goes on", and the vault's log, which
says where from.

    base.py       what a job is asked to be, what is known of it, and the errors of engines
    engine.py     what an engine does, and what any of them refuses: the interface that all engines share
    command.py    the command lines of a job's nodes, torchrun's rendezvous among them
    record.py     the jobs that were submitted from here
    table.py      the engines by name
    k8s.py        Kubernetes: a Job
    k8s_job.py    that Job, made of the official client's models
    ray.py        Ray: a job of its Jobs API
    ray_driver.py what that job runs on the cluster
    sky.py        SkyPilot: a managed job
    slurm.py      Slurm: a batch script, its state, its log
    slurm_script.py   that script

Imports the journal; the command line imports it.
"""
