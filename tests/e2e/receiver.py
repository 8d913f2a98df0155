"""Stands where Slack, PagerDuty and a mail server stand, speaks their protocols and keeps what it is told."""

import json
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from email import message_from_bytes
from email.policy import default
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

from aiosmtpd.controller import Controller

# Of this run only: they are secrets, which a test looks for where they should not be.
SLACK_PATH = f"/services/T0/B0/{uuid.uuid4().hex}"
PAGERDUTY_KEY = uuid.uuid4().hex


@dataclass
class Message:
    """What arrived, over which channel, and when."""

    channel: str
    text: str
    content: dict[str, Any]
    moment: float = field(default_factory=time.time)

    @property
    def resolved(self) -> bool:
        """Tell whether it says that something is over."""
        if self.channel == "pagerduty":
            return bool(self.content["event_action"] == "resolve")
        return self.content.get("color") == "good"


def free_port(address: str) -> int:
    """Return a port that nobody has."""
    with socket.create_server((address, 0)) as found:
        return int(found.getsockname()[1])


class Receiver:
    """Both servers, at one address."""

    def __init__(self, address: str = "127.0.0.1") -> None:
        self.messages: list[Message] = []
        # Set to make a channel refuse what it is told.
        self.broken: set[str] = set()
        receiver = self

        class Web(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status, answer = receiver.web(self.path, body)
                self.send_response(status)
                self.end_headers()
                with suppress(BrokenPipeError):  # who is refused need not wait for more
                    self.wfile.write(answer)

            def log_message(self, *_: object) -> None:
                """Keep quiet."""

        class Mail:
            async def handle_DATA(self, _server: object, _session: object, envelope: Any) -> str:
                receiver.mail(envelope.content)
                return "250 OK"

        self.http = ThreadingHTTPServer((address, 0), Web)
        self.port = self.http.server_address[1]
        self.mail_port = free_port(address)
        self.smtp = Controller(Mail(), hostname=address, port=self.mail_port)
        self.address = address

    def web(self, path: str, body: bytes) -> tuple[int, bytes]:
        """Answer a request as Slack's incoming webhook and PagerDuty's Events API v2 do."""
        content = json.loads(body)
        channel = {SLACK_PATH: "slack", "/v2/enqueue": "pagerduty"}.get(path)
        if channel in self.broken:
            return 503, b"service_unavailable"
        if channel == "slack":
            return self.slack(content)
        return self.pagerduty(content) if channel else (404, b"no_service")

    def slack(self, content: dict[str, Any]) -> tuple[int, bytes]:
        """Keep a message, if it is one."""
        if not (attachments := content.get("attachments")):
            return 400, b"no_text"
        text = f"{attachments[0]['title']}\n{attachments[0]['text']}"
        self.messages.append(Message("slack", text, attachments[0]))
        return 200, b"ok"

    def pagerduty(self, content: dict[str, Any]) -> tuple[int, bytes]:
        """Keep an event, if it is one."""
        payload = content.get("payload") or {}
        right = (
            content.get("routing_key") == PAGERDUTY_KEY
            and content.get("event_action") in {"trigger", "acknowledge", "resolve"}
            and {"summary", "source", "severity"} <= {key for key, value in payload.items() if value}
            and payload["severity"] in {"critical", "error", "warning", "info"}
        )
        if not right:
            return 400, b'{"status":"invalid event"}'
        text = f"{payload['summary']}\n{payload.get('custom_details', {}).get('text', '')}"
        self.messages.append(Message("pagerduty", text, content))
        return 202, json.dumps({"status": "success", "dedup_key": content["dedup_key"]}).encode()

    def mail(self, data: bytes) -> None:
        """Keep a mail."""
        found = message_from_bytes(data, policy=default)
        body = found.get_body(("plain",))
        assert body is not None
        text = f"{found['Subject']}\n{body.get_content()}"
        self.messages.append(Message("email", text, dict(found.items())))

    def variables(self) -> dict[str, Any]:
        """Return the settings of a platform whose alerts arrive here, the summary within half an hour."""
        base = f"http://{self.address}:{self.port}"
        return {
            "monitoring_receivers": ["slack", "pagerduty", "email"],
            "monitoring_slack_url": f"{base}{SLACK_PATH}",
            "monitoring_pagerduty_key": PAGERDUTY_KEY,
            "monitoring_pagerduty_url": f"{base}/v2/enqueue",
            "monitoring_email_to": "ops@example.com",
            "monitoring_email_from": "alerts@example.com",
            "monitoring_email_server": f"{self.address}:{self.mail_port}",
            "monitoring_email_require_tls": False,
            "monitoring_email_time": time.strftime("%H:%M", time.gmtime()),
            "monitoring_group_wait": "1s",
            "monitoring_group_interval": "5s",
            "monitoring_alertmanager_egress_ports": [self.port, self.mail_port],
        }

    def find(self, name: str, channel: str, resolved: bool = False, since: float = 0) -> Message | None:
        """Return the first message about an alert, from a moment on."""
        for one in list(self.messages):
            told = one.channel == channel and one.resolved == resolved and one.moment > since
            if told and name in one.text.splitlines()[0]:
                return one
        return None

    def wait(self, check: Callable[[], Any], seconds: float, text: str) -> Any:
        """Return what a check returns as soon as that is something."""
        deadline = time.monotonic() + seconds
        while not (found := check()):
            said = [(one.channel, one.text.splitlines()[0]) for one in self.messages]
            assert time.monotonic() < deadline, f"{text} after {seconds} s; arrived: {said}"
            time.sleep(0.2)
        return found


@contextmanager
def receiving(address: str = "127.0.0.1") -> Iterator[Receiver]:
    """Take messages while the block runs."""
    receiver = Receiver(address)
    thread = Thread(target=receiver.http.serve_forever, daemon=True)
    thread.start()
    receiver.smtp.start()
    try:
        yield receiver
    finally:
        receiver.smtp.stop()
        receiver.http.shutdown()
