"""Release manifests that a publisher makes of a chart in its repository, made the same way, to the byte."""

import io
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from ruamel.yaml import YAML

from quote_platform.mirror import catalogue as cat
from quote_platform.mirror.source import run

# What ECK's own program takes off: labels of a release that Helm would look after.
HELM = ("helm.sh/chart", "app.kubernetes.io/managed-by")


def make(helm: str, module: Path, version: str, chart: cat.Chart) -> bytes:
    """Return the manifest that a release has, of the sources of its module at that version (without v)."""
    with tempfile.TemporaryDirectory(prefix="quote-chart-") as temporary:
        folder = Path(temporary, "chart")
        shutil.copytree(module / chart.folder, folder, copy_function=shutil.copyfile)
        folder.chmod(0o755)  # Go keeps modules read-only
        described = folder / "Chart.yaml"
        text = described.read_text().replace("v0.0.0", f"v{version}")
        described.unlink()
        described.write_text(text)

        def render(*options: str) -> str:
            command = [helm, "template", chart.release, str(folder), f"--namespace={chart.namespace}"]
            files = [f"--values={module / name}" for name in chart.values]
            return run([*command, *files, *chart.options, *options]).removeprefix("---\n")

        return MAKERS[chart.maker](render, module, chart).encode()


def _parts(text: str) -> list[str]:
    """Return the documents of a text, without what lies between them."""
    return [part for part in re.split(r"^---\n", text, flags=re.MULTILINE) if part.strip()]


def _concatenated(render: Callable[..., str], module: Path, _: cat.Chart) -> str:
    """As cert-manager's make/manifests.mk: a licence, the namespace, the definitions, then all else."""
    licence = (module / "hack/boilerplate-yaml.txt").read_text().replace("YEAR", "2022")
    definitions = [
        part.strip() + "\n"
        for part in _parts(render("--set=crds.enabled=true"))
        if re.search(r"^kind: CustomResourceDefinition$", part, re.MULTILINE)
    ]
    namespace = (module / "deploy/manifests/namespace.yaml").read_text()
    return licence + "\n---\n".join([namespace, "---\n".join(definitions), render()])


def _without_helm(render: Callable[..., str], module: Path, chart: cat.Chart) -> str:
    """As ECK's hack/manifest-gen: what Helm renders, written anew without its labels."""
    yaml = YAML()
    yaml.preserve_quotes, yaml.width = True, 2**30
    yaml.indent(mapping=2, sequence=2, offset=0)
    written: list[str] = []
    ends: dict[str, int] = {}
    for index, part in enumerate(_parts(render())):
        document = yaml.load(part)
        for label in HELM:
            document["metadata"]["labels"].pop(label, None)
        text = io.StringIO()
        yaml.dump(document, text)
        # No empty lines but those of a text, which is indented.
        written.append(re.sub(r"\n\n+(?=\S|\Z)", "\n", text.getvalue()))
        # Helm has sorted the documents; the last one of each file of the chart has an empty line after it.
        (name,) = re.findall(r"^# Source: [^/\s]+/(\S+)", part, re.MULTILINE)
        kinds = re.findall(r"^kind: (\S+)", (module / chart.folder / name).read_text(), re.MULTILINE)
        if document["kind"] == kinds[-1]:
            ends[name] = index
    return (
        "".join(
            f"---\n{text}" + ("\n" if index in ends.values() else "") for index, text in enumerate(written)
        ).strip()
        + "\n\n"
    )


MAKERS: dict[cat.Maker, Callable[[Callable[..., str], Path, cat.Chart], str]] = {
    cat.Maker.CONCATENATED: _concatenated,
    cat.Maker.WITHOUT_HELM: _without_helm,
}
