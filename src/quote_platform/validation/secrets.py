"""Which variables are secrets: by their argument specs, or by what they are called."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ansible.errors import AnsibleError

from quote_platform import paths
from quote_platform.validation import specs

# Of a variable, or of a key in one that holds several; what ends in _file or _secret names where one lies.
NAMED = re.compile(r"(^|_)(password|token|secret_key|private_key|repository_key|pagerduty_key|slack_url)$")
HOLDERS = re.compile(r"(^|_)(keys|accounts|credentials|receivers|password|become_pass)$")
# Shorter ones may be any word.
LEAST = 6


def values(variables: Mapping[str, Any], resolve: Callable[[Any], Any]) -> set[str]:
    """Return the values of variables that are secret; one that cannot be resolved has none."""
    options = {
        name: option
        for role in specs.load(paths.repository() / "roles").values()
        for name, option in role.items()
    }
    found: set[str] = set()
    for name, raw in variables.items():
        secret = bool(options.get(name, {}).get("no_log") or NAMED.search(name))
        if not secret and not HOLDERS.search(name):
            continue
        try:
            value = resolve(raw)
        except AnsibleError:
            continue
        found |= set(_within(value, secret))
    return {text for text in found if len(text) >= LEAST}


def _within(value: Any, secret: bool) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            # Keys of accounts may be a mapping of names to keys.
            yield from _within(inner, secret or bool(NAMED.search(str(key))))
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _within(inner, secret)
    elif secret and isinstance(value, str):
        yield value
