// The cases of swift_numbers.swift.
#include "test.h"

PM_TEST_ELSEWHERE(rounded, 0, 1, "Swift: rounded() by every rule, roots and remainders of Double and Float");
PM_TEST_ELSEWHERE(wide, 0, 1, "Swift: UInt128 and Int128: quotients, products, conversions");
PM_TEST_ELSEWHERE(parsed, 0, 1, "Swift: Double and Float from text");
