"""Training: batches, losses, the loop, checkpoints and metrics."""
