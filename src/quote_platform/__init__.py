"""Quote Platform: from bare Ubuntu VMs to a production Kubernetes platform."""
