"""The agents of the topologies in this repository, one module each: `faust -A agents.<name> worker`."""
