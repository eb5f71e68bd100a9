// The cases of swift_guest.swift.
#include "test.h"

PM_TEST_ELSEWHERE(values, 0, 1, "Swift: arrays, closures, classes, generics and typed errors");
PM_TEST_ELSEWHERE(strings, 0, 1, "Swift: strings, interpolation and comparison beyond ASCII");
PM_TEST_ELSEWHERE(dictionaries, 0, 1, "Swift: a dictionary of 5,000 strings, and its memory is freed");
PM_TEST_ELSEWHERE(containers, 0, 1, "Swift, R15, R18: a container's life, its errors, partial allocation");
PM_TEST_ELSEWHERE(container_ends, 0, 1, "Swift, R15: a container ends with its value, and its frames with it");
PM_TEST_ELSEWHERE(mappings, 0, 1, "Swift, R25: mapping, rights, and the information of pm_mapping");
PM_TEST_ELSEWHERE(pager, 0, 1, "Swift, R37: a closure as the fault handler");
PM_TEST_ELSEWHERE(refuses, DIES_OF_PAGE_FAULT, 1, "Swift, R37: a closure that gives up");
PM_TEST_ELSEWHERE(time, 0, 1, "Swift: clock and sleep");
PM_TEST_ELSEWHERE(exits, 42, 1, "Swift: an exit status");
PM_TEST_ELSEWHERE(overflow, DIES_OF_INVALID_INSTRUCTION, 1, "Swift: an overflow traps");
PM_TEST_ELSEWHERE(out_of_bounds, DIES_OF_INVALID_INSTRUCTION, 1, "Swift: an index out of bounds traps");
PM_TEST_ELSEWHERE(arguments, 0, 1, "Swift: the task's arguments");
