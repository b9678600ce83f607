"""One verb per file: typed in, frozen dataclass out. Never prints."""
