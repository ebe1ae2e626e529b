"""The playbooks, played by Ansible itself on folders that stand for hosts and programs that only answer. No Docker."""
