"""Logs of the whole platform: requests at the ingress, the application, what an operator does."""

import json
import re
import ssl
import time
import uuid
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import yaml

from .conftest import NAME, ROOT, Eventually, Lab


class Logs:
    """The store of logs, as one that may only read."""

    def __init__(self) -> None:
        file = ROOT / f"inventories/{NAME}/group_vars/platform/mirror.yml"
        known = yaml.safe_load(file.read_text())
        password = re.search(r"file', '([^']+)'", known["logging_reader_password"])
        assert password
        context = ssl.create_default_context(cadata=known["logging_ca"])
        account = (known["logging_reader_user"], Path(password[1]).read_text())
        self.http = httpx.Client(base_url=known["logging_url"], verify=context, auth=account, timeout=20)

    def search(self, query: str) -> list[dict[str, Any]]:
        body = {"size": 20, "query": {"query_string": {"query": query, "default_field": "message"}}}
        answer = self.http.post("/logs-*/_search", json=body).raise_for_status().json()
        return [hit["_source"] for hit in answer["hits"]["hits"]]


def test_each_kind_of_the_platform_is_found(lab: Lab, eventually: Eventually) -> None:
    logs, word = Logs(), uuid.uuid4().hex
    with lab.http(lab.workers[0]) as client:
        lab.ask(client, "GET", f"/api/quotes/random?word={word}&token=hunter2")
    lab.kubectl(f"create configmap marker-{word} --namespace default")
    lab.kubectl(f"delete configmap marker-{word} --namespace default")
    started = time.monotonic()
    for kind, query in {
        "ingress": f'"{word}"',
        "audit": f"json.objectRef.name:marker-{word} AND json.verb:delete",
        "app": "kubernetes.namespace:quote-lab AND kubernetes.deployment.name:quote-app AND json.level:info",
        "events": "kubernetes.namespace:quote-lab AND event.reason:Started",
        "journal": "systemd.unit:kubelet.service AND kubernetes.node.name:*worker*",
    }.items():
        wanted = f"({query}) AND data_stream.dataset:{kind}"
        left = max(5, started + 30 - time.monotonic())
        eventually(partial(logs.search, wanted), left, f"no line of the kind {kind}")
    request = logs.search(f'"{word}" AND data_stream.dataset:ingress')[0]
    assert request["json"]["RequestHost"] == "quotes.example.com"
    assert "hunter2" not in json.dumps(request)
