"""What looks at training from outside: the monitor, its warnings and its picture."""
