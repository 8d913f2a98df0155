"""From a commit to an image that a cluster may run: releases, pins, and what a registry keeps."""


class DeliveryError(Exception):
    """Something that a person has to look at; its text says what and where."""


class NotThereError(DeliveryError):
    """A registry does not have it."""


class RefusedError(DeliveryError):
    """An image is not what it should be: unsigned, altered, signed by another."""
