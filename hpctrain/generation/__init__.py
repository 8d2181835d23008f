"""Continue prompts with a trained model, quickly."""
