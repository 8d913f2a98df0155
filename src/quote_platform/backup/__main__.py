"""`python3 -m quote_platform.backup`."""

from quote_platform.backup.cli import app

app()
