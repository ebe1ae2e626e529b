"""A picture of a stack without Grafana: panels of the committed dashboards as one self-contained HTML file."""
