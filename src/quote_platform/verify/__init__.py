"""Verification: the functions of a running platform, used from outside."""
