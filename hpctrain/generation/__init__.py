"""Text from a trained model: batches with a key/value cache, sampling, and where an answer ends."""
