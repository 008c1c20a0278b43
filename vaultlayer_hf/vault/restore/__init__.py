"""Restore: a committed checkpoint onto the local disk, verified, or not at all."""
