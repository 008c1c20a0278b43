"""How an attempt is started, followed and ended.

    base.py        what starts an attempt and waits for its end
    local.py       one attempt
    processes.py   A program and all that it starts: none of it outlives the attempt
    reach.py       whether the hook reaches the processes of a program

Imports decide, the journal and report; supervise.py imports it.
"""
