"""Documents to tokens and back, byte for byte."""
