"""A Git server over HTTPS with accounts, as Git brings one: git http-backend behind Python's own server."""

import base64
import contextlib
import datetime
import os
import ssl
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from threading import Event, Thread

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

USER, PASSWORD = "flux", "a-token-that-may-read"


class GitServer:
    """It can be stopped and started at the same address."""

    def __init__(self, folder: Path, address: str = "127.0.0.1") -> None:
        self.folder = folder
        self.bare = folder / "app.git"
        self.work = folder / "work"
        self.address = address
        if not self.bare.exists():
            subprocess.run(["git", "init", "--quiet", "--bare", "-b", "main", self.bare], check=True)
            subprocess.run(["git", "clone", "--quiet", self.bare, self.work], check=True, capture_output=True)
            _certificate(folder, address)
        self.ca = (folder / "tls.crt").read_text()
        self.port = 0
        self.running: ThreadingHTTPServer | None = None

    def start(self) -> None:
        """Serve, at the same port as before."""
        server = ThreadingHTTPServer((self.address, self.port), _handler(self.folder))
        self.port = server.server_address[1]
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.folder / "tls.crt", self.folder / "tls.key")
        server.socket = context.wrap_socket(server.socket, server_side=True)
        Thread(target=server.serve_forever, args=(0.1,), daemon=True).start()
        self.running = server

    def stop(self) -> None:
        """Stop answering."""
        if self.running:
            self.running.shutdown()
            self.running.server_close()
            self.running = None

    def commit(self, files: dict[str, str], message: str = "a change") -> str:
        """Replace all files by these and push; return the commit."""
        for old in self.work.rglob("*"):
            if old.is_file() and ".git" not in old.parts:
                old.unlink()
        for path, text in files.items():
            file = self.work / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        who = ["-c", "user.name=test", "-c", "user.email=test@example.com"]
        git = ["git", "-C", str(self.work)]
        subprocess.run([*git, "add", "--all"], check=True)
        subprocess.run([*git, *who, "commit", "--quiet", "--allow-empty", "-m", message], check=True)
        subprocess.run([*git, "push", "--quiet", "origin", "HEAD:main"], check=True)
        done = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True)
        return done.stdout.strip()


@contextlib.contextmanager
def git_server(folder: Path) -> Iterator[GitServer]:
    """Run one with an empty repository in a folder that is empty."""
    server = GitServer(folder)
    server.start()
    try:
        yield server
    finally:
        server.stop()


def _handler(folder: Path) -> type[BaseHTTPRequestHandler]:
    wanted = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            if self.headers.get("Authorization") != wanted:
                self.send_response(401)
                self.send_header("WWW-Authenticate", 'Basic realm="git"')
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            path, _, query = self.path.partition("?")
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            environment = {
                "GIT_PROJECT_ROOT": str(folder),
                "GIT_HTTP_EXPORT_ALL": "1",
                "PATH_INFO": path,
                "QUERY_STRING": query,
                "REQUEST_METHOD": self.command,
                "REMOTE_USER": USER,
                "CONTENT_TYPE": self.headers.get("Content-Type", ""),
                "CONTENT_LENGTH": str(len(body)),
                "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
                "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
            }
            done = subprocess.run(
                ["git", "http-backend"],
                input=body,
                env=os.environ | environment,
                capture_output=True,
                check=False,
            )
            head, _, content = done.stdout.partition(b"\r\n\r\n")
            headers = dict(line.split(": ", 1) for line in head.decode().splitlines() if ": " in line)
            self.send_response(int(headers.pop("Status", "200").split()[0]))
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = answer

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    return Handler


def _certificate(folder: Path, address: str) -> None:
    """Write key and certificate of an address."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "git")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address(address))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "tls.key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    (folder / "tls.crt").write_bytes(made.public_bytes(serialization.Encoding.PEM))


def main(folder: str, address: str, port: str, first: str) -> None:
    """Serve until it is ended, a repository that begins with the files of a folder: for molecule/flux."""
    server = GitServer(Path(folder), address)
    server.port = int(port)
    files = [file for file in Path(first).rglob("*") if file.is_file()]
    server.commit({str(file.relative_to(first)): file.read_text() for file in files})
    server.start()
    Event().wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
