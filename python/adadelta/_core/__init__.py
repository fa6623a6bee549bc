"""Code that all front ends share: the rule and its arguments. Needs only the standard library."""
