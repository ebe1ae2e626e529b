"""What is watched, and what a person is told: objectives, recording rules, alerts and their routes, as typed data."""
