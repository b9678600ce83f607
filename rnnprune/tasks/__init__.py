"""What to learn: the Task protocol, the built-in tasks and their models, and the loader of a user's own task."""
