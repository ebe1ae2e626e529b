"""Reading the committed dashboards: their queries, the rules they keep, and what is excepted from them and why."""
