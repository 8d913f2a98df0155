"""What a lab refuses or cannot do."""


class LabError(Exception):
    """Names what is wrong and what to do next, in a sentence."""
