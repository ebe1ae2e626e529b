"""What a model needs of a GPU, and which shape of it serves best: memory, speed, placement, and the reasons."""
