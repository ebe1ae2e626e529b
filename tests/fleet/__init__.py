"""Several hosts as one stack: real playbooks against systemd containers with Docker inside, under load."""
