"""The vault: the protocol by which a checkpoint becomes durable and visible, and how it is read back.

From the bottom: keys, parse; manifest; log; snapshot; restore, retention; upload; reader. Each imports only what stands
before it; all of them may import stores and base. The protocol is stated at the top of log/log.py.
"""
