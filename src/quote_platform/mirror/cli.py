"""Commands of `quote-platform mirror`."""

import typer

app = typer.Typer(no_args_is_help=True)


@app.callback()
def main() -> None:
    """Group of commands."""
