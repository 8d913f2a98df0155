"""The application of a lab: when it first answers, and how people reach it and all around it."""

import time
from pathlib import Path

import httpx
import yaml

from quote_platform import paths
from quote_platform.lab.model import Lab
from quote_platform.mirror import progress


def host() -> str:
    """Return the name by which users ask for it."""
    choices = yaml.safe_load((paths.repository() / "group_vars" / "all" / "main.yml").read_text())
    return str(choices["application_host"])


def _file(lab: Lab) -> Path:
    return paths.lab(lab.name) / "answered"


def answers(lab: Lab) -> bool:
    """Tell whether the application has a quote, as its users ask for one."""
    try:
        # Which certificate it shows is verify's question.
        with httpx.Client(verify=False, timeout=3) as client:  # noqa: S501
            url = f"https://{lab.ingress}/api/quotes/random"
            answer = client.get(url, headers={"Host": host()}, extensions={"sni_hostname": host()})
    except httpx.HTTPError:
        return False
    return answer.status_code == 200


def wait(lab: Lab, since: float, pause: float = 1) -> None:
    """Wait until the application answers; keep how many seconds that was after a moment."""
    _file(lab).unlink(missing_ok=True)
    while not answers(lab):
        time.sleep(pause)
    _file(lab).write_text(f"{time.time() - since:.0f}\n")


def summary(lab: Lab) -> list[str]:
    """Return what a person wants to know of a lab that is ready."""
    home = paths.lab(lab.name)
    roots = home / "acme" / "roots.pem"
    trust = f"--cacert {roots}" if roots.is_file() else "--insecure"  # self-signed
    kubeconfig = paths.repository() / "secrets" / lab.name / "kubeconfig"
    lines = {
        "application": f"curl {trust} --resolve {host()}:443:{lab.ingress} https://{host()}/",
        "cluster": f"kubectl --kubeconfig {kubeconfig} get nodes",
        "a node": f"quote-platform lab ssh --name {lab.name} worker-1",
        "end it": f"quote-platform lab down --name {lab.name}",
    }
    if _file(lab).is_file():
        after = progress.duration(float(_file(lab).read_text()))
        lines["first answer"] = f"the application answered {after} after the start"
    if cost := progress.costs().get(progress.WHOLE):
        lines["mirror"] = f"the last fill took {cost}"
    return [f"{name + ':':<14}{text}" for name, text in lines.items()]
