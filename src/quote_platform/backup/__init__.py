"""Backups in an object store: dumps of PostgreSQL, snapshots of etcd, how long they are kept.

Also runs by itself in a small image: it imports the standard library, boto3 and typer, nothing else.
"""
