"""The stack on hosts: real playbooks against systemd containers with Docker inside and real CPU engines."""
