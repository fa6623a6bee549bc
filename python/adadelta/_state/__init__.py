"""What an optimizer knows, as NumPy arrays by name: the record, its file, and what fits what."""
