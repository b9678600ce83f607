"""The studies of docs/results/studies: what is tried (tasks, cells), how it is made (runner), what it says (pages)."""
