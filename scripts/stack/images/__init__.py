"""Container images: which ones (pins, lock), and how they get here (registry, archive, build)."""
