"""What models need, what there is, and who is charged for it."""
