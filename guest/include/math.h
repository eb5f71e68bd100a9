// What compiled code may call implicitly, and C and Swift programs by name: rounding, remainders, roots. All results
// are exact or rounded once, to nearest; there are no exponentials and no trigonometry.
#ifndef PHYSMEM_MATH_H
#define PHYSMEM_MATH_H

#define INFINITY __builtin_inff()
#define NAN __builtin_nanf("")
#define HUGE_VAL __builtin_inf()
#define HUGE_VALF __builtin_inff()
#define isnan(value) __builtin_isnan(value)
#define isinf(value) __builtin_isinf(value)
#define isfinite(value) __builtin_isfinite(value)
#define signbit(value) __builtin_signbit(value)

double floor(double value);
double ceil(double value);
double trunc(double value);
/// Halves round away from zero.
double round(double value);
/// Halves round to even: so do rint and nearbyint, in every rounding mode.
double roundeven(double value);
double rint(double value);
double nearbyint(double value);
double fmod(double value, double divisor);
double remainder(double value, double divisor);
double sqrt(double value);
double fma(double left, double right, double addend);
double fabs(double value);
double copysign(double value, double sign);
double fmin(double left, double right);
double fmax(double left, double right);
double ldexp(double value, int exponent);
double scalbn(double value, int exponent);

float floorf(float value);
float ceilf(float value);
float truncf(float value);
float roundf(float value);
float roundevenf(float value);
float rintf(float value);
float nearbyintf(float value);
float fmodf(float value, float divisor);
float remainderf(float value, float divisor);
float sqrtf(float value);
float fmaf(float left, float right, float addend);
float fabsf(float value);
float copysignf(float value, float sign);
float fminf(float left, float right);
float fmaxf(float left, float right);
float ldexpf(float value, int exponent);
float scalbnf(float value, int exponent);

#endif
