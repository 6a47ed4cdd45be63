"""One page about a job that opens offline: of a real job from its party's operator API, and the base of the demo's."""
