internal import Glibc

// Without the machine's teardown: the kernel takes back everything at once, and that is faster.
_exit(Physmem.start(ArgumentText.all()))
