"""What a run did, as text, pictures and one HTML page."""
