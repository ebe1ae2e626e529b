"""What must stay secret: made at random, kept outside build/, handed to each container as a file of its own."""
