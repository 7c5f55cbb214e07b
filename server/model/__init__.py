"""The mathematics of the model, one file to a figure."""
