"""Ways to run the step faster than the rule's operators one by one over whole tensors."""
