"""What an optimizer knows, as NumPy arrays by name: the record, its file, how names are matched."""
