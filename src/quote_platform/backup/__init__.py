"""Backups in an object store: dumps of PostgreSQL, snapshots of etcd and Vault, how long they are kept.

Also runs by itself in a small image: it imports the standard library, boto3 and typer, nothing else.
"""
