"""Commands of `quote-platform release`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from quote_platform.delivery import DeliveryError, environment, oci, signature
from quote_platform.delivery import release as releasing
from quote_platform.delivery.cli import AsJson, Authority, Inventory, console, told
from quote_platform.delivery.settings import settings, versions_file
from quote_platform.delivery.versions import Versions
from quote_platform.images import Reference

release = typer.Typer(no_args_is_help=True)

Images = Annotated[
    list[str] | None, typer.Option("--image", help="quote-app or backup; repeatable. Without it, both.")
]
Revision = Annotated[str, typer.Option(help="The commit; what is not committed is in no image.")]
Tag = Annotated[str, typer.Option(help="Tag, in place of the one in versions.yml at that commit.")]
SourceUrl = Annotated[
    str, typer.Option("--source", help="URL of the repository, in place of the one in pyproject.toml.")
]

Debian = Annotated[
    str,
    typer.Option(
        envvar="QUOTE_PLATFORM_RELEASE_DEBIAN",
        help=f"Archive of packages for the root file systems, such as {releasing.SNAPSHOTS} "
        "with the commit's time; without it, Debian's own as it is today.",
    ),
]


def _say(text: str) -> None:
    console.print(text, markup=False)


@release.command()
def key(
    file: Annotated[Path, typer.Argument(help="File of the private key; the public one is FILE.pub.")],
) -> None:
    """Make a key pair to sign with, closed by the password in QUOTE_PLATFORM_SIGNING_PASSWORD."""
    with told():
        public = signature.make_key(file)
    _say(f"private key: {file} (keep it and its password apart); public key: {public}")


@release.command()
def build(
    *,
    image: Images = None,
    revision: Revision = "HEAD",
    tag: Tag = "",
    source: SourceUrl = "",
    debian: Debian = "",
    output: Annotated[
        Path | None, typer.Option(help="Folder for each image's OCI layout and SBOM, such as for a scanner.")
    ] = None,
) -> None:
    """Build images from a commit and print their digests; nothing is pushed."""
    with told():
        made = releasing.commit(revision)
        for name in image or releasing.IMAGES:
            with releasing.build(name, made, tag=tag, source=source, debian=debian) as built:
                if output:
                    oci.write_layout(built.built, f"{name}:{built.tag}", output / name)
                    (output / f"{name}.cdx.json").write_bytes(built.sbom)
                typer.echo(f"{name} {built.built.digest}")


@release.command()
def push(
    *,
    image: Images = None,
    revision: Revision = "HEAD",
    tag: Tag = "",
    source: SourceUrl = "",
    debian: Debian = "",
    to: Annotated[
        str,
        typer.Option(
            envvar="QUOTE_PLATFORM_RELEASE_TO",
            help="REGISTRY/PATH, http:// before it where there is no TLS; accounts: `skopeo login`.",
        ),
    ] = "",
    key: Annotated[
        Path | None, typer.Option(envvar="QUOTE_PLATFORM_SIGNING_KEY", help="File of the private key.")
    ] = None,
    unsigned: Annotated[
        bool,
        typer.Option(
            "--unsigned", help="Sign nothing here: another tool does, such as cosign without a key."
        ),
    ] = False,
    builder: Annotated[str, typer.Option(help="URL of who builds, for the provenance.")] = "",
    documents: Annotated[
        Path | None, typer.Option(help="Folder for each image's SBOM and provenance, for other tools.")
    ] = None,
    pin: Annotated[bool, typer.Option("--pin", help="Write name, tag and digest into versions.yml.")] = False,
    inventory: Inventory = None,
    authority: Authority = None,
    as_json: AsJson = False,
) -> None:
    """Build images from a commit, push them with SBOM and provenance, sign them, verify what was pushed.

    A tag that is another image already is refused. A second run of the same commit changes nothing.
    """
    with told():
        if bool(key) == unsigned:
            raise DeliveryError("give one of --key FILE and --unsigned")
        private = signature.private_key(key) if key else None
        access = settings(inventory, authority=authority).access
        made, versions = releasing.commit(revision), Versions(versions_file())
        done = []
        for name in image or releasing.IMAGES:
            where = to or releasing.described(name, made)[2].name.rpartition("/")[0]
            with (
                releasing.build(name, made, tag=tag, source=source, debian=debian) as built,
                releasing.target(name, where, access) as repository,
            ):
                changed = releasing.push(built, repository, private, builder)
                reference = Reference.parse(f"{repository.name}:{built.tag}@{built.built.digest}")
                if private:
                    releasing.verify(reference, repository, private.public_key(), layers=False)
                if documents:
                    documents.mkdir(parents=True, exist_ok=True)
                    (documents / f"{name}.cdx.json").write_bytes(built.sbom)
                    statement = releasing.statement(built, repository, builder)
                    told_of = json.dumps(statement["predicate"])
                    (documents / f"{name}.provenance.json").write_text(told_of)
                if pin:
                    releasing.pin(versions, built, repository)
                    versions = Versions(versions_file())
            done.append({"name": name, "image": str(reference), "changed": changed})
    if as_json:
        typer.echo(json.dumps({"revision": made.revision, "images": done}, indent=2))
        return
    for one in done:
        _say(f"{one['image']}: {'pushed' if one['changed'] else 'was there already'}")


@release.command()
def verify(
    *,
    image: Annotated[str, typer.Argument(help="REGISTRY/NAME:TAG@DIGEST, or without tag or digest.")],
    key: Annotated[
        Path, typer.Option(envvar="QUOTE_PLATFORM_VERIFYING_KEY", help="File of the public key (PEM).")
    ],
    name: Annotated[str, typer.Option(help="REGISTRY/NAME it was released as, if it has been copied.")] = "",
    plain_http: Annotated[bool, typer.Option("--plain-http", help="The registry has no TLS.")] = False,
    inventory: Inventory = None,
    authority: Authority = None,
    mirror: Annotated[
        str, typer.Option(help="URL of a registry with all images under their whole names.")
    ] = "",
) -> None:
    """Refuse an image that is altered, unsigned, signed by another key, or without signed provenance."""
    with told():
        try:
            reference = Reference.parse(image)
        except ValueError as error:
            raise DeliveryError(str(error)) from error
        public = signature.public_key(key)
        host = f"http://{reference.registry}" if plain_http else reference.registry
        with settings(inventory, mirror, authority=authority).access.repository(
            host, reference.repository
        ) as repository:
            found = releasing.verify(reference, repository, public, name=name)
    _say(
        f"{found.image}: signed; of commit {found.revision}, built by {found.builder}, "
        f"{found.components} components"
    )


Target = Annotated[Path, typer.Option("-i", "--inventory", help="Folder of the environment's inventory.")]


@release.command()
def promote(
    *,
    image: Annotated[list[str], typer.Argument(help="REGISTRY/NAME:TAG@DIGEST, one or more.")],
    inventory: Target,
) -> None:
    """Write images into an environment's inventory; the commit of it is the deployment."""
    with told():
        try:
            references = [Reference.parse(one) for one in image]
        except ValueError as error:
            raise DeliveryError(str(error)) from error
        changed = environment.promote(inventory, references)
    _changed(changed, inventory)


@release.command()
def rollback(
    *,
    inventory: Target,
    to: Annotated[
        str, typer.Option(help="The images of this commit, in place of those before the last.")
    ] = "",
) -> None:
    """Write the images that an environment had before; the commit of it is the rollback."""
    with told():
        changed = environment.rollback(inventory, to)
    _changed(changed, inventory)


def _changed(changed: dict[str, str], inventory: Path) -> None:
    for name, text in changed.items():
        _say(f"{inventory}: {name}: {text}")
    if not changed:
        _say(f"{inventory}: has these images already")
