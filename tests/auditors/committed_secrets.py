#!/usr/bin/env python3
"""Refuse secrets in the files that Git tracks; with --staged, in what is about to be committed.

`git config core.hooksPath .githooks` has Git ask before each commit. A line that only looks like a secret
ends in a comment `pragma: allowlist secret`.
"""

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from detect_secrets.core.scan import scan_file
from detect_secrets.plugins.base import RegexBasedDetector
from detect_secrets.settings import transient_settings

ROOT = Path(__file__).resolve().parents[2]
# Those of the library that know a secret by its form. What only looks random is a digest here.
DETECTORS = (
    "ArtifactoryDetector",
    "AWSKeyDetector",
    "AzureStorageKeyDetector",
    "BasicAuthDetector",
    "GitHubTokenDetector",
    "GitLabTokenDetector",
    "JwtTokenDetector",
    "NpmDetector",
    "PrivateKeyDetector",
    "PypiTokenDetector",
    "SlackDetector",
    "TelegramBotTokenDetector",
)
# What documentation, tests and AWS' own examples call a password or a key; what a template fills in.
MADE_UP = (
    r"(?i)^((old-)?password|secret|s3cret(%2f)?|s%40crt|word|hidden|of-a-variable|hunter2|<.+>|[$%]?\{.+\}"
    r"|a%40b|a\\\"b|AKIA[A-Z0-9]+EXAMPLE)$"
)
# Digests of packages: long, and nobody writes them.
GENERATED = re.compile(r"(^|/)(go\.sum|uv\.lock|package-lock\.json)$")


class PlatformSecretDetector(RegexBasedDetector):
    """What this platform keeps: keys in a kubeconfig or a Secret, Vault's tokens, age's keys."""

    secret_type = "Secret of the platform"  # noqa: S105
    denylist = (
        re.compile(r"LS0tLS1CRUdJTi[A-Za-z0-9+/]{0,24}(UFJJVkFURS|QUklWQVRF|BSSVZBVE)[A-Za-z0-9+/]*"),
        re.compile(r"\bhv[sbr]\.[A-Za-z0-9_-]{20,}"),
        re.compile(r"\bAGE-SECRET-KEY-1[A-Z0-9]{50,}"),
    )


def git(*arguments: str) -> bytes:
    """Return what Git says in the repository that this is called in."""
    return subprocess.run(["git", *arguments], capture_output=True, check=True).stdout


def files(staged: bool) -> dict[str, bytes]:
    """Return the files to look at, by their names."""
    command = ["diff", "--cached", "--name-only", "--diff-filter=d", "-z"] if staged else ["ls-files", "-z"]
    names = [name for name in git(*command).decode().split("\0") if name and not GENERATED.search(name)]
    if staged:
        return {name: git("show", f":{name}") for name in names}
    return {name: Path(name).read_bytes() for name in names if Path(name).is_file()}


def found(contents: dict[str, bytes]) -> list[str]:
    """Return a line for each secret: where, and of what kind."""
    settings = {
        "plugins_used": [
            *({"name": name} for name in DETECTORS),
            {"name": PlatformSecretDetector.__name__, "path": Path(__file__).resolve().as_uri()},
        ],
        "filters_used": [
            {"path": "detect_secrets.filters.allowlist.is_line_allowlisted"},
            {"path": "detect_secrets.filters.regex.should_exclude_secret", "pattern": [MADE_UP]},
        ],
    }
    lines = []
    with tempfile.TemporaryDirectory(prefix="quote-audit-") as folder, transient_settings(settings):
        for name, content in contents.items():
            if b"\0" in content:
                continue
            # By its own ending, which says what a comment looks like.
            file = Path(folder) / f"content{Path(name).suffix}"
            file.write_bytes(content)
            lines += [f"{name}:{one.line_number}: {one.type}" for one in scan_file(str(file))]
    return lines


def main() -> int:
    """Name each secret."""
    parser = argparse.ArgumentParser(description="Refuse secrets in the files that Git tracks.")
    parser.add_argument("--staged", action="store_true", help="look at what is about to be committed")
    contents = files(parser.parse_args().staged)
    secrets = found(contents)
    for line in secrets:
        print(line)
    if secrets:
        print(
            "Take each out, and replace it by a new one if it was ever pushed. Where a line only looks like\n"
            "a secret, end it in a comment `pragma: allowlist secret`."
        )
    else:
        print(f"{len(contents)} files, no secret")
    return int(bool(secrets))


if __name__ == "__main__":
    sys.exit(main())
