"""The test bed of the host roles: systemd containers as servers, a repository of stub packages, runs of playbooks."""
