"""The `quote-platform` command."""

import typer

from quote_platform.aws.cli import show as cost
from quote_platform.delivery.cli import pins
from quote_platform.delivery.prune_cli import registry
from quote_platform.delivery.release_cli import release
from quote_platform.jobs.cli import app as job
from quote_platform.lab.cli import app as lab
from quote_platform.mirror.cli import app as mirror
from quote_platform.proof import app as proof
from quote_platform.roledocs import app as roles
from quote_platform.rotation import app as rotate
from quote_platform.verify.cli import app as verify

app = typer.Typer(
    help="Lab, mirror, jobs and verification of the Quote Platform.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
)
app.add_typer(mirror, name="mirror", help="Fill and inspect the mirror: apt packages, images, manifests.")
app.add_typer(lab, name="lab", help="Start, stop and reach labs of real nodes.")
app.add_typer(verify, name="verify", help="Use the functions of a running platform from outside.")
app.add_typer(job, name="job", help="Run playbooks as jobs: start, watch, stop, schedule.")
app.add_typer(
    rotate, name="rotate", help="Give accounts of the database new credentials, while they are used."
)
app.add_typer(roles, name="roles", help="Documentation of the roles.")
app.add_typer(pins, name="pins", help="Compare versions.yml with registries and publishers; pin by digest.")
app.add_typer(release, name="release", help="Build the project's images from a commit, push, sign, verify.")
app.add_typer(registry, name="registry", help="Keep the newest images of a registry, and what is used.")
app.command(name="cost")(cost)
app.add_typer(proof, name="proof", help="Record which claims of the README have been proven, and when.")

if __name__ == "__main__":
    app()
