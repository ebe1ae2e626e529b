"""A host that deploys to itself what a git repository says, once a signature proves who said it."""
