"""Set the store of logs up, or search it. Plain Python, so that any image that has it will do.

logs.py setup             put what /etc/logging/setup.json says, and Kibana's saved objects
logs.py search QUERY      print the newest documents, as JSON lines; the query is one of query_string
logs.py search QUERY N S  at most N documents; look again for S seconds while there is none
"""

import base64
import functools
import json
import os
import ssl
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

FOLDER = Path("/etc/logging")
AUTHORITIES = Path("/etc/store")
PATIENCE = int(os.environ.get("PATIENCE", "240"))  # seconds for a store that is starting
ATTEMPTS_EVERY = 3


def ask(url: str, method: str, body: bytes, authority: str = "ca.crt", **headers: str) -> Any:
    """Send a request as the account of the environment; return the answer."""
    credentials = f"{os.environ['STORE_USER']}:{os.environ['STORE_PASSWORD']}".encode()
    headers = {"Content-Type": "application/json"} | headers
    headers["Authorization"] = f"Basic {base64.b64encode(credentials).decode()}"
    file = AUTHORITIES / authority
    context = ssl.create_default_context(cafile=file if file.is_file() and file.stat().st_size else None)
    request = urllib.request.Request(url, data=body, method=method, headers=headers)  # noqa: S310 (ours)
    with urllib.request.urlopen(request, timeout=30, context=context) as answer:  # noqa: S310
        return json.loads(answer.read() or b"null")


def patiently(work: Callable[[], Any]) -> Any:
    """Repeat something while the store does not answer or is starting; what it refuses ends at once."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return work()
        except urllib.error.HTTPError as error:
            text = error.read().decode(errors="replace")[:1000]
            if error.code not in {429, 502, 503, 504} or time.monotonic() > deadline:
                sys.exit(f"{error.url} answers {error.code}: {text}")
        except OSError as error:
            if time.monotonic() > deadline:
                sys.exit(f"the store does not answer: {error}")
        time.sleep(ATTEMPTS_EVERY)


def setup() -> None:
    """Put everything; what is there already is replaced by the same."""
    store, kibana = os.environ["STORE_URL"].rstrip("/"), os.environ.get("KIBANA_URL", "")
    for step in json.loads((FOLDER / "setup.json").read_text()):
        body = json.dumps(step["body"]).encode()
        patiently(functools.partial(ask, f"{store}/{step['path']}", "PUT", body))
        print(f"put {step['path']}")
    if kibana:
        boundary = uuid.uuid4().hex
        head = (
            f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="objects.ndjson"\r\n\r\n'
        )
        body = head.encode() + (FOLDER / "kibana.ndjson").read_bytes() + f"\r\n--{boundary}--\r\n".encode()
        url = f"{kibana}/api/saved_objects/_import?overwrite=true"
        headers = {"Content-Type": f"multipart/form-data; boundary={boundary}", "kbn-xsrf": "logs.py"}
        answer = patiently(lambda: ask(url, "POST", body, "kibana.crt", **headers))
        if not answer["success"]:
            sys.exit(f"Kibana refuses saved objects: {json.dumps(answer['errors'])[:1000]}")
        print(f"put {answer['successCount']} saved objects")


def search(query: str, size: str = "100", seconds: str = "0") -> None:
    """Print the newest documents that match; look again for a while if there is none."""
    body = {
        "size": int(size),
        "query": {"query_string": {"query": query, "default_field": "message"}},
        "sort": [{"@timestamp": {"order": "desc", "unmapped_type": "date"}}],
    }
    url = f"{os.environ['STORE_URL'].rstrip('/')}/logs-*/_search?ignore_unavailable=true"
    deadline = time.monotonic() + float(seconds)
    while True:
        hits = patiently(lambda: ask(url, "POST", json.dumps(body).encode()))["hits"]["hits"]
        if hits or time.monotonic() > deadline:
            break
        time.sleep(1)
    for hit in hits:
        print(json.dumps(hit["_source"]))


if __name__ == "__main__":
    commands: dict[str, Callable[..., None]] = {"setup": setup, "search": search}
    commands[sys.argv[1]](*sys.argv[2:])
