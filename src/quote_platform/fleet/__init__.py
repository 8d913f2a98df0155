"""Jobs on many clusters: which there are, in which order they go, and from where each is reached."""
