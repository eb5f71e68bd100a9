// `scripts/simulate`: the server without KVM, driven by chance and compared with a naive model after every step.

internal import ArgumentParser

Simulate.main()
