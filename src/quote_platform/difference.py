"""How a task shows what it changes, as --diff prints it."""


def difference(title: str, before: str, after: str) -> dict[str, str]:
    """Return one entry of a task's `diff`: of a thing, by its title, what it was and what it becomes."""
    return {"before_header": title, "after_header": title, "before": before, "after": after}
