"""Which variables are secrets: by their argument specs, or by what they are called."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from quote_platform import paths

# Of a variable, or of a key in one that holds several. What ends in _file or _secret names where one is,
# and an access key tells who asks, as a user's name does.
NAMED = re.compile(
    r"(^|_)(password|passwd|passphrase|token|(secret|private|api|repository|pagerduty|secret_access)_?key"
    r"|slack_url|(client|root)_secret)$",
    re.IGNORECASE,
)
HOLDERS = re.compile(r"(^|_)(keys|accounts|credentials|receivers|password|become_pass)$")
# Shorter ones may be any word.
LEAST = 6


def named(name: str, project: Path) -> bool:
    """Return whether a variable is a secret by its name, or by the argument spec of a role."""
    if NAMED.search(name):
        return True
    from quote_platform.validation import specs  # noqa: PLC0415 (it imports Ansible, which takes its time)

    return any(
        options.get(name, {}).get("no_log", False) for options in specs.load(project / "roles").values()
    )


def values(variables: Mapping[str, Any], resolve: Callable[[Any], Any]) -> set[str]:
    """Return the values of variables that are secret; one that cannot be resolved has none."""
    from ansible.errors import AnsibleError  # noqa: PLC0415

    project = paths.repository()
    found: set[str] = set()
    for name, raw in variables.items():
        secret = named(name, project)
        if not secret and not HOLDERS.search(name):
            continue
        try:
            value = resolve(raw)
        except AnsibleError:
            continue
        found |= set(within(value, secret))
    return {text for text in found if len(text) >= LEAST}


def within(value: Any, secret: bool = False) -> Iterator[str]:
    """Yield the secret texts in a value: all of a secret's own, else those below a key that names one."""
    if isinstance(value, dict):
        for key, inner in value.items():
            # Keys of accounts may be a mapping of names to keys.
            yield from within(inner, secret or bool(NAMED.search(str(key))))
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from within(inner, secret)
    elif secret and isinstance(value, str):
        yield value
