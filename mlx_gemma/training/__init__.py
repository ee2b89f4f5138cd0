"""Training: batches, loss, the loop, and what it leaves behind."""
