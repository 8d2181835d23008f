"""Fine-tuning tasks: records made from a corpus, instruction data, and problems with a known solution."""
