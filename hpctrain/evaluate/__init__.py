"""What a trained model can do: suites, their judges, and the yardsticks beside it."""
