"""Release manifests that roles patch, as the mirror makes them and as each role puts them together."""

from dataclasses import dataclass
from typing import Any

from quote_platform.component.manifests import assemble
from quote_platform.mirror import catalogue as cat
from quote_platform.mirror.fill import manifest_content
from quote_platform.mirror.source import Source


@dataclass(frozen=True)
class Release:
    """What versions.yml pins, and the namespaces that the role gives it."""

    variable: str
    namespaces: dict[str, str]

    def texts(self) -> dict[str, str]:
        """Return its manifests by their checksums."""
        catalogue = cat.load()
        source = Source(catalogue, lambda _: None)
        pinned = [cat.Manifest(**entry) for entry in cat.versions()[self.variable]]
        return {one.sha256: manifest_content(catalogue, source, one).decode() for one in pinned}

    def patched(self, patches: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return its objects as they are applied."""
        return assemble(list(self.texts().values()), patches, [], self.namespaces)


# By the template of their patches.
RELEASES = {
    "cert_manager/templates/patches.yaml.j2": Release(
        "cert_manager_manifests", {"cert-manager": "cert-manager", "kube-system": "cert-manager"}
    ),
    "logging/templates/eck-patches.yaml.j2": Release("logging_manifests", {"elastic-system": "logging"}),
}
