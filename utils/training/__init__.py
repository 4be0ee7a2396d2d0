"""The training loop, its options, run folders, checkpoints and processes."""
