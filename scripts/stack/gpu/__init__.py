"""GPU hosts: what the driver says of its GPUs, CDI, and whether an image's CUDA fits the driver."""
