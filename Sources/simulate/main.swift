// `scripts/simulate`: the server without KVM, driven by random operations and compared with a naive model after every
// step.

internal import ArgumentParser

Simulate.main()
