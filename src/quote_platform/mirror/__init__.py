"""The mirror: apt packages, images and manifests for places without upstream."""
