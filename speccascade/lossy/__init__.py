"""What engines' lossy modes sample from: exactly on small vocabularies, by counts on pairs."""
