// `scripts/simulate`: the server without KVM, with random operations, compared with a naive model after every step.

internal import ArgumentParser

Simulate.main()
