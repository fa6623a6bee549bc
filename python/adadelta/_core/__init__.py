"""What every front end shares: the rule and its arguments. Needs the standard library only."""
