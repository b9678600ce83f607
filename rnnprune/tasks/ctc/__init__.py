"""Speech recognition in the style of Deep Speech 2: audio in, characters out, trained by CTC."""
