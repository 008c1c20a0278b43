"""A vault from outside a run: open, list, verify, pull, pin, explain. Nothing else in vault/ imports it."""
