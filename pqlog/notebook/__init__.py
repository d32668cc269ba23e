"""For Jupyter: views of a cell's result, the explorer, and the magic."""
