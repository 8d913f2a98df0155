"""Renders a template of a role, without a copy of every variable for each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible.plugins.lookup import template

DOCUMENTATION = """
name: rendered
short_description: Renders a template file
description:
  - As P(ansible.builtin.template#lookup), which copies each value that is known of a host before it renders
    anything. That took a seventh of the processor time of a run that changes nothing.
options:
  _terms:
    description: Names of template files.
    required: true
  template_vars:
    description: Further variables for the template.
    type: dict
    default: {}
  variable_start_string:
    description: What begins an expression.
    type: str
    default: '{{'
  variable_end_string:
    description: What ends an expression.
    type: str
    default: '}}'
  comment_start_string:
    description: What begins a comment.
    type: str
    default: '{#'
  comment_end_string:
    description: What ends a comment.
    type: str
    default: '#}'
  trim_blocks:
    description: Whether the newline after a statement is left out.
    type: bool
    default: true
"""


class _Shared(dict[str, Any]):
    """Variables whose copy shares their values: to render a template changes none of them."""

    def __deepcopy__(self, _: object) -> dict[str, Any]:
        return dict(self)


class LookupModule(template.LookupModule):  # type: ignore[misc]
    """Ansible's own, which is given variables that are cheap to copy."""

    def run(self, terms: list[str], variables: Mapping[str, Any] | None = None, **options: Any) -> list[Any]:
        """Return the text of each template."""
        rendered: list[Any] = super().run(terms, _Shared(variables or {}), **options)
        return rendered
