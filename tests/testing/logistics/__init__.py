"""Two agents that talk through delay-risks, for the tests of the test kit."""
