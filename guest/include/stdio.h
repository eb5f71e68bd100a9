// Output to the task's console, line by line. There are no files and there is no input.
#ifndef PHYSMEM_STDIO_H
#define PHYSMEM_STDIO_H

#include <stdarg.h>
#include <stddef.h>

#define EOF (-1)

/// Conversions d i u o x X c s p f F e E g G %, lengths hh h l ll z j t, flags - + space 0 #, width and precision.
/// The text goes out at each line's end, at each full buffer and at the task's exit. Returns the characters written.
int printf(const char *format, ...) __attribute__((format(__printf__, 1, 2)));
int vprintf(const char *format, va_list arguments) __attribute__((format(__printf__, 1, 0)));
/// At most `size` bytes with the closing null; returns the length that the whole text has, as C does.
int snprintf(char *text, size_t size, const char *format, ...) __attribute__((format(__printf__, 3, 4)));
int vsnprintf(char *text, size_t size, const char *format, va_list arguments) __attribute__((format(__printf__, 3, 0)));
int puts(const char *text);
int putchar(int character);

#endif
