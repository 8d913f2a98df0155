"""The lab end to end."""
