"""Objects as arrays with dimensions, one module for each kind."""
