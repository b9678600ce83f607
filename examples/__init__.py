"""What was done with rnnprune, from data to figures; run from the top of the repository."""
