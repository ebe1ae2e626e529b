"""Commands for the days after the first: look, keep, tidy up, compare, take a GPU out."""
