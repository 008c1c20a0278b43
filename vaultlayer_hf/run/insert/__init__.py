"""Put the integration into a script of the user's own, as a diff that a person can read, refuse and undo.

    propose (source -> trainers | loop -> loop_edits) -> Proposal -> apply -> undo

Nothing here imports torch or runs the script.
"""
