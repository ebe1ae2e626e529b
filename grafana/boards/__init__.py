"""The dashboards, in Python with Grafana's own types. `grafana/generate.py` writes them to grafana/dashboards/."""
