"""node_exporter is given the option that its version knows."""

from pathlib import Path

import pytest
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template

ROLE = Path(__file__).resolve().parents[2] / "roles/node_exporter"


@pytest.mark.parametrize(
    ("probe", "after", "option"),
    [
        ("", "installed 1.3.1-1ubuntu0.22.04.3", "--web.config="),  # Ubuntu 22.04, first run
        ("installed 1.3.1-1ubuntu0.22.04.3\nactive", None, "--web.config="),  # and the second
        ("installed 1.5.0-1+b6", None, "--web.config.file="),  # Debian 12
        ("installed 1.7.0-1ubuntu0.3", None, "--web.config.file="),  # Ubuntu 24.04
        (
            "installed 1.3.1-1ubuntu0.22.04.3",
            "installed 1.12.1-1",
            "--web.config.file=",
        ),  # a repository was set
        ("key", "", "--web.config.file="),  # dry run on a fresh machine
    ],
)
def test_option_of_the_web_configuration(probe: str, after: str | None, option: str) -> None:
    loader = DataLoader()
    variables = {
        **loader.load_from_file(str(ROLE / "defaults/main.yml"), trusted_as_template=True),
        **loader.load_from_file(str(ROLE / "vars/main.yml"), trusted_as_template=True),
        "ansible_managed": "",
        "ansible_host": "192.0.2.31",
        "node_exporter_version": "1.12.1",
        "__node_exporter_probe": {"stdout": probe},
        **({} if after is None else {"__node_exporter_after": {"stdout": after}}),
    }
    template = trust_as_template((ROLE / "templates/default.j2").read_text())
    assert f" {option}/etc/prometheus-node-exporter/web.yml " in Templar(loader, variables).template(template)
