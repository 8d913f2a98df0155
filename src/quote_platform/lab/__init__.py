"""Labs: real nodes with systemd, reached by SSH like VMs."""
