"""The log: entries, and the writer that claims a vault and appends to it."""
