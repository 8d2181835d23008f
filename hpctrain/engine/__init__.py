"""DeepSpeed engines behind one protocol."""
