"""What ranks say to each other: collectives inside a group, plans from the leader."""
