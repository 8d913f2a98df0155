"""What tests that stand in for an API server share."""

import json
from http.server import BaseHTTPRequestHandler
from typing import Any


class ApiHandler(BaseHTTPRequestHandler):
    """Reads and answers JSON, and logs nothing."""

    def given(self) -> dict[str, Any]:
        """Return the body of the request."""
        length = int(self.headers.get("Content-Length") or 0)
        return dict(json.loads(self.rfile.read(length))) if length else {}

    def answer(self, status: int, body: Any) -> None:
        """Answer with a body."""
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Log nothing."""
