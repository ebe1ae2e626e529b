"""Models and adapters on this host: what their files say, and how they come here."""
