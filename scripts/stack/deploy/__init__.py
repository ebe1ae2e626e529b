"""A stack on hosts of its own: what is sent to them, what they say of themselves, what would change there."""
