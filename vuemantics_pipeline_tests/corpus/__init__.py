"""Bad input, gathered and generated, through the real pipeline: `make corpus`."""
