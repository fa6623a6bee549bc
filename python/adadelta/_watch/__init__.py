"""Watching training from outside: the monitor, its warnings and its plot."""
