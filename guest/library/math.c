// The one function of mathematics that Swift's Dictionary calls.
#include <stdint.h>

double ceil(double value) {
  // From here on, and for what is no number, every double is whole already.
  if (!(value > -0x1p52 && value < 0x1p52)) return value;
  double whole = (double)(int64_t)value;
  return whole < value ? whole + 1 : whole;
}
