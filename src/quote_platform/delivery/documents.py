"""What goes with an image: the list of what is in it (CycloneDX), and how it was made (SLSA provenance)."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from quote_platform.delivery import DeliveryError
from quote_platform.delivery.registry import canonical
from quote_platform.delivery.signature import content_digest

CYCLONEDX = "application/vnd.cyclonedx+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PROVENANCE = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "https://github.com/quote-platform/quote-platform/blob/main/docs/delivery.md#release"


def debian(status: bytes) -> list[dict[str, Any]]:
    """Return the packages of a root file system, from dpkg's list."""
    found = []
    for stanza in status.decode().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in stanza.splitlines() if ": " in line and line[0] != " ")
        if not fields.get("Status", "").endswith(" installed"):
            continue
        name, version = fields["Package"], fields["Version"]
        purl = f"pkg:deb/debian/{name}@{quote(version, safe='')}?arch={fields['Architecture']}"
        found.append({"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl})
    return found


def npm(folder: Path, *words: str) -> str:
    """Run npm in a folder: the one beside this Python, which bootstrap installs, or the machine's."""
    places = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", "")))
    if not (program := shutil.which("npm", path=places)):
        raise DeliveryError("npm is not there: run `make bootstrap`")
    environment = os.environ | {"PATH": places}
    done = subprocess.run(
        [program, *words], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise DeliveryError(f"npm {words[0]} failed: {' '.join(done.stderr.split())[-300:]}")
    return done.stdout


def node(folder: Path) -> dict[str, Any]:
    """Return npm's own list of what an application is installed with, by its lock file."""
    words = ["sbom", "--sbom-format", "cyclonedx", "--omit", "dev", "--package-lock-only"]
    return dict(json.loads(npm(folder, *words)))


def bill(
    image: str, version: str, created: str, packages: list[dict[str, Any]], application: Mapping[str, Any]
) -> bytes:
    """Return the list of an image's content as CycloneDX 1.5: the same for the same content."""
    own = {"type": "container", "bom-ref": f"{image}:{version}", "name": image, "version": version}
    components, dependencies = list(packages), list(application.get("dependencies", []))
    if application:
        main = application["metadata"]["component"] | {"type": "application"}
        components += [main, *application["components"]]
    components.sort(key=lambda one: str(one["bom-ref"]))
    dependencies.append({"ref": own["bom-ref"], "dependsOn": sorted(one["bom-ref"] for one in packages)})
    body = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"timestamp": created, "component": own},
        "components": components,
        "dependencies": sorted(dependencies, key=lambda one: str(one["ref"])),
    }
    serial = uuid.uuid5(uuid.NAMESPACE_URL, content_digest(canonical(body))["sha256"])
    return canonical(body | {"serialNumber": f"urn:uuid:{serial}"})


def provenance(
    subject: tuple[str, str],
    asked: Mapping[str, Any],
    materials: list[dict[str, Any]],
    sbom: bytes,
    builder: str,
) -> dict[str, Any]:
    """Return the statement of how an image, a name and its digest, was made: of what, and by whom."""
    name, digest = subject
    return {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": name, "digest": {"sha256": digest.removeprefix("sha256:")}}],
        "predicateType": PROVENANCE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": dict(asked),
                "resolvedDependencies": materials,
            },
            "runDetails": {
                "builder": {"id": builder},
                "byproducts": [{"name": "sbom", "mediaType": CYCLONEDX, "digest": content_digest(sbom)}],
            },
        },
    }
