"""Playbooks as jobs: started, watched, stopped and found again, by hand or by a scheduler."""
