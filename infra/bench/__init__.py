"""What the product costs, measured: one module for each part, `./run bench` runs them."""
